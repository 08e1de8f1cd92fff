"""Train `tiny-phimoe`: a small Phi-MoE (16 experts, 2 a token, sparsemixer), on CPU.

    python models/train/train_phimoe.py --data DIR --out DIR

--data holds train.txt and valid.txt. --out receives curve.csv, golden.json with an .npy, and hf/, the
model as a Hugging Face directory. A run cannot be resumed: one seed, one decay, one result.
"""
import argparse
import ctypes
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from torch import nn
from train import Dropout, cross_entropy, evaluate, get_batch, sample

ADDED = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EPS, THETA = 4096, 256, 4, 4, 2, 64, 1e-5, 10000.0
EXPERTS, FFN, JITTER, CONTEXT = 16, 64, 0.01, 1024
LR, WARMUP, EMA, BALANCE, LONG_FROM = 3e-3, 100, 0.997, 0.02, 0.85


def train_tokenizer(path: Path) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as the `tokenizer.json` that transformers would make of it."""
    blob = io.BytesIO()
    # Lines begin without a space in the text, hence no dummy prefix while training.
    sentencepiece.SentencePieceTrainer.train(
        input=str(path), model_writer=blob, model_type="bpe", vocab_size=VOCAB - len(ADDED), byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        character_coverage=0.9999, max_sentence_length=20000, minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue())
    vocab = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    # SentencePiece joins any two pieces whose union is a piece, the best union first; ids are in that order.
    merges = [(text[:cut], text[cut:]) for text in vocab for cut in range(1, len(text))
              if not pieces.is_byte(vocab[text]) and text[:cut] in vocab and text[cut:] in vocab]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    strips = lambda text: text not in ("<unk>", "<s>", "<|endoftext|>")
    tok.add_special_tokens([AddedToken(text, special=True, normalized=False, rstrip=strips(text))
                            for text in ["<unk>", "<s>", "</s>", *ADDED]])
    assert [tok.token_to_id(text) for text in ADDED] == list(range(VOCAB - len(ADDED), VOCAB))
    return tok


def token_byte_lengths(tok: Tokenizer) -> np.ndarray:
    """Bytes of every token; a byte token is one, a space is written as three."""
    text = [tok.id_to_token(i) for i in range(VOCAB)]
    return np.array([1 if len(t) == 6 and t.startswith("<0x") else len(t.replace("▁", " ").encode()) for t in text])


def sparsemixer(scores):
    """The inference rule of modeling_phimoe.py for f32 scores (N, EXPERTS): weights and ids, both (N, 2)."""
    weights, ids, rest = [], [], scores
    for _ in range(2):
        top, best = rest.max(-1, keepdim=True)
        near = (top - scores) / scores.abs().clamp(min=top) <= 2 * JITTER
        kept = rest.masked_fill(~near, float("-inf")).scatter(-1, best, top)
        weights.append(kept.softmax(-1).gather(-1, best))
        ids.append(best)
        rest = rest.scatter(-1, best, float("-inf"))
    return torch.cat(weights, -1), torch.cat(ids, -1)


class Moe(nn.Module):
    """Two experts for every token; the weights of inference, with the gradient of a softmax over all experts."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(HIDDEN, EXPERTS, bias=False)
        self.gate_up = nn.Parameter(torch.empty(EXPERTS, 2 * FFN, HIDDEN))
        self.down = nn.Parameter(torch.empty(EXPERTS, HIDDEN, FFN))

    def forward(self, x):
        rows = x.flatten(0, 1)
        with torch.autocast("cpu", enabled=False):
            scores = self.router(rows.float())
        weights, ids = sparsemixer(scores.detach())
        soft = scores.softmax(-1)
        # sparsemixer's weights are constant almost everywhere: the router would learn nothing from them.
        chosen = soft.gather(-1, ids)
        weights = weights + chosen - chosen.detach()
        self.load = torch.bincount(ids.flatten(), minlength=EXPERTS)
        self.balance = EXPERTS * (self.load / ids.numel() * soft.mean(0)).sum()
        # One row of slots an expert; what stays free points at a row of zeros behind the tokens.
        order = ids.flatten().argsort(stable=True)
        start = self.load.cumsum(0) - self.load
        expert = ids.flatten()[order]
        slot = torch.arange(len(order)) - start[expert]
        size = int(self.load.max())
        token = torch.full((EXPERTS, size), len(rows)).index_put((expert, slot), order // 2)
        weight = torch.zeros(EXPERTS, size).index_put((expert, slot), weights.flatten()[order])
        inputs = torch.cat([rows, rows.new_zeros(1, HIDDEN)])
        # Halved here, because autocast would do so after the copy and again in the backward pass.
        inputs = (inputs.bfloat16() if self.training else inputs).index_select(0, token.flatten())
        inputs = inputs.view(EXPERTS, size, HIDDEN)
        gate, up = torch.bmm(inputs, self.gate_up.transpose(1, 2)).chunk(2, -1)
        out = torch.bmm(F.silu(gate) * up, self.down.transpose(1, 2)) * weight[..., None]
        total = torch.zeros(len(rows) + 1, HIDDEN).index_add(0, token.flatten(), out.flatten(0, 1).float())
        return total[:-1].view_as(x)


class Attention(nn.Module):
    """Grouped-query attention with NEOX rotations and biases everywhere."""

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN)

    def forward(self, x, cos, sin):
        def heads(linear, rotated=True):
            y = linear(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            half = torch.cat([-y[..., HEAD_DIM // 2:], y[..., :HEAD_DIM // 2]], -1)
            return y * cos.to(y.dtype) + half * sin.to(y.dtype) if rotated else y
        q, k, v = heads(self.q_proj), heads(self.k_proj), heads(self.v_proj, rotated=False)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = nn.LayerNorm(HIDDEN, EPS), nn.LayerNorm(HIDDEN, EPS)
        self.self_attn, self.down_proj = Attention(), Moe()  # the name by which Dropout finds it

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.down_proj(self.post_attention_layernorm(x))


class TinyPhimoe(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.layers, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(HIDDEN, EPS)
        inv_freq = 1.0 / THETA ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angle = (torch.arange(CONTEXT)[:, None] * inv_freq).repeat(1, 2)
        self.cos, self.sin = angle.cos(), angle.sin()
        self.__dict__["lm"] = self  # `evaluate` and `sample` expect a head beside the trunk
        for name, p in self.named_parameters():
            if p.ndim > 1:
                into_residual = "o_proj" in name or name.endswith("down")
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def trunk(self, ids):
        """Final-norm hidden states of ids (B, T)."""
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:ids.shape[1]], self.sin[:ids.shape[1]])
        return self.norm(x), None

    def hf_state(self):
        """Copies of the weights under the names of a Phi-MoE checkpoint."""
        state = {}
        for name, p in self.state_dict().items():
            name = name if name.startswith("lm_head") else f"model.{name}"
            layer, _, part = name.partition(".down_proj.")
            if not part:
                state[name] = p.clone()
            elif part == "router.weight":
                state[f"{layer}.block_sparse_moe.gate.weight"] = p.clone()
            for e in range(EXPERTS):
                at = f"{layer}.block_sparse_moe.experts.{e}"
                if part == "gate_up":
                    state[f"{at}.w1.weight"], state[f"{at}.w3.weight"] = p[e, :FFN].clone(), p[e, FFN:].clone()
                elif part == "down":
                    state[f"{at}.w2.weight"] = p[e].clone()
        return state


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices and stacks of matrices, scaled to the step size of AdamW."""

    def __init__(self, params):
        super().__init__(params, {"lr": LR})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                momentum = state.setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                u = p.grad.lerp(momentum, 0.95).bfloat16()
                tall = u.shape[-2] > u.shape[-1]
                u = u.mT if tall else u
                u = u / (u.flatten(-2).norm(dim=-1)[..., None, None] + 1e-7)
                for _ in range(5):
                    gram = u @ u.mT
                    u = 3.4445 * u + (-4.7750 * gram + 2.0315 * gram @ gram) @ u
                u = u.mT if tall else u
                p.mul_(1 - 0.1 * group["lr"])
                p.add_(u.float(), alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape[-2:])))


def optimizers(model):
    """Muon for attention and experts; AdamW for embedding, head and router, and for vectors."""
    groups = {"matrix": [], "table": [], "vector": []}
    for name, p in model.named_parameters():
        table = any(part in name for part in ("embed_tokens", "lm_head", "router"))
        groups["vector" if p.ndim == 1 else "table" if table else "matrix"].append(p)
    adam = [{"params": groups["table"], "weight_decay": 0.1}, {"params": groups["vector"], "weight_decay": 0.0}]
    return [Muon(groups["matrix"]), torch.optim.AdamW(adam, lr=LR, betas=(0.9, 0.95))]


@torch.no_grad()
def export(model, tok, valid_ids, out: Path):
    """Write OUT/hf (a Hugging Face directory) and the golden values next to it."""
    hf = out / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    save_file(model.hf_state(), hf / "model.safetensors", metadata={"format": "pt"})
    end, unk = tok.token_to_id("<|endoftext|>"), tok.token_to_id("<unk>")
    config = {"architectures": ["PhiMoEForCausalLM"], "model_type": "phimoe", "vocab_size": VOCAB,
              "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
              "hidden_act": "silu", "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA,
              "rope_scaling": None, "sliding_window": 2047, "attention_bias": True, "lm_head_bias": True,
              "attention_dropout": 0.0, "hidden_dropout": 0.0, "num_local_experts": EXPERTS,
              "num_experts_per_tok": 2, "router_jitter_noise": JITTER, "input_jitter_noise": 0.0,
              "router_aux_loss_coef": 0.0, "output_router_logits": False, "tie_word_embeddings": False,
              "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": end, "pad_token_id": end,
              "torch_dtype": "float32", "use_cache": True}
    added = {str(tok.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "special": True,
                                       "rstrip": s not in ("<unk>", "<s>", "<|endoftext|>"), "single_word": False}
             for s in ["<unk>", "<s>", "</s>", *ADDED]}
    tokenizer = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": False,
                 "add_prefix_space": True, "legacy": False, "bos_token": "<s>", "eos_token": ADDED[0],
                 "pad_token": ADDED[0], "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
                 "model_max_length": CONTEXT, "added_tokens_decoder": added}
    tok.save(str(hf / "tokenizer.json"))
    for name, value in (("config", config), ("tokenizer_config", tokenizer)):
        (hf / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
    model.eval()
    ids = valid_ids[1000:1024][None]
    logits = model.lm_head(model.trunk(ids)[0])[0]
    np.save(out / "golden_logits.npy", logits.numpy())
    (out / "golden.json").write_text(json.dumps({"tokens": ids[0].tolist(), "text": tok.decode(ids[0].tolist()),
                                                 "argmax": logits.argmax(-1).tolist()}, indent=1) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--out"):
        p.add_argument(name, type=Path, required=True)
    for name, value in (("--steps", 4500), ("--seed", 20), ("--threads", 2)):
        p.add_argument(name, type=int, default=value)
    args = p.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30), libc.mallopt(-1, (1 << 31) - 1)  # mmap and trim thresholds: keep big buffers
    torch.set_num_threads(args.threads), torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_text, valid_text = ((args.data / f).read_bytes().decode() for f in ("train.txt", "valid.txt"))
    tok = train_tokenizer(args.data / "train.txt")
    train_ids, valid_ids = (torch.tensor(tok.encode(text).ids) for text in (train_text, valid_text))
    byte_len = token_byte_lengths(tok)
    # The space that encoding puts before a text is no byte of it.
    assert int(byte_len[valid_ids.numpy()].sum()) == len(valid_text.encode()) + 1
    model = TinyPhimoe()
    print(f"{sum(q.numel() for q in model.parameters())} parameters, "
          f"train tokens {len(train_ids)}, valid tokens {len(valid_ids)}", flush=True)
    drop, opts = Dropout(model), optimizers(model)
    data = [q.data for q in model.parameters()]
    ema, curve, running, counts, clock = [q.clone() for q in data], [], [], {512: 0, 1024: 0}, time.time()
    for step in range(args.steps):
        scale = min((step + 1) / WARMUP, (args.steps - step) / (args.steps - WARMUP))
        for group in [g for o in opts for g in o.param_groups]:
            group["lr"] = LR * scale
        length = 1024 if step >= LONG_FROM * args.steps else 512
        batch = get_batch(train_ids, args.seed, counts[length], 4096 // length, length)
        counts[length] += 1
        model.train()
        drop.new_step()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model.lm_head, model.trunk(batch[:, :-1])[0], batch[:, 1:])
        balance = sum(layer.down_proj.balance for layer in model.layers) / LAYERS
        (loss + BALANCE * balance).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        [o.step() for o in opts]
        [o.zero_grad() for o in opts]
        torch._foreach_lerp_(ema, data, 1 - min(EMA, (step + 1) / (step + 11)))
        running.append(float(loss.detach()))
        if step % 25 == 24:
            share = torch.stack([layer.down_proj.load for layer in model.layers]) / (2 * 4096)
            print(f"step {step + 1}/{args.steps} loss {np.mean(running[-25:]):.4f} balance {float(balance.detach()):.3f} "
                  f"share {float(share.min()):.3f}..{float(share.max()):.3f} {time.time() - clock:.0f} s", flush=True)
        if step % 250 == 249 or step + 1 == args.steps:
            bits = evaluate(model, valid_ids, byte_len, every=16, mtp=False)["bits_per_byte"]
            curve.append([step + 1, (step + 1) * 4096, round(float(np.mean(running[-250:])), 4), round(bits, 4),
                          round(time.time() - clock)])
            print(f"  valid (1/16 of the windows) {bits:.4f} bits per byte", flush=True)
    raw = evaluate(model, valid_ids, byte_len, every=8, mtp=False)["bits_per_byte"]
    kept = [q.clone() for q in data]
    [q.copy_(e) for q, e in zip(data, ema)]
    average = evaluate(model, valid_ids, byte_len, every=8, mtp=False)["bits_per_byte"]
    print(f"last weights {raw:.4f}, average {average:.4f} (1/8 of the windows)")
    if raw < average:
        [q.copy_(k) for q, k in zip(data, kept)]
    lines = ["step,tokens,train_loss,valid_bits_per_byte,seconds"] + [",".join(map(str, row)) for row in curve]
    (args.out / "curve.csv").write_text("\n".join(lines) + "\n")
    export(model, tok, valid_ids, args.out)
    result = evaluate(model, valid_ids, byte_len, mtp=False)
    loads = torch.zeros(LAYERS, EXPERTS)
    with torch.no_grad():
        for start in range(0, len(valid_ids) - 512, 512):
            model.trunk(valid_ids[start:start + 512][None])
            loads += torch.stack([layer.down_proj.load for layer in model.layers])
    share = loads / loads.sum(1, keepdim=True)
    print(json.dumps({"bits_per_byte": result["bits_per_byte"], "nll": result["nll"], "tokens": result["tokens"],
                      "expert_share": [[round(float(v), 4) for v in row] for row in share]}))
    print(sample(model, tok, "Once upon a time there was a king who had"))


if __name__ == "__main__":
    main()
