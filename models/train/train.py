"""Train `tiny-mimo`: a small Qwen2 trunk plus one MiMo-style MTP layer, on CPU.

    python models/train/train.py --data DIR --out DIR

--data holds train.txt and valid.txt. --out receives checkpoint.pt (from which an interrupted
run resumes), curve.csv, golden.json with two .npy, and hf/, the model as a Hugging Face directory.
"""
import argparse
import ctypes
import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AttentionInterface, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB, HIDDEN, LAYERS, EPS, THETA, CONTEXT = 4096, 256, 8, 1e-5, 10000, 1024
SHAPE = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": 768,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": EPS,
         "max_position_embeddings": CONTEXT, "hidden_act": "silu", "attention_dropout": 0.0,
         "tie_word_embeddings": False, "use_sliding_window": False, "initializer_range": 0.02}
MTP_PREFIX = "model.mtp_layers.0."
LR, WARMUP, DROPOUT, EMA, MTP_WEIGHT = 3e-3, 100, 0.1, 0.995, 0.3
MTP_FROM, LONG_FROM = 0.5, 0.85  # shares of the steps before the MTP loss and 1024-token rows start
SPLIT = (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE with the qwen2 split; the special tokens take the last ids."""
    tok, split = Tokenizer(models.BPE()), pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.Sequence([split, to_bytes]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([text[i:i + 100_000] for i in range(0, len(text), 100_000)], trainer)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    assert [tok.token_to_id(s) for s in SPECIAL] == list(range(VOCAB - len(SPECIAL), VOCAB))
    return tok


def token_byte_lengths(tok: Tokenizer) -> np.ndarray:
    """Bytes of every token: in byte-level BPE one character of a token stands for one byte."""
    return np.array([len(tok.id_to_token(i)) for i in range(VOCAB)])


def get_batch(ids, seed, index, batch, length):
    """Rows of length+1 tokens; an epoch cuts the stream at a random offset and shuffles the pieces."""
    pieces, rows = (len(ids) - 1) // length - 1, []
    for row in range(index * batch, (index + 1) * batch):
        gen = torch.Generator().manual_seed(seed * 1_000_003 + row // pieces * 7919 + length)
        offset = int(torch.randint(length, (1,), generator=gen))
        start = offset + int(torch.randperm(pieces, generator=gen)[row % pieces]) * length
        rows.append(ids[start:start + length + 1])
    return torch.stack(rows)


def attention(module, q, k, v, attention_mask=None, scaling=1.0, **_):
    """Causal attention; while training, plain matmuls by blocks (faster than SDPA in bf16 here)."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    if not module.training:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling).transpose(1, 2), None
    parts = []
    for i in range(0, q.shape[2], 256):
        part = q[:, :, i:i + 256] * scaling
        end = i + part.shape[2]
        mask = torch.full((part.shape[2], end), float("-inf"), dtype=q.dtype).triu(i + 1)
        score = torch.matmul(part, k[:, :, :end].transpose(-1, -2)) + mask
        parts.append(torch.matmul(score.softmax(-1).to(v.dtype), v[:, :, :end]))
    return torch.cat(parts, 2).transpose(1, 2), None


AttentionInterface.register("blocked", attention)


class Dropout:
    """Dropout on what enters the residual stream, while training. One pool of random keeps per
    step serves all layers, at random offsets: drawing fresh ones costs 10 % of a step."""

    def __init__(self, model):
        for name, module in model.named_modules():
            if name.endswith(("o_proj", "down_proj", "embed_tokens")):
                module.register_forward_hook(self.hook)

    def new_step(self):
        self.pool = (torch.rand(3 << 20) >= DROPOUT).to(torch.bfloat16) / (1 - DROPOUT)

    def hook(self, module, _, out):
        if module.training:
            at = int(torch.randint(len(self.pool) - out.numel(), (1,)))
            return out * self.pool[at:at + out.numel()].view_as(out)


def cross_entropy(head, hidden, target):
    """Mean cross-entropy, the logits made 512 rows at a time to stay in cache."""
    hidden, target = hidden.flatten(0, 1), target.flatten()
    pairs = zip(hidden.split(512), target.split(512))
    return sum(F.cross_entropy(head(h).float(), t, reduction="sum") for h, t in pairs) / len(target)


class MtpLayer(Qwen2DecoderLayer):
    """MiMo MTP layer: row q reads the trunk residual at q-1 and token q, predicts token q+1."""

    def __init__(self, config):
        super().__init__(config, layer_idx=0)
        self.input_proj = nn.Linear(2 * HIDDEN, HIDDEN, bias=False)
        for name in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
            setattr(self, name, Qwen2RMSNorm(HIDDEN, EPS))


class TinyMimo(nn.Module):
    """The trunk as transformers has it, plus the MTP layer sharing embedding and head."""

    def __init__(self):
        super().__init__()
        rope = {"rope_type": "default", "rope_theta": THETA}
        config = Qwen2Config(**SHAPE, rope_parameters=rope, use_cache=False, attn_implementation="blocked")
        self.lm, self.mtp = Qwen2ForCausalLM(config), MtpLayer(config)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                into_residual = "o_proj" in name or "down_proj" in name
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        # The residual stream before the final norm, which the MTP layer reads.
        self.lm.model.norm.register_forward_pre_hook(lambda _, args: setattr(self, "residual", args[0]))

    def trunk(self, ids):
        """Final-norm hidden states and the residual before that norm, for ids (B, T)."""
        return self.lm.model(input_ids=ids, use_cache=False).last_hidden_state, self.residual

    def mtp_rows(self, ids, residual):
        """final_layernorm output of the MTP rows q = 1..T-1."""
        m = self.mtp
        token = m.token_layernorm(self.lm.model.embed_tokens(ids[:, 1:]))
        u = m.input_proj(torch.cat([m.hidden_layernorm(residual[:, :-1]), token], dim=-1))
        position = torch.arange(1, ids.shape[1])[None]
        return m.final_layernorm(m(u, position_embeddings=self.lm.model.rotary_emb(u, position)))

    def loss(self, batch, with_mtp: bool):
        """Trunk and MTP cross-entropy of rows of T+1 tokens."""
        ids, head = batch[:, :-1], self.lm.lm_head
        hidden, residual = self.trunk(ids)
        trunk = cross_entropy(head, hidden, batch[:, 1:])
        if not with_mtp:
            return trunk, torch.zeros(())
        return trunk, cross_entropy(head, self.mtp_rows(ids, residual), batch[:, 2:])

    def hf_state(self):
        """Weights under the names of a MiMo checkpoint (the tensors themselves, not copies)."""
        return {**self.lm.state_dict(), **{MTP_PREFIX + k: v for k, v in self.mtp.state_dict().items()}}


@torch.no_grad()
def evaluate(model, ids, byte_len, every=1, mtp=True, window=512, stride=256):
    """Bits per byte in f32: windows at multiples of `stride`, each after the first scoring its last
    `stride` positions, so every token but the first counts once. `every` > 1 is a quick estimate from
    each n-th window. Also how often the MTP top-1 is the trunk's top-1 on the given text (acceptance)."""
    model.eval()
    starts = range(0, max(1, len(ids) - stride), stride)
    total = dict.fromkeys(("tokens", "bytes", "nll", "mtp_rows", "mtp_nll", "mtp_agree"), 0)
    for start in starts[::every]:
        row = ids[start:start + window][None]
        first = 1 if start == 0 else window - stride  # first scored position of the window
        target, (hidden, residual) = row[0, first:], model.trunk(row)
        logits = model.lm.lm_head(hidden[0, first - 1:-1])
        total["tokens"] += len(target)
        total["bytes"] += int(byte_len[target.numpy()].sum())
        total["nll"] += float(F.cross_entropy(logits, target, reduction="sum").double())
        if mtp and len(target) > 1:
            # Index i of mtp_rows is row q = i+1; it predicts the target at position q+1.
            guess = model.lm.lm_head(model.mtp_rows(row, residual)[0, max(first - 2, 0):-1])
            n_rows = len(guess)
            total["mtp_rows"] += n_rows
            total["mtp_nll"] += float(F.cross_entropy(guess, target[-n_rows:], reduction="sum").double())
            total["mtp_agree"] += int((guess.argmax(-1) == logits[-n_rows:].argmax(-1)).sum())
    if every == 1:
        assert total["tokens"] == len(ids) - 1
        total["bytes"] += int(byte_len[int(ids[0])])  # the unscored first token: all bytes of the file
    total["bits_per_byte"] = total["nll"] / math.log(2) / total["bytes"]
    total["mtp_acceptance"] = total["mtp_agree"] / max(1, total["mtp_rows"])
    return total


@torch.no_grad()
def sample(model, tok, prompt, count=80, temperature=0.7, seed=1):
    """Continue `prompt` by `count` tokens, plain temperature sampling."""
    gen, ids = torch.Generator().manual_seed(seed), torch.tensor([tok.encode(prompt).ids])
    for _ in range(count):
        logits = model.lm.lm_head(model.trunk(ids)[0][:, -1])
        ids = torch.cat([ids, torch.multinomial((logits / temperature).softmax(-1), 1, generator=gen)], dim=1)
    return tok.decode(ids[0].tolist())


@torch.no_grad()
def export(model, tok, valid_ids, out: Path):
    """Write OUT/hf (a Hugging Face directory) and the golden values next to it."""
    hf = out / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    state = {k: v.clone() for k, v in model.hf_state().items()}
    save_file(state, hf / "model.safetensors", metadata={"format": "pt"})
    eos = tok.token_to_id("<|endoftext|>")
    config = {"architectures": ["MiMoForCausalLM"], "model_type": "mimo", **SHAPE, "attention_bias": True,
              "bos_token_id": eos, "eos_token_id": eos, "num_nextn_predict_layers": 1, "rope_scaling": None,
              "rope_theta": THETA, "sliding_window": None, "max_window_layers": LAYERS, "use_mrope": False,
              "torch_dtype": "float32", "use_cache": True}
    added = {str(tok.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                       "single_word": False, "special": True} for s in SPECIAL}
    tokenizer = {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "add_prefix_space": False,
                 "bos_token": None, "eos_token": SPECIAL[0], "pad_token": SPECIAL[0], "unk_token": None,
                 "additional_special_tokens": SPECIAL[1:], "clean_up_tokenization_spaces": False,
                 "model_max_length": CONTEXT, "added_tokens_decoder": added}
    generation = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos, "do_sample": True,
                  "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 256}
    tok.save(str(hf / "tokenizer.json"))
    for name, value in (("config", config), ("tokenizer_config", tokenizer), ("generation_config", generation)):
        (hf / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
    model.eval()
    ids = valid_ids[1000:1024][None]
    hidden, residual = model.trunk(ids)
    trunk, mtp = model.lm.lm_head(hidden)[0], model.lm.lm_head(model.mtp_rows(ids, residual))[0]
    golden = {"tokens": ids[0].tolist(), "text": tok.decode(ids[0].tolist()), "mtp_rows": "q = 1..23"}
    for name, logits in (("trunk", trunk), ("mtp", mtp)):
        np.save(out / f"golden_{name}_logits.npy", logits.numpy())
        golden.update({f"{name}_logits": f"golden_{name}_logits.npy", f"{name}_shape": list(logits.shape),
                       f"{name}_argmax": logits.argmax(-1).tolist()})
    (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


def optimizers(model):
    """Muon for the 2-D matrices inside the layers, AdamW for everything else."""
    groups = {"matrix": [], "table": [], "vector": []}
    for name, p in model.named_parameters():
        table = "embed_tokens" in name or "lm_head" in name
        groups["vector" if p.ndim == 1 else "table" if table else "matrix"].append(p)
    adam = [{"params": groups["table"], "weight_decay": 0.1}, {"params": groups["vector"], "weight_decay": 0.0}]
    return [torch.optim.Muon(groups["matrix"], lr=LR, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(adam, lr=LR, betas=(0.9, 0.95))]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--out"):
        p.add_argument(name, type=Path, required=True)
    p.add_argument("--minutes", type=float, help="fit --steps, as it goes, to a busy machine (not reproducible)")
    for name, value in (("--steps", 1450), ("--seed", 20), ("--threads", 2)):
        p.add_argument(name, type=int, default=value)
    p.add_argument("--eval-only", action="store_true", help="only measure OUT/hf")
    args = p.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30), libc.mallopt(-1, (1 << 31) - 1)  # mmap and trim thresholds: keep big buffers
    torch.set_num_threads(args.threads), torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_text, valid_text = ((args.data / f).read_bytes().decode() for f in ("train.txt", "valid.txt"))
    tok_file = args.out / ("hf/tokenizer.json" if args.eval_only else "tokenizer.json")
    if not tok_file.exists():
        train_tokenizer(train_text).save(str(tok_file))
    tok = Tokenizer.from_file(str(tok_file))
    byte_len = token_byte_lengths(tok)
    valid_ids = torch.tensor(tok.encode(valid_text).ids)
    assert int(byte_len[valid_ids.numpy()].sum()) == len(valid_text.encode())
    model = TinyMimo()
    if args.eval_only:
        loaded, own = load_file(args.out / "hf" / "model.safetensors"), model.hf_state()
        assert loaded.keys() == own.keys()
        [own[k].copy_(v) for k, v in loaded.items()]
        print(json.dumps(evaluate(model, valid_ids, byte_len)))
        return
    train_ids = torch.tensor(tok.encode(train_text).ids)
    print(f"train tokens {len(train_ids)}, valid tokens {len(valid_ids)}", flush=True)
    drop, opts = Dropout(model), optimizers(model)
    data = [q.data for q in model.parameters()]
    ema = [q.clone() for q in data]
    curve, step, seconds, frac, seen, counts = [], 0, 0.0, 1.0, 0, {512: 0, 1024: 0}
    if (ckpt := args.out / "checkpoint.pt").exists():
        s = torch.load(ckpt, weights_only=False)
        model.load_state_dict(s["model"])
        [o.load_state_dict(v) for o, v in zip(opts, s["opts"])]
        ema, (curve, step, seconds, frac, seen, counts) = s["ema"], s["progress"]
        print(f"resumed at step {step}", flush=True)
    clock = saved = began = time.time()
    stop, done, running, first, pace = [], seconds, [], step, 0.0
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))  # save and leave after this step
    while step < args.steps:
        if args.minutes and step > first:
            pace = 0.95 * pace + 0.05 * (time.time() - began) if pace else time.time() - began
            args.steps = step + max(1, int((clock + 60 * args.minutes - time.time()) / pace))
        began = time.time()
        # Linear decay to 0, written so that a resumed run may end at another --steps.
        if step >= WARMUP:
            frac -= frac / (args.steps - step + 1)
        scale = frac * min(1.0, (step + 1) / WARMUP)
        for group in [g for o in opts for g in o.param_groups]:
            group["lr"] = LR * scale
        length = 1024 if step >= LONG_FROM * args.steps or counts[1024] else 512
        batch = get_batch(train_ids, args.seed, counts[length], 4096 // length, length)
        counts[length] += 1
        model.train()
        torch.manual_seed(args.seed * 1_000_000 + step)  # dropout does not depend on resumes
        drop.new_step()
        with torch.autocast("cpu", torch.bfloat16):
            trunk, mtp = model.loss(batch, step >= MTP_FROM * args.steps)
        (trunk + MTP_WEIGHT * mtp).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        [o.step() for o in opts]
        [o.zero_grad() for o in opts]
        step, seen = step + 1, seen + batch.numel() - len(batch)
        torch._foreach_lerp_(ema, data, 1 - min(EMA, step / (step + 10)))
        running.append(float(trunk.detach()))
        seconds = done + time.time() - clock
        if step % 25 == 0:
            print(f"step {step}/{args.steps} tokens {seen} trunk {np.mean(running[-25:]):.4f} "
                  f"mtp {float(mtp.detach()):.3f} norm {float(norm):.2f} lr x{scale:.3f} {seconds:.0f} s", flush=True)
        if step % 250 == 0 or step == args.steps:
            bits = evaluate(model, valid_ids, byte_len, every=16, mtp=False)["bits_per_byte"]
            curve.append([step, seen, round(float(np.mean(running[-250:])), 4), round(bits, 4), round(seconds)])
            print(f"  valid (1/16 of the windows) {bits:.4f} bits per byte", flush=True)
        if time.time() - saved > 300 or step == args.steps or stop:
            saved = time.time()
            torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "ema": ema,
                        "progress": (curve, step, seconds, frac, seen, counts)}, args.out / "checkpoint.tmp")
            (args.out / "checkpoint.tmp").replace(ckpt)
        if stop:
            return
    lines = ["step,tokens,train_loss,valid_bits_per_byte_quick,seconds"] + [",".join(map(str, c)) for c in curve]
    (args.out / "curve.csv").write_text("\n".join(lines) + "\n")
    plain = [q.clone() for q in data]
    last = evaluate(model, valid_ids, byte_len, every=8, mtp=False)["bits_per_byte"]
    torch._foreach_copy_(data, ema)
    mean = evaluate(model, valid_ids, byte_len, every=8, mtp=False)["bits_per_byte"]
    if last <= mean:
        torch._foreach_copy_(data, plain)
    print(f"1/8 of the windows: last weights {last:.4f}, EMA {mean:.4f}; exporting the better", flush=True)
    export(model, tok, valid_ids, args.out)
    print("sample:", sample(model, tok, "Once upon a time there was a king who had"), flush=True)
    print("exported model", json.dumps(evaluate(model, valid_ids, byte_len)), flush=True)


if __name__ == "__main__":
    main()
