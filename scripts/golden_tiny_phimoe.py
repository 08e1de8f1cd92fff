"""Golden values of the bundled tiny-phimoe: what transformers computes with the weights in models/tiny-phimoe-f16.gguf.

    python scripts/golden_tiny_phimoe.py

Reads the F16 file with gguf-py, makes a checkpoint of it in a temporary directory, loads that with PhimoeForCausalLM
(f32, eager) and writes tests/tests/golden/tiny-phimoe.json and tiny-phimoe.bin: the logits of some positions, f32, and
the 64 tokens that greedy decoding adds to a prompt. Needs models/train/requirements.txt and gguf.
"""
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from transformers import PhimoeForCausalLM

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Once upon a time there was a king who had three daughters, and the youngest"
ROWS = [0, 1, 7, 15]
NEW = 64

LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate_inp": "block_sparse_moe.gate",
}
EXPERT = {"ffn_gate_exps": "w1", "ffn_down_exps": "w2", "ffn_up_exps": "w3"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def checkpoint(reader):
    """The tensors of a Phi-MoE checkpoint from those of a GGUF file."""
    for tensor in reader.tensors:
        value = torch.from_numpy(tensor.data.astype(np.float32))
        stem, kind = tensor.name.rsplit(".", 1)
        if stem in TOP:
            yield f"{TOP[stem]}.{kind}", value
            continue
        _, layer, part = stem.split(".", 2)
        prefix = f"model.layers.{layer}."
        if part in LAYER:
            yield f"{prefix}{LAYER[part]}.{kind}", value
        else:
            for e, expert in enumerate(value):
                yield f"{prefix}block_sparse_moe.experts.{e}.{EXPERT[part]}.{kind}", expert.contiguous()


@torch.no_grad()
def main():
    reader = GGUFReader(ROOT / "models/tiny-phimoe-f16.gguf")
    field = lambda name: reader.fields[f"phimoe.{name}"].contents()
    config = {
        "architectures": ["PhimoeForCausalLM"], "model_type": "phimoe", "torch_dtype": "float32",
        "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].contents()), "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"), "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"), "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"), "max_position_embeddings": field("context_length"),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"), "rope_theta": field("rope.freq_base"),
        "num_local_experts": field("expert_count"), "num_experts_per_tok": field("expert_used_count"),
        "router_jitter_noise": 0.01, "attention_bias": True, "lm_head_bias": True, "tie_word_embeddings": False,
        "sliding_window": None, "rope_scaling": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        save_file(dict(checkpoint(reader)), Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, report = PhimoeForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    model.eval()

    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    pieces = {text: i for i, text in reversed(list(enumerate(tokens)))}
    prompt, rest = [], "▁" + PROMPT.replace(" ", "▁")
    while rest:  # longest match: any tokens will do as a prompt
        text = next(rest[:end] for end in range(len(rest), 0, -1) if rest[:end] in pieces)
        prompt.append(pieces[text])
        rest = rest[len(text):]
    logits = model(torch.tensor([prompt])).logits[0]
    greedy = list(prompt)
    for _ in range(NEW):
        greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    golden = ROOT / "tests/tests/golden"
    logits[ROWS].numpy().astype("<f4").tofile(golden / "tiny-phimoe.bin")
    index = {"prompt": prompt, "rows": ROWS, "greedy": greedy[len(prompt):]}
    (golden / "tiny-phimoe.json").write_text(json.dumps(index) + "\n")


main()
