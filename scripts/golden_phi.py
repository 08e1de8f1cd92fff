#!/usr/bin/env python3
"""Makes tests/tests/golden/phi.json and small random phi3 and phimoe models, without any code of ours.

Needs `pip install torch transformers tokenizers gguf safetensors`. Takes minutes on one core.

    python scripts/golden_phi.py --out tests/tests/golden           the committed fixtures
    python scripts/golden_phi.py --large --out DIR                  Hugging Face directories, a GGUF of each, logits

The GGUF has the keys and names of llama.cpp's converter. There are two truths, and this script fails unless they agree:

  transformers  Phi3ForCausalLM, PhimoeForCausalLM: f32, eager, loaded from a directory with the names and the
                config.json of the published checkpoints. A case is a single forward of its tokens. Where the original
                context is crossed, `generate` with its cache must give the same logits token by token.
  exact         the same graph in float64, phi_reference.py.

transformers' PhimoeRotaryEmbedding ignores the long factors: it calls its init function without a length. The
authors' modelling file, like Phi3RotaryEmbedding, takes them for sequences longer than the original context, and that
is the truth here: the init function is given the length. Left alone it is the case with "factors": "short".

phi.json and NAME.bin are laid out like index.json, see golden_qwen2.py. The cases of a model are prefixes of one
sequence. "factors" names a set of rope factors that is to be forced, else it is null.
"""

import argparse
import functools
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from golden_qwen2 import nmse
from phi_hf import write_directory
from phi_reference import exact, is_moe, weights, write_gguf

PHI3 = dict(arch="phi3", hidden=64, ffn=32, layers=2, heads=4, kv_heads=1, head_dim=16, theta=250000.0, eps=1e-5,
            vocab=64, context=4096, tied=False, window=None)
PHIMOE = dict(arch="phimoe", hidden=32, ffn=16, layers=2, heads=4, kv_heads=2, head_dim=8, theta=10000.0, eps=1e-5,
              vocab=64, context=4096, tied=False, window=20)
# llama.cpp rounds a context up to a multiple of 256, so this is the least original one that can be met exactly.
LONGROPE = dict(original=256, context=8192)
# Lengths around the original context: one token at a time, the factors change between the second and the third.
STEPS = [255, 256, 257, 258]
# A case is a number of tokens, or (tokens, forced factors).
SMALL = {
    "phi4": PHI3 | dict(cases=[64, 600], seed=1),
    "phi4-mini": PHI3 | LONGROPE | dict(hidden=48, heads=3, theta=10000.0, partial=0.75, tied=True, window=16384,
                                        cases=[64, *STEPS, 600, (64, "long"), (600, "short")], seed=2),
    "phi3-window": PHI3 | dict(hidden=32, heads=2, window=20, cases=[64, 600], seed=3),
    "phimoe": PHIMOE | dict(cases=[64, 600], seed=4),
    # Heads narrower than hidden / heads; router logits that tie.
    "phimoe-tiny": PHIMOE | dict(heads=2, kv_heads=1, ffn=8, bare=True, ties=True, cases=[64, 600], seed=5),
    "phimoe-35": PHIMOE | LONGROPE | dict(window=8192, cases=[64, *STEPS, 600, (64, "long"), (600, "short")], seed=6),
}
LARGE_MOE = PHIMOE | dict(hidden=128, ffn=128, layers=4, heads=4, kv_heads=1, head_dim=32, vocab=960, tokenizer="spm",
                          dtype=torch.bfloat16, cases=[64, 300])
LARGE_PHI3 = PHI3 | dict(hidden=256, ffn=512, layers=4, heads=8, kv_heads=2, head_dim=32, vocab=832,
                         dtype=torch.bfloat16, cases=[64, 300])
LARGE = {
    "phi4": LARGE_PHI3 | dict(tokenizer="cl100k", context=16384, seed=11),
    "phi4-mini": LARGE_PHI3 | LONGROPE | dict(hidden=192, heads=6, theta=10000.0, partial=0.75, tied=True, window=16384,
                                              tokenizer="o200k", shard="1MB", seed=12),
    "phimoe": LARGE_MOE | LONGROPE | dict(window=8192, shard="4MB", seed=13),
    "phimoe-tiny": LARGE_MOE | dict(heads=2, ffn=64, window=47, bare=True, seed=15),
}
# Rows kept of a longer sequence, besides these and the last ones.
KEPT = 8
EDGES = [0, 1, 18, 19, 20, 21, 255, 256, 257]


def load(spec, tensors):
    """transformers' model, from a directory as published."""
    kind, more = transformers.Phi3ForCausalLM, {}
    if is_moe(spec):
        kind, more = transformers.PhimoeForCausalLM, {"experts_implementation": "eager"}
    with tempfile.TemporaryDirectory() as place:
        write_directory(pathlib.Path(place), spec | {"tokenizer": None}, tensors)
        model, report = kind.from_pretrained(place, dtype=torch.float32, attn_implementation="eager",
                                             output_loading_info=True, **more)
    assert not any(report.values()), report
    return model.eval()


def force(model, spec, factors, count):
    """Has `model` take "short" or "long" factors, or as the authors do for `count` tokens."""
    if "original" not in spec:
        return
    rotary, init = model.model.rotary_emb, ROPE_INIT_FUNCTIONS["longrope"]
    if is_moe(spec):
        length = {"short": None, "long": spec["original"] + 1, None: count}[factors]
        rotary.rope_init_fn = init if factors == "short" else functools.partial(init, seq_len=length)
    else:
        short, long = (init(model.config, seq_len=length)[0] for length in [None, spec["original"] + 1])
        rotary.original_inv_freq = {"long": long}.get(factors, short)
        rotary.long_inv_freq = {"short": short}.get(factors, long)


@torch.no_grad()
def reference(model, spec, tokens, factors):
    force(model, spec, factors, len(tokens))
    return model(tokens[None], use_cache=False).logits[0]


@torch.no_grad()
def generated(model, tokens, start):
    """The last row of logits for every length from `start` to all of `tokens`, by `generate` with its cache."""
    force_next = lambda ids, _: torch.full((1, model.vocab_size), -torch.inf).index_fill(1, tokens[ids.shape[1]], 0.0)
    out = model.generate(tokens[None, :start], max_new_tokens=len(tokens) - start, do_sample=False, use_cache=True,
                         logits_processor=[force_next], return_dict_in_generate=True, output_logits=True,
                         eos_token_id=None, pad_token_id=0, attention_mask=torch.ones(1, start, dtype=torch.long))
    assert (out.sequences[0] == tokens).all()
    return torch.cat(out.logits)


def kept(count):
    """Positions whose logits are stored."""
    if count <= 64:
        return list(range(count))
    evenly = {round(at) for at in np.linspace(0, count - 1, KEPT)}
    return sorted(evenly | {at for at in EDGES if at < count} | {count - 2, count - 1})


def check_steps(name, spec, model, tokens, rows):
    """`generate` across the original context gives the last rows of single forwards."""
    force(model, spec, None, 0)
    last = STEPS[-1] + 1
    found = generated(model, tokens[:last], STEPS[0])
    error = max(nmse(row, rows[count]) for row, count in zip(found, STEPS, strict=True))
    print(f"{name}: generate over {STEPS} against float64: nmse {error:.1e}")
    assert error < 1e-10


def make(name, spec, out, large):
    """The files of one model; its entry in the index."""
    tensors = weights(spec)
    write_gguf(out / f"{name}.gguf", name, spec, tensors)
    if large:
        write_directory(out / name, spec, tensors)
    model = load(spec, tensors)
    blob = bytearray()

    def store(array, kind):
        at = len(blob)
        blob.extend(np.ascontiguousarray(array, dtype=kind).tobytes())
        return at

    random = torch.Generator().manual_seed(1000 * spec["seed"])
    sequence = torch.randint(spec["vocab"], (600,), generator=random)
    entry = {"name": name, "vocab": spec["vocab"], "mtp": False, "cases": []}
    at, rows, seen = store(sequence.numpy(), "<u4"), {}, {}
    for wanted in spec["cases"]:
        count, factors = wanted if isinstance(wanted, tuple) else (wanted, None)
        tokens = sequence[:count]
        found = reference(model, spec, tokens, factors)
        truth = exact(spec, tensors, factors, seen=seen)(tokens)
        top = truth.topk(2).values
        margin = float((top[:, 0] - top[:, 1]).min())
        error = nmse(found, truth)
        print(f"{name} {count} {factors or ''}: spread {float(truth.std()):.2f}, least margin {margin:.1e}, "
              f"transformers f32 against float64: nmse {error:.1e}")
        assert (found.argmax(-1) == truth.argmax(-1)).all() and margin > 2e-5, "choose another seed"
        assert error < 1e-10
        if factors is None:
            rows[count] = truth[-1]
        positions = kept(count)
        entry["cases"].append({"tokens": at, "count": count, "window": None, "factors": factors, "logits": {
            "positions": positions,
            "top1": store(truth.argmax(-1).numpy(), "<u4"),
            "exact": store(truth[positions].numpy(), "<f4"),
            "transformers": store(found[positions].numpy(), "<f4"),
        }})
    if not is_moe(spec) and rows.keys() >= set(STEPS):
        check_steps(name, spec, model, sequence, rows)
    if is_moe(spec):
        print(f"{name} routing:", seen)
        assert seen["margin"] > 1e-5, "choose another seed"
        # Where two rows are zeros, the greatest logit cannot be negative.
        branches = ["alone", "two", "more", *(["zero", "tie"] if spec.get("ties") else ["negative"])]
        assert large or all(seen[f"w{place} {name}"] for place in "12" for name in branches), "a branch is not covered"
    (out / f"{name}.bin").write_bytes(blob)
    return entry


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--large", action="store_true")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    specs = LARGE if options.large else SMALL
    models = [make(name, spec, options.out, options.large) for name, spec in specs.items()]
    index = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "models": models}
    (options.out / "phi.json").write_text(json.dumps(index) + "\n")


if __name__ == "__main__":
    main()
