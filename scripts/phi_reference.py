"""Random Phi models, what they compute in float64, and their GGUF files. Used by golden_phi.py, golden_llama_cpp.py.

A model is a `spec` (hyperparameters, see golden_phi.py) and a dict of tensors by the names they have on disk in a
published checkpoint: `self_attn.qkv_proj`, `mlp.gate_up_proj`, `block_sparse_moe.experts.E.w1`.
"""

import math

import gguf
import numpy as np
import torch

EXPERTS = 16
JITTER = 0.01
# `short_mscale` and `long_mscale` of Phi-3.5-MoE.
MSCALE = 1.243163121016122


def is_moe(spec):
    return spec["arch"] == "phimoe"


def rotary_dims(spec):
    return int(spec["head_dim"] * spec.get("partial", 1.0))


def factors(spec):
    """(short, long): ascending, different from each other and from 1; the long ones stretch as far as the context."""
    pairs = rotary_dims(spec) // 2
    at = np.arange(pairs) / max(pairs - 1, 1)
    short = 1.0 + 0.35 * at
    long = 1.1 * (spec["context"] / spec["original"]) ** at
    return [[round(float(value), 6) for value in values] for values in [short, long]]


def attention_factor(spec):
    """sqrt(1 + ln s / ln original), s = context / original: what llama.cpp's converter stores."""
    return math.sqrt(1 + math.log(spec["context"] / spec["original"]) / math.log(spec["original"]))


def weights(spec):
    """Random tensors; scaled so that attention is selective, routers are decisive and logits spread by units."""
    random = torch.Generator().manual_seed(spec["seed"])
    hidden, ffn = spec["hidden"], spec["ffn"]
    q, kv = (spec[heads] * spec["head_dim"] for heads in ["heads", "kv_heads"])

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    def matrix(rows, depth, gain):
        return normal(rows, depth) * (gain / depth**0.5)

    def norm(name):
        tensors[name + ".weight"] = torch.rand(hidden, generator=random) + 0.5
        if is_moe(spec):
            tensors[name + ".bias"] = normal(hidden) * 0.5

    def linear(name, rows, depth, gain):
        tensors[name + ".weight"] = matrix(rows, depth, gain)
        if is_moe(spec):
            tensors[name + ".bias"] = normal(rows) * 0.5

    # A tied embedding is also the head: its rows have to be short enough for both.
    tensors = {"model.embed_tokens.weight": matrix(spec["vocab"], hidden, 2.0 if spec["tied"] else hidden**0.5)}
    for n in range(spec["layers"]):
        prefix = f"model.layers.{n}."
        norm(prefix + "input_layernorm")
        norm(prefix + "post_attention_layernorm")
        if is_moe(spec):
            for part, rows, gain in [("q", q, 1.3), ("k", kv, 1.3), ("v", kv, 1.0)]:
                linear(prefix + f"self_attn.{part}_proj", rows, hidden, gain)
            moe = prefix + "block_sparse_moe."
            bias = tensors[prefix + "post_attention_layernorm.bias"]
            tensors[moe + "gate.weight"] = router(spec, n, normal, bias)
            for expert in range(EXPERTS):
                for part, rows, depth, gain in [("w1", ffn, hidden, 1.5), ("w2", hidden, ffn, 1.0),
                                                ("w3", ffn, hidden, 1.5)]:
                    tensors[moe + f"experts.{expert}.{part}.weight"] = matrix(rows, depth, gain)
        else:
            rows = [matrix(q, hidden, 1.3), matrix(kv, hidden, 1.3), matrix(kv, hidden, 1.0)]
            tensors[prefix + "self_attn.qkv_proj.weight"] = torch.cat(rows)
            tensors[prefix + "mlp.gate_up_proj.weight"] = matrix(2 * ffn, hidden, 1.5)
            tensors[prefix + "mlp.down_proj.weight"] = matrix(hidden, ffn, 1.0)
        linear(prefix + "self_attn.o_proj", hidden, q, 1.0)
    norm("model.norm")
    if not spec["tied"]:
        linear("lm_head", spec["vocab"], hidden, 2.0)
    return {name: tensor.to(spec.get("dtype", torch.float32)) for name, tensor in tensors.items()}


def router(spec, layer, normal, bias):
    """(experts, hidden): some experts are within 2 % of each other at most tokens, in odd layers most logits are < 0.

    With `ties`, expert 11 repeats the row of expert 3, and 4 and 12 have a row of zeros: their logits are 0 exactly,
    which is the greatest one wherever all others are negative.
    """
    hidden = spec["hidden"]
    rows = normal(EXPERTS, hidden) * (2.0 / hidden**0.5)
    for twin, expert, distance in [(5, 2, 0.02), (9, 2, 0.02), (13, 7, 0.01), (14, 8, 0.03)]:
        rows[twin] = rows[expert] + normal(hidden) * (distance / hidden**0.5)
    # The norm's bias is the part of the input that all tokens share.
    if layer % 2:
        rows -= 4.0 * bias / bias.square().sum()
    if spec.get("ties"):
        rows[11] = rows[3]
        rows[[4, 12]] = 0.0
    return rows


def sparsemixer(scores, seen=None):
    """((tokens, 2) weights, ids) from (tokens, experts) logits; `seen` counts the branches and the closest calls.

    Liu et al., "GRIN: GRadient-INformed MoE" (arXiv 2409.12136), at inference. Ties go to the lowest index.
    """
    s = scores.numpy()
    weights, ids = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        left = s
        for place in "12":
            expert = left.argmax(-1)[:, None]
            top = np.take_along_axis(left, expert, -1)
            ratio = (top - s) / np.maximum(np.abs(s), top)
            kept = ~(ratio > 2 * JITTER) & np.isfinite(left)
            weights.append(1 / np.where(kept, np.exp(left - top), 0.0).sum(-1))
            ids.append(expert[:, 0])
            if seen is not None:
                count = kept.sum(-1)
                gaps = np.where(np.arange(s.shape[1]) == expert, np.inf, top - left)
                found = {"alone": count == 1, "two": count == 2, "more": count > 2, "negative": top < 0,
                         "zero": top == 0, "tie": (gaps == 0).any(-1)}
                for name, found in found.items():
                    seen[f"w{place} {name}"] = seen.get(f"w{place} {name}", 0) + int(found.sum())
                # An exact tie is one in every arithmetic; any other margin must be clear of rounding.
                close = [np.abs(ratio - 2 * JITTER).min(), gaps[gaps > 0].min()]
                seen["margin"] = min(seen.get("margin", np.inf), *map(float, close))
            left = np.where(np.arange(s.shape[1]) == expert, -np.inf, left)
    return torch.from_numpy(np.stack(weights, -1)), torch.from_numpy(np.stack(ids, -1))


def softmax_top2(scores):
    """llama.cpp's rule: softmax over all experts, the two largest, divided by their sum."""
    top = scores.softmax(-1).topk(2)
    return top.values / top.values.sum(-1, keepdim=True).clamp(min=6.103515625e-5), top.indices


def exact(spec, tensors, forced=None, llama_context=None, seen=None):
    """tokens -> (tokens, vocab) logits in float64 throughout.

    `model.double()` would not do: transformers computes norms, softmax and rotation angles in f32 whatever the model's
    type. `forced` is "short" or "long", else the longer factors serve sequences longer than the original context.
    With `llama_context` = n_ctx, as llama.cpp deviates: RMSNorm plus bias, renormalised softmax routing, the rotation
    scaled by the stored attn_factor, factors chosen by n_ctx, no sliding window.
    """
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    head_dim, rotary = spec["head_dim"], rotary_dims(spec)
    like_llama = llama_context is not None

    def norm(x, name):
        if is_moe(spec):
            if not like_llama:
                x = x - x.mean(-1, keepdim=True)
            x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + spec["eps"])
            return x * tensors[name + ".weight"] + tensors[name + ".bias"]
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + spec["eps"]) * tensors[name + ".weight"]

    def linear(x, name):
        y = x @ tensors[name + ".weight"].T
        return y + tensors[name + ".bias"] if name + ".bias" in tensors else y

    def rotation(count):
        frequency = spec["theta"] ** (-torch.arange(0, rotary, 2).double() / rotary)
        scale = 1.0
        if "original" in spec:
            short, long = factors(spec)
            longer = (llama_context or count) > spec["original"] if forced is None else forced == "long"
            # The factors are f32 in the file and in transformers.
            frequency = frequency / torch.tensor(long if longer else short, dtype=torch.float32).double()
            scale = MSCALE if is_moe(spec) and not like_llama else attention_factor(spec)
        angle = torch.arange(count)[:, None].double() * frequency
        return angle.cos() * scale, angle.sin() * scale

    def rotate(x, cos, sin):
        a, b, rest = x.split([rotary // 2, rotary // 2, head_dim - rotary], -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)

    def attention(x, prefix, angles):
        q_width, kv_width = spec["heads"] * head_dim, spec["kv_heads"] * head_dim
        if is_moe(spec):
            parts = [linear(x, prefix + f"{part}_proj") for part in "qkv"]
        else:
            parts = linear(x, prefix + "qkv_proj").split([q_width, kv_width, kv_width], -1)
        q, k, v = (part.split(head_dim, -1) for part in parts)
        hidden_from = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        if spec["window"] and not like_llama:
            hidden_from |= hidden_from.logical_not().tril(-spec["window"])
        heads = []
        for h, query in enumerate(q):
            group = h // (spec["heads"] // spec["kv_heads"])
            scores = rotate(query, *angles) @ rotate(k[group], *angles).T / head_dim**0.5
            heads.append(scores.masked_fill(hidden_from, -torch.inf).softmax(-1) @ v[group])
        return linear(torch.cat(heads, -1), prefix + "o_proj")

    def mixture(x, prefix):
        # A sum per row, so that equal rows give equal bits.
        scores = (x[:, None] * tensors[prefix + "gate.weight"]).sum(-1)
        amounts, ids = softmax_top2(scores) if like_llama else sparsemixer(scores, seen)
        out = torch.zeros_like(x)
        for expert in range(EXPERTS):
            rows, place = (ids == expert).nonzero(as_tuple=True)
            gate, down, up = (tensors[prefix + f"experts.{expert}.w{part}.weight"] for part in "123")
            y = x[rows] @ gate.T
            out[rows] += amounts[rows, place, None] * ((y * y.sigmoid() * (x[rows] @ up.T)) @ down.T)
        return out

    def feed_forward(x, prefix):
        if is_moe(spec):
            return mixture(x, prefix + "block_sparse_moe.")
        gate, up = linear(x, prefix + "mlp.gate_up_proj").chunk(2, -1)
        return linear(gate * gate.sigmoid() * up, prefix + "mlp.down_proj")

    def run(tokens):
        embed = tensors["model.embed_tokens.weight"]
        x, angles = embed[tokens], rotation(len(tokens))
        for n in range(spec["layers"]):
            prefix = f"model.layers.{n}."
            x = x + attention(norm(x, prefix + "input_layernorm"), prefix + "self_attn.", angles)
            x = x + feed_forward(norm(x, prefix + "post_attention_layernorm"), prefix)
        x = norm(x, "model.norm")
        return x @ embed.T if spec["tied"] else linear(x, "lm_head")

    return run


OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp", "w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps",
}


def gguf_tensors(tensors):
    """(name, array) as llama.cpp's converter names and stacks them."""
    for name, tensor in tensors.items():
        module, kind = name.rsplit(".", 1)
        if module in OUTSIDE:
            yield f"{OUTSIDE[module]}.{kind}", tensor
            continue
        _, _, block, part = module.split(".", 3)
        if ".experts." in part:
            experts, expert, part = part.rsplit(".", 2)
            if expert != "0":
                continue
            tensor = torch.stack([tensors[f"model.layers.{block}.{experts}.{e}.{part}.weight"] for e in range(EXPERTS)])
        yield f"blk.{block}.{INSIDE[part]}.{kind}", tensor


def write_gguf(path, name, spec, tensors):
    """With the keys of `Phi3MiniModel` and `PhiMoeModel` in llama.cpp's conversion/phi.py, less the vocabulary.

    Where a head is not hidden / heads wide, that converter writes a file that it cannot load; here the width is in
    key_length and value_length. It needs `original_max_position_embeddings`; without one the key is left out.
    """
    out = gguf.GGUFWriter(path, spec["arch"])
    out.add_type("model")
    out.add_name(f"golden {name}")
    out.add_context_length(spec["context"])
    if not spec.get("bare"):
        out.add_rope_scaling_orig_ctx_len(spec.get("original", spec["context"]))
    out.add_embedding_length(spec["hidden"])
    out.add_feed_forward_length(spec["ffn"])
    out.add_block_count(spec["layers"])
    out.add_head_count(spec["heads"])
    out.add_head_count_kv(spec["kv_heads"])
    out.add_layer_norm_rms_eps(spec["eps"])
    out.add_rope_dimension_count(rotary_dims(spec))
    out.add_rope_freq_base(spec["theta"])
    out.add_file_type(0)
    out.add_sliding_window(spec["window"] or 0)
    if spec["head_dim"] * spec["heads"] != spec["hidden"]:
        out.add_key_length(spec["head_dim"])
        out.add_value_length(spec["head_dim"])
    if is_moe(spec):
        out.add_expert_used_count(2)
        out.add_expert_count(EXPERTS)
    if "original" in spec:
        out.add_rope_scaling_attn_factors(attention_factor(spec))
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if "original" in spec:
        short, long = factors(spec)
        out.add_tensor("rope_factors_long.weight", np.array(long, np.float32))
        out.add_tensor("rope_factors_short.weight", np.array(short, np.float32))
    for short_name, tensor in gguf_tensors(tensors):
        out.add_tensor(short_name, tensor.float().contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
