"""Hugging Face directories of small Phi models: config.json, tokenizer and weights as Microsoft lays them out."""

import json
import pathlib

import tokenizers
import torch
from huggingface_hub import save_torch_state_dict
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from phi_reference import EXPERTS, JITTER, MSCALE, factors, is_moe

WORD_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = (WORD_END + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + WORD_END + r"?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + WORD_END + r"?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Special tokens in order, bos, eos, pad.
SPECIAL = {
    "cl100k": (["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|im_start|>", "<|im_end|>",
                "<|im_sep|>", "<|endofprompt|>", "<|dummy_85|>"], "<|endoftext|>", "<|im_end|>", "<|dummy_85|>"),
    "o200k": (["<|endoftext|>", "<|endofprompt|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>", "<|tool|>",
               "<|/tool|>"], "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "spm": (["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>",
             "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"],
            "<s>", "<|endoftext|>", "<|endoftext|>"),
}
TEMPLATES = {
    "cl100k": "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    "o200k": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
             "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "spm": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
           "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
}
MERGES = 500
SPACE = "\u2581"


def text():
    """Something to learn merges from."""
    return [line + "\n" for line in pathlib.Path(__file__).with_name("phi_reference.py").read_text().splitlines()]


def byte_level(kind):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex({"cl100k": CL100K, "o200k": O200K}[kind]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text(), trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL[kind][0]])
    return tokenizer


def sentence_pieces():
    """In the order of SentencePiece: unknown, control, bytes, merges by rank, characters; then the added ones."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    learner.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    learner.train_from_iterator(text(), trainers.BpeTrainer(vocab_size=100 + MERGES, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    # SentencePiece never sees the end of a line.
    unions = dict.fromkeys(union for union in map("".join, learned["merges"]) if "\n" not in union)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *unions,
             *(name for name in learned["vocab"] if len(name) == 1 and name != "\n")]
    usable = set(names)
    # Every cut of a union in two is a merge, as transformers lists them for a SentencePiece model.
    cuts = [(union[:at], union[at:]) for union in unions for at in range(1, len(union))]
    merges = [cut for cut in cuts if usable.issuperset(cut)]
    tokenizer = tokenizers.Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, merges, unk_token="<unk>",
                                                fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    plain = ["<unk>", "<s>", "<|endoftext|>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False, rstrip=name not in plain)
                                  for name in ["<unk>", "<s>", "</s>", *SPECIAL["spm"][0]]])
    return tokenizer


def config(spec, special=(1, 2, 2)):
    """config.json with the fields, nesting and old names of the published ones; `special` are bos, eos and pad."""
    bos, eos, pad = special
    common = {
        "attention_dropout": 0.0, "bos_token_id": bos, "eos_token_id": eos, "hidden_act": "silu",
        "hidden_size": spec["hidden"], "initializer_range": 0.02, "intermediate_size": spec["ffn"],
        "max_position_embeddings": spec["context"], "model_type": spec["arch"], "num_attention_heads": spec["heads"],
        "num_hidden_layers": spec["layers"], "num_key_value_heads": spec["kv_heads"],
        "original_max_position_embeddings": spec.get("original", spec["context"]), "rms_norm_eps": spec["eps"],
        "rope_scaling": None, "rope_theta": spec["theta"], "sliding_window": spec["window"],
        "tie_word_embeddings": spec["tied"], "torch_dtype": str(spec.get("dtype", torch.float32))[6:],
        "transformers_version": "4.47.0", "use_cache": True, "vocab_size": spec["vocab"],
    }
    if "original" in spec:
        short, long = factors(spec)
        common["rope_scaling"] = {"long_factor": long, "short_factor": short, "type": "longrope"}
    if is_moe(spec):
        common |= {"architectures": ["PhiMoEForCausalLM"], "attention_bias": True, "hidden_dropout": 0.0,
                   "input_jitter_noise": 0.01, "lm_head_bias": True, "num_experts_per_tok": 2,
                   "num_local_experts": EXPERTS, "output_router_logits": False, "router_aux_loss_coef": 0.0,
                   "router_jitter_noise": JITTER}
        if "original" in spec:
            common["rope_scaling"] |= {"long_mscale": MSCALE, "short_mscale": MSCALE,
                                       "original_max_position_embeddings": spec["original"]}
        if spec.get("bare"):
            del common["original_max_position_embeddings"]
        if spec["head_dim"] * spec["heads"] != spec["hidden"]:
            common["head_dim"] = spec["head_dim"]
    else:
        common |= {"architectures": ["Phi3ForCausalLM"], "attention_bias": False, "embd_pdrop": 0.0,
                   "pad_token_id": pad, "resid_pdrop": 0.0}
        if "partial" in spec:
            common |= {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False,
                       "partial_rotary_factor": spec["partial"]}
    return dict(sorted(common.items()))


def write_directory(path, spec, tensors):
    """config.json and weights, cut into files of at most spec["shard"]; with a tokenizer if spec names one."""
    path.mkdir(exist_ok=True)
    special = (1, 2, 2)
    kind = spec.get("tokenizer")
    if kind:
        tokenizer = sentence_pieces() if kind == "spm" else byte_level(kind)
        rows = tokenizer.get_vocab_size()
        assert rows <= spec["vocab"], f"{rows} tokens, {spec['vocab']} rows"
        tokenizer.save(str(path / "tokenizer.json"))
        names = SPECIAL[kind][1:]
        special = tuple(tokenizer.token_to_id(name) for name in names)
        settings = dict(zip(["bos_token", "eos_token", "pad_token"], names))
        settings |= {"tokenizer_class": "LlamaTokenizer" if kind == "spm" else "GPT2Tokenizer",
                     "chat_template": TEMPLATES[kind], "clean_up_tokenization_spaces": False}
        if kind == "spm":
            settings |= {"add_bos_token": False, "add_eos_token": False, "legacy": False, "unk_token": "<unk>"}
        (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (path / "config.json").write_text(json.dumps(config(spec, special), indent=2) + "\n")
    save_torch_state_dict(tensors, path, max_shard_size=spec.get("shard", "5GB"))
