#!/usr/bin/env python3
"""Makes a small random Hugging Face directory: PhimoeForCausalLM with a trained SentencePiece vocabulary.

    python scripts/make_tiny_phimoe.py --text FILE --out DIR [--vocab 1000] [--order ids] [--longrope]
    python scripts/make_tiny_phimoe.py --gguf ggml-vocab-phi-3.gguf --out DIR      the vocabulary of a GGUF file
    python scripts/make_tiny_phimoe.py --golden tests/tests/golden/sentence-piece.json --text FILE --vocab 700

Needs torch, transformers, tokenizers, safetensors and sentencepiece. The model is saved by transformers itself, so
names, shards and config are what version 5 writes. SentencePiece trains the vocabulary; merges are listed by
transformers' own `generate_merges`, either by score, as versions up to 4 did, or by id, as version 5 does. logits.npy
holds the logits (f32) of the token ids in tokens.npy.

--golden writes no model, but one JSON file with a tokenizer.json and some hundred texts with the ids that Hugging Face's
tokenizers gives for them.
"""

import argparse
import io
import json
import pathlib

import numpy as np
import sentencepiece
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PhimoeConfig, PhimoeForCausalLM
from transformers.tokenization_utils_base import generate_merges

import tokenizer_gguf
from tokenizer_texts import Texts

ADDED = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"]
NOT_STRIPPING = ["<unk>", "<s>", "<|endoftext|>"]
NORMAL, BYTE = 1, 6


def trained(path, size):
    """Pieces and scores of a vocabulary trained on a file."""
    blob = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        input=str(path), model_writer=blob, model_type="bpe", vocab_size=size, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.999,
        max_sentence_length=20000, minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue())
    scores = {pieces.id_to_piece(n): pieces.get_score(n) for n in range(len(pieces))}
    # As in Llama's vocabulary: runs of spaces with one score, below all others.
    return scores | {"▁" * n: -1e9 for n in range(2, 9)}, ADDED


def stored(path):
    """Pieces and scores of a GGUF file; what is neither text nor a byte counts as added, but for the first three."""
    pairs = tokenizer_gguf.read(path)
    tokens, types, scores = (pairs["tokenizer.ggml." + key] for key in ("tokens", "token_type", "scores"))
    pieces = {token: score for n, (token, kind, score) in enumerate(zip(tokens, types, scores))
              if n < 3 or kind in (NORMAL, BYTE)}
    return pieces, [token for token in tokens if token not in pieces and not token.startswith("[PAD")]


def make_tokenizer(scores, added, order):
    """As transformers makes it of a SentencePiece model of the Llama kind."""
    vocab = {piece: n for n, piece in enumerate(scores)}
    merges = generate_merges(vocab, scores if order == "scores" else None)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False, rstrip=text not in NOT_STRIPPING)
                                  for text in ["<unk>", "<s>", "</s>", *added]])
    return tokenizer


def write_golden(path, tokenizer, seed):
    """Plain texts, and such with special tokens and white space around them."""
    texts = Texts(seed)
    names = ["<unk>", "<s>", "</s>", *ADDED]
    space = ["", "", " ", "  ", "\n", " \n\t "]
    piece = lambda: texts.random.choice(space) + texts.piece()[:20] + texts.random.choice(space)
    special = lambda: texts.random.choice(names)
    cases = ["", " ", "   ", "\n", "Hello, world!", " Hello", "▁▁ x", " " * 40, " a" + " " * 21 + "b", "=" * 23]
    cases += [texts.text()[:80] for _ in range(300)]
    cases += [piece() + special() + piece() + special() + piece() for _ in range(100)]
    lines = [json.dumps([case, tokenizer.encode(case).ids], ensure_ascii=False) for case in cases]
    text = f'{{"tokenizer": {tokenizer.to_str()},\n"cases": [\n' + ",\n".join(lines) + "]}\n"
    path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path)
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--order", choices=["scores", "ids"], default="scores")
    parser.add_argument("--longrope", action="store_true")
    parser.add_argument("--shard", default="5GB", help="largest size of a file, as transformers writes it: 200KB")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    scores, added = stored(args.gguf) if args.gguf else trained(args.text, args.vocab)
    tokenizer = make_tokenizer(scores, added, args.order)
    if args.golden:
        return write_golden(args.golden, tokenizer, args.seed)
    # Some rows more than tokens, as Phi-MoE has.
    rows = (tokenizer.get_vocab_size() + 32) // 32 * 32
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if args.longrope:
        rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
                "short_factor": [1.0 + 0.01 * n for n in range(8)], "long_factor": [1.0 + n for n in range(8)],
                "short_mscale": 1.243163121016122, "long_mscale": 1.243163121016122}
    torch.manual_seed(args.seed)
    eos = tokenizer.token_to_id("<|endoftext|>")
    config = PhimoeConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=16, num_experts_per_tok=2, attention_bias=True,
        lm_head_bias=True, max_position_embeddings=256, sliding_window=None if args.longrope else 47,
        rope_parameters=rope, bos_token_id=1, eos_token_id=eos, pad_token_id=eos)
    model = PhimoeForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "router" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape)
        else:
            parameter.data *= 5
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out, max_shard_size=args.shard)
    tokenizer.save(str(args.out / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
                "add_bos_token": False}
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    ids = torch.randint(tokenizer.get_vocab_size(), (1, 60))
    with torch.no_grad():
        logits = model(ids).logits[0]
    np.save(args.out / "tokens.npy", ids[0].numpy().astype(np.uint32))
    np.save(args.out / "logits.npy", logits.numpy().astype(np.float32))


if __name__ == "__main__":
    main()
