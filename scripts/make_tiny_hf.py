#!/usr/bin/env python3
"""Makes a small random Hugging Face directory: Qwen2ForCausalLM, or MiMoForCausalLM with --mtp.

    python scripts/make_tiny_hf.py --out DIR [--mtp] [--tied] [--shard 200KB] [--hidden 64 --layers 2 ...]

Needs torch, transformers, tokenizers and safetensors. The trunk is saved by transformers itself, so names, shards
and config are what it writes; a MiMo directory also gets the tensors `model.mtp_layers.0.*` and the flat `rope_theta`
of older configs. The tokenizer is byte-level BPE with the qwen2 split and a handful of merges. logits.npy holds the
trunk's logits (f32) for the token ids in tokens.npy.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = "the cat sat on the mat and then the other cat sat on that mat too; there they sat, and that was that. "


def make_tokenizer(rows):
    """256 bytes, a few merges, three special tokens; the embedding keeps some rows more."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=rows - 8, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer


def mtp_tensors(args, generator):
    """The 16 tensors of a MiMo layer, scaled like the trunk's."""
    q, kv = args.heads * args.head_dim, args.kv_heads * args.head_dim
    shapes = {"input_proj.weight": (args.hidden, 2 * args.hidden), "mlp.down_proj.weight": (args.hidden, args.ffn),
              "mlp.gate_proj.weight": (args.ffn, args.hidden), "mlp.up_proj.weight": (args.ffn, args.hidden),
              "self_attn.o_proj.weight": (args.hidden, q)}
    for part, rows in [("q", q), ("k", kv), ("v", kv)]:
        shapes[f"self_attn.{part}_proj.weight"] = (rows, args.hidden)
        shapes[f"self_attn.{part}_proj.bias"] = (rows,)
    tensors = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    for norm in ["input", "post_attention", "token", "hidden", "final"]:
        tensors[f"{norm}_layernorm.weight"] = 1 + 0.1 * torch.randn(args.hidden, generator=generator)
    return {f"model.mtp_layers.0.{name}": tensor for name, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    for name, default in dict(hidden=64, ffn=96, layers=2, heads=4, kv_heads=2, head_dim=16, vocab=320, seed=1).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--theta", type=float, default=640000.0)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16")
    parser.add_argument("--shard", default="5GB", help="largest size of a file, as transformers writes it: 200KB")
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--mtp", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    config = Qwen2Config(
        hidden_size=args.hidden, intermediate_size=args.ffn, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, num_key_value_heads=args.kv_heads, head_dim=args.head_dim,
        vocab_size=args.vocab, max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=args.tied,
        rope_parameters={"rope_type": "default", "rope_theta": args.theta}, bos_token_id=None)
    model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(args.seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise + (1 if name.endswith("norm.weight") else 0)
    model = model.to(getattr(torch, args.dtype))
    model.save_pretrained(args.out, max_shard_size=args.shard)

    tokenizer = make_tokenizer(args.vocab)
    tokenizer.save(str(args.out / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False,
                "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"}
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))

    if args.mtp:
        extra = {name: t.to(getattr(torch, args.dtype)).contiguous() for name, t in mtp_tensors(args, generator).items()}
        index_path = args.out / "model.safetensors.index.json"
        if index_path.exists():
            save_file(extra, args.out / "model-mtp.safetensors", metadata={"format": "pt"})
            index = json.loads(index_path.read_text())
            index["weight_map"].update(dict.fromkeys(extra, "model-mtp.safetensors"))
            index_path.write_text(json.dumps(index, indent=2))
        else:
            path = args.out / "model.safetensors"
            save_file(load_file(path) | extra, path, metadata={"format": "pt"})
        saved = json.loads((args.out / "config.json").read_text())
        saved |= {"architectures": ["MiMoForCausalLM"], "model_type": "mimo", "num_nextn_predict_layers": 1,
                  "rope_theta": args.theta, "rope_scaling": None}
        saved.pop("rope_parameters", None)
        (args.out / "config.json").write_text(json.dumps(saved, indent=2))

    ids = torch.randint(tokenizer.get_vocab_size(), (1, 32), generator=generator)
    with torch.no_grad():
        logits = model.float().eval()(ids).logits[0]
    np.save(args.out / "tokens.npy", ids[0].numpy().astype(np.uint32))
    np.save(args.out / "logits.npy", logits.numpy().astype(np.float32))


main()
