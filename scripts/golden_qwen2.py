#!/usr/bin/env python3
"""Makes tests/tests/golden/: small random qwen2 models and what they must compute, without any code of ours.

Needs `pip install torch transformers tokenizers gguf safetensors`. Takes a minute on one core.

    python scripts/golden_qwen2.py --out tests/tests/golden          the committed fixtures
    python scripts/golden_qwen2.py --large --out DIR                 larger ones, with Hugging Face directories

Three models each time: `untied`, `tied`, and `mimo` (a multi-token-prediction layer inside the file). The GGUF is
written by gguf-py. There are two truths, and this script fails unless they agree:

  transformers  Qwen2ForCausalLM, f32, eager attention. Its MTP layer is Qwen2DecoderLayer between two projections.
  exact         the same graph written below in float64. `model.double()` would not do: transformers computes norms,
                softmax and rotation angles in f32 whatever the model's type.

index.json describes the models; NAME.bin holds, little-endian and at the byte offsets the index gives: token ids
(u32), the most likely token at every position (u32), and f32 logits (positions, vocab) of both truths.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm

SMALL = {
    "untied": dict(hidden=64, ffn=96, layers=2, heads=4, kv_heads=2, head_dim=16, theta=640000.0, eps=1e-5, vocab=256,
                   tied=False, mtp=False, cases=[64, 600, 3000, (100, 16)], seed=1),
    # The head is wider than hidden / heads, as the keys attention.key_length and value_length allow.
    "tied": dict(hidden=64, ffn=64, layers=2, heads=2, kv_heads=1, head_dim=64, theta=10000.0, eps=1e-6, vocab=320,
                 tied=True, mtp=False, cases=[64, 600], seed=4),
    "mimo": dict(hidden=64, ffn=64, layers=2, heads=4, kv_heads=2, head_dim=16, theta=640000.0, eps=1e-5, vocab=128,
                 tied=False, mtp=True, cases=[64, 600], seed=3),
}
LARGE = {
    "untied": dict(hidden=256, ffn=512, layers=4, heads=8, kv_heads=2, head_dim=32, theta=640000.0, eps=1e-5,
                   vocab=384, tied=False, mtp=False, cases=[64, 600, 3000], seed=11),
    "tied": dict(hidden=256, ffn=512, layers=4, heads=4, kv_heads=1, head_dim=64, theta=640000.0, eps=1e-5,
                 vocab=384, tied=True, mtp=False, cases=[64, 600, 3000], seed=12),
    "mimo": dict(hidden=256, ffn=512, layers=4, heads=4, kv_heads=2, head_dim=128, theta=640000.0, eps=1e-5,
                 vocab=384, tied=False, mtp=True, cases=[64, 600, 3000], seed=16),
}
CONTEXT = 4096
# A case is a number of random tokens, or (tokens, sliding window).
# How Qwen2's tokenizer cuts text into pieces.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
# Positions whose logits are kept: all of a short sequence, else some around powers of two and the rest evenly.
KEPT = 32


def weights(spec):
    """Random tensors by their Hugging Face names; scaled so that attention is selective and logits spread by units."""
    random = torch.Generator().manual_seed(spec["seed"])
    hidden, ffn = spec["hidden"], spec["ffn"]
    q, kv = (spec[heads] * spec["head_dim"] for heads in ["heads", "kv_heads"])

    def matrix(rows, depth, gain):
        return torch.randn(rows, depth, generator=random) * (gain / depth**0.5)

    def vector(size):
        return torch.randn(size, generator=random) * 0.5

    def norm():
        return torch.rand(hidden, generator=random) + 0.5

    def block(prefix):
        return {
            prefix + "input_layernorm.weight": norm(),
            prefix + "self_attn.q_proj.weight": matrix(q, hidden, 1.3),
            prefix + "self_attn.q_proj.bias": vector(q),
            prefix + "self_attn.k_proj.weight": matrix(kv, hidden, 1.3),
            prefix + "self_attn.k_proj.bias": vector(kv),
            prefix + "self_attn.v_proj.weight": matrix(kv, hidden, 1.0),
            prefix + "self_attn.v_proj.bias": vector(kv),
            prefix + "self_attn.o_proj.weight": matrix(hidden, q, 1.0),
            prefix + "post_attention_layernorm.weight": norm(),
            prefix + "mlp.gate_proj.weight": matrix(ffn, hidden, 1.5),
            prefix + "mlp.up_proj.weight": matrix(ffn, hidden, 1.5),
            prefix + "mlp.down_proj.weight": matrix(hidden, ffn, 1.0),
        }

    # A tied embedding is also the head: its rows have to be short enough for both.
    tensors = {"model.embed_tokens.weight": matrix(spec["vocab"], hidden, 2.0 if spec["tied"] else hidden**0.5)}
    for n in range(spec["layers"]):
        tensors |= block(f"model.layers.{n}.")
    tensors["model.norm.weight"] = norm()
    if not spec["tied"]:
        tensors["lm_head.weight"] = matrix(spec["vocab"], hidden, 2.0)
    if spec["mtp"]:
        prefix = "model.mtp_layers.0."
        tensors |= block(prefix)
        for name in ["token_layernorm", "hidden_layernorm", "final_layernorm"]:
            tensors[prefix + name + ".weight"] = norm()
        tensors[prefix + "input_proj.weight"] = matrix(hidden, 2 * hidden, 1.0)
    return tensors


def hugging_face_config(spec, window=None):
    return transformers.Qwen2Config(
        vocab_size=spec["vocab"], hidden_size=spec["hidden"], intermediate_size=spec["ffn"],
        num_hidden_layers=spec["layers"], num_attention_heads=spec["heads"], num_key_value_heads=spec["kv_heads"],
        head_dim=spec["head_dim"], max_position_embeddings=CONTEXT, rms_norm_eps=spec["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": spec["theta"]}, tie_word_embeddings=spec["tied"],
        use_sliding_window=window is not None, sliding_window=window, max_window_layers=0,
        attn_implementation="eager", bos_token_id=None, eos_token_id=None)


def reference(spec, tensors, window=None):
    """tokens -> (logits, MTP logits or None), by transformers in f32."""
    model = transformers.Qwen2ForCausalLM(hugging_face_config(spec, window)).eval()
    trunk = {name: tensor for name, tensor in tensors.items() if ".mtp_layers." not in name}
    missing, unexpected = model.load_state_dict(trunk, strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if spec["tied"] else set()), (missing, unexpected)
    seen = {}
    model.model.norm.register_forward_pre_hook(lambda _, args: seen.update(residual=args[0]))

    def mtp(tokens):
        part = {name.removeprefix("model.mtp_layers.0."): tensor for name, tensor in tensors.items()
                if ".mtp_layers." in name}
        norms = {}
        for name in ["token_layernorm", "hidden_layernorm", "final_layernorm"]:
            norms[name] = Qwen2RMSNorm(spec["hidden"], eps=spec["eps"])
            norms[name].weight.data = part.pop(name + ".weight")
        project = part.pop("input_proj.weight")
        layer = Qwen2DecoderLayer(model.config, layer_idx=0).eval()
        layer.load_state_dict(part)
        # Row q joins the trunk's residual stream at q - 1 with token q; there is no row 0.
        rows = len(tokens) - 1
        before = norms["hidden_layernorm"](seen["residual"][:, :-1])
        token = norms["token_layernorm"](model.model.embed_tokens(tokens[None, 1:]))
        x = torch.cat([before, token], -1) @ project.T
        positions = torch.arange(1, rows + 1)[None]
        mask = torch.full((rows, rows), torch.finfo(torch.float32).min).triu(1)[None, None]
        x = layer(x, attention_mask=mask, position_ids=positions,
                  position_embeddings=model.model.rotary_emb(x, positions))
        x = x[0] if isinstance(x, tuple) else x
        return model.lm_head(norms["final_layernorm"](x))[0]

    @torch.no_grad()
    def run(tokens):
        logits = model(tokens[None], use_cache=False).logits[0]
        return logits, mtp(tokens) if spec["mtp"] else None

    return run


def exact(spec, tensors, window=None):
    """tokens -> (logits, MTP logits or None), in float64 throughout."""
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    head_dim = spec["head_dim"]

    def norm(x, name):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + spec["eps"]) * tensors[name]

    def linear(x, name):
        y = x @ tensors[name + ".weight"].T
        return y + tensors[name + ".bias"] if name + ".bias" in tensors else y

    def rotate(x, positions):
        half = head_dim // 2
        angle = positions[:, None].double() * spec["theta"] ** (-torch.arange(half).double() / half)
        a, b = x[:, :half], x[:, half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def block(x, prefix, positions):
        y = norm(x, prefix + "input_layernorm.weight")
        q, k, v = (linear(y, prefix + f"self_attn.{part}_proj").split(head_dim, -1) for part in "qkv")
        hidden_from = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        if window:
            hidden_from |= hidden_from.logical_not().tril(-window)
        heads = []
        for h, query in enumerate(q):
            group = h // (spec["heads"] // spec["kv_heads"])
            scores = rotate(query, positions) @ rotate(k[group], positions).T / head_dim**0.5
            heads.append(scores.masked_fill(hidden_from, -torch.inf).softmax(-1) @ v[group])
        x = x + linear(torch.cat(heads, -1), prefix + "self_attn.o_proj")
        y = norm(x, prefix + "post_attention_layernorm.weight")
        gate = linear(y, prefix + "mlp.gate_proj")
        return x + linear(gate * gate.sigmoid() * linear(y, prefix + "mlp.up_proj"), prefix + "mlp.down_proj")

    def run(tokens):
        embed = tensors["model.embed_tokens.weight"]
        head = tensors["model.embed_tokens.weight" if spec["tied"] else "lm_head.weight"]
        x = embed[tokens]
        for n in range(spec["layers"]):
            x = block(x, f"model.layers.{n}.", torch.arange(len(tokens)))
        logits = norm(x, "model.norm.weight") @ head.T
        if not spec["mtp"]:
            return logits, None
        prefix = "model.mtp_layers.0."
        before = norm(x[:-1], prefix + "hidden_layernorm.weight")
        token = norm(embed[tokens[1:]], prefix + "token_layernorm.weight")
        y = linear(torch.cat([before, token], -1), prefix + "input_proj")
        y = block(y, prefix, torch.arange(1, len(tokens)))
        return logits, norm(y, prefix + "final_layernorm.weight") @ head.T

    return run


OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "token_layernorm": "nextn.enorm", "hidden_layernorm": "nextn.hnorm", "input_proj": "nextn.eh_proj",
    "final_layernorm": "nextn.shared_head_norm",
}


def gguf_name(name, spec):
    """The GGUF name of a Hugging Face tensor; the MTP layer is the block after the trunk's."""
    module, kind = name.rsplit(".", 1)
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, where, index, part = module.split(".", 3)
    block = int(index) + (spec["layers"] if where == "mtp_layers" else 0)
    return f"blk.{block}.{INSIDE[part]}.{kind}"


def write_gguf(path, name, spec, tensors):
    """By gguf-py; the columns of the MTP layer's projection are swapped to (token, hidden)."""
    out = gguf.GGUFWriter(path, "qwen2")
    out.add_name(f"golden {name}")
    out.add_file_type(0)
    out.add_block_count(spec["layers"] + spec["mtp"])
    out.add_context_length(CONTEXT)
    out.add_embedding_length(spec["hidden"])
    out.add_feed_forward_length(spec["ffn"])
    out.add_head_count(spec["heads"])
    out.add_head_count_kv(spec["kv_heads"])
    out.add_key_length(spec["head_dim"])
    out.add_value_length(spec["head_dim"])
    out.add_rope_dimension_count(spec["head_dim"])
    out.add_rope_freq_base(spec["theta"])
    out.add_layer_norm_rms_eps(spec["eps"])
    if spec["mtp"]:
        out.add_uint32("qwen2.nextn_predict_layers", 1)
        out.add_string("mimo.mtp.concat_order", "token_hidden")
    for name, tensor in tensors.items():
        short = gguf_name(name, spec)
        if short.endswith("eh_proj.weight"):
            tensor = tensor.roll(spec["hidden"], dims=1)
        out.add_tensor(short, tensor.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_hugging_face(path, spec, tensors):
    """A directory as published, with a tokenizer that knows single bytes and one merge."""
    path.mkdir(exist_ok=True)
    config = hugging_face_config(spec).to_dict() | {"dtype": "float32"}
    if spec["mtp"]:
        config |= {"architectures": ["MiMoForCausalLM"], "model_type": "mimo", "num_nextn_predict_layers": 1,
                   "attention_bias": True, "rope_theta": spec["theta"]}
    else:
        config["architectures"] = ["Qwen2ForCausalLM"]
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    texts = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "th"]
    vocabulary = {text: at for at, text in enumerate(texts)}
    bytes_only = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("t", "h")]))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated")
    bytes_only.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [split, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bytes_only.decoder = tokenizers.decoders.ByteLevel()
    bytes_only.add_special_tokens(["<|endoftext|>"])
    bytes_only.save(str(path / "tokenizer.json"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "model.safetensors",
              metadata={"format": "pt"})


def kept(count):
    """Positions whose logits are stored."""
    if count <= 2 * KEPT:
        return list(range(count))
    edges = {at for power in [64, 128, 256, 512, 1024, 2048] for at in [power - 1, power, power + 1] if at < count}
    evenly = {round(at) for at in np.linspace(0, count - 1, max(KEPT - len(edges), 12))}
    return sorted(edges | evenly)


def nmse(found, truth):
    return float(((found.double() - truth).square().sum() / truth.square().sum()))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--large", action="store_true")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    index = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "models": []}
    for name, spec in (LARGE if options.large else SMALL).items():
        tensors = weights(spec)
        write_gguf(options.out / f"{name}.gguf", name, spec, tensors)
        if options.large:
            write_hugging_face(options.out / name, spec, tensors)

        blob = bytearray()

        def store(array, kind):
            at = len(blob)
            blob.extend(np.ascontiguousarray(array, dtype=kind).tobytes())
            return at

        entry = {"name": name, "vocab": spec["vocab"], "mtp": spec["mtp"], "cases": []}
        for wanted in spec["cases"]:
            count, window = wanted if isinstance(wanted, tuple) else (wanted, None)
            random = torch.Generator().manual_seed(1000 * spec["seed"] + count)
            tokens = torch.randint(spec["vocab"], (count,), generator=random)
            truths = [make(spec, tensors, window)(tokens) for make in [reference, exact]]
            outputs = zip(["logits", "mtp"], *truths)
            case = {"tokens": store(tokens.numpy(), "<u4"), "count": count, "window": window}
            for what, found, truth in outputs:
                if truth is None:
                    continue
                # Row r of the MTP layer is position r + 1.
                first = 1 if what == "mtp" else 0
                rows = [at - first for at in kept(count) if at >= first]
                top = truth.topk(2).values
                margin = float((top[:, 0] - top[:, 1]).min())
                late = truth[2048:].numel() and nmse(found[2048:], truth[2048:])
                early = nmse(found[:2048], truth[:2048])
                print(f"{name} {count} {what}: spread {float(truth.std()):.2f}, least margin {margin:.1e}, "
                      f"transformers f32 against float64: nmse {early:.1e}, from position 2048 {late:.1e}")
                assert (found.argmax(-1) == truth.argmax(-1)).all() and margin > 2e-5, "choose another seed"
                assert early < 1e-10 and late < 1e-8
                case[what] = {
                    "positions": [row + first for row in rows],
                    "top1": store(truth.argmax(-1).numpy(), "<u4"),
                    "exact": store(truth[rows].numpy(), "<f4"),
                    "transformers": store(found[rows].detach().numpy(), "<f4"),
                }
            entry["cases"].append(case)
        (options.out / f"{name}.bin").write_bytes(blob)
        index["models"].append(entry)
    (options.out / "index.json").write_text(json.dumps(index) + "\n")


if __name__ == "__main__":
    main()
