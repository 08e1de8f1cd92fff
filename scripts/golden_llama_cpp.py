#!/usr/bin/env python3
"""Makes tests/tests/golden/llama.json: what llama.cpp computes for the models of golden_phi.py, from the same files.

Needs `pip install llama-cpp-python` (0.3.36 contains llama.cpp 0c1e570) besides what golden_phi.py needs, and that to
have run. Takes seconds.

    python scripts/golden_llama_cpp.py --out tests/tests/golden

Weights, keys and values are f32 and flash attention is off. The files have no vocabulary, which llama.cpp insists on:
it is told to make dummy tokens. There are two truths, and this script fails unless they agree:

  llama.cpp     f32 on the CPU
  exact         phi_reference.py in float64 with llama.cpp's deviations from the reference

LongRoPE's factors depend on n_ctx ("context" of a case), which llama.cpp rounds up to a multiple of 256. Phi-tiny-MoE
is missing: llama.cpp cannot load heads that are not hidden / heads wide. llama.json and llama.bin are laid out like
index.json, see golden_qwen2.py; all models share the one file of logits.
"""

import argparse
import ctypes
import json
import pathlib

import llama_cpp
import numpy as np
import torch

from golden_phi import SMALL, kept
from golden_qwen2 import nmse
from phi_reference import exact, weights

# (tokens, n_ctx): the original context is 256 where there is one.
CASES = {
    "phi4": [(64, 256), (300, 512)],
    "phi4-mini": [(64, 256), (256, 256), (64, 512), (300, 512)],
    "phi3-window": [(64, 256)],
    "phimoe": [(64, 256), (300, 512)],
    "phimoe-35": [(64, 256), (256, 256), (64, 512), (300, 512)],
}


def run(path, spec, tokens, context):
    """(tokens, vocab) logits by llama.cpp."""
    overrides = (llama_cpp.llama_model_kv_override * 3)()
    overrides[0].key, overrides[0].tag = b"tokenizer.ggml.model", llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].value.val_str = b"no_vocab"
    overrides[1].key, overrides[1].tag = spec["arch"].encode() + b".vocab_size", llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT
    overrides[1].value.val_i64 = spec["vocab"]
    options = llama_cpp.llama_model_default_params()
    options.kv_overrides = overrides
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path}"
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = context, context, context
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    session = llama_cpp.llama_init_from_model(model, options)
    assert llama_cpp.llama_n_ctx(session) == context
    count = len(tokens)
    batch = llama_cpp.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for at, token in enumerate(tokens.tolist()):
        batch.token[at], batch.pos[at], batch.logits[at] = token, at, 1
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
    assert llama_cpp.llama_decode(session, batch) == 0
    rows = llama_cpp.llama_get_logits(session)
    logits = np.ctypeslib.as_array(rows, (count, spec["vocab"])).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(session)
    llama_cpp.llama_model_free(model)
    return torch.from_numpy(logits)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True, help="where golden_phi.py left its files")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    blob = bytearray()

    def store(array, kind):
        at = len(blob)
        blob.extend(np.ascontiguousarray(array, dtype=kind).tobytes())
        return at

    index = {"versions": {"llama-cpp-python": llama_cpp.__version__}, "models": []}
    for name, cases in CASES.items():
        spec = SMALL[name]
        tensors = weights(spec)
        random = torch.Generator().manual_seed(1000 * spec["seed"])
        sequence = torch.randint(spec["vocab"], (600,), generator=random)
        at = store(sequence[:300].numpy(), "<u4")
        entry = {"name": name, "vocab": spec["vocab"], "mtp": False, "cases": []}
        for count, context in cases:
            tokens = sequence[:count]
            found = run(options.out / f"{name}.gguf", spec, tokens, context)
            truth = exact(spec, tensors, llama_context=context)(tokens)
            reference = exact(spec, tensors)(tokens)
            top = truth.topk(2).values
            margin = float((top[:, 0] - top[:, 1]).min())
            same = float((truth.argmax(-1) == reference.argmax(-1)).double().mean())
            print(f"{name} {count} of {context}: least margin {margin:.1e}, llama.cpp against its rules in float64: "
                  f"nmse {nmse(found, truth):.1e}; these against the reference: {nmse(truth, reference):.1e}, "
                  f"same top-1 {same:.0%}")
            assert nmse(found, truth) < 1e-9
            assert (found.argmax(-1) == truth.argmax(-1)).all() and margin > 2e-5, "choose another seed"
            positions = kept(count)[::-2 if count > 64 else -6][::-1]
            entry["cases"].append({
                "tokens": at, "count": count, "window": None, "factors": None, "context": context,
                "logits": {
                    "positions": positions,
                    "top1": store(truth.argmax(-1).numpy(), "<u4"),
                    "exact": store(truth[positions].numpy(), "<f4"),
                    "llama.cpp": store(found[positions].numpy(), "<f4"),
                }})
        index["models"].append(entry)
    (options.out / "llama.json").write_text(json.dumps(index) + "\n")
    (options.out / "llama.bin").write_bytes(blob)


if __name__ == "__main__":
    main()
