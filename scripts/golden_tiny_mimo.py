"""Golden values of the bundled model: what the training code computes with the weights in models/*-f16.gguf.

    python scripts/golden_tiny_mimo.py

Reads the F16 files with gguf-py, puts the weights into the model of models/train/train.py (transformers' Qwen2 and its
MTP layer) and writes tests/tests/golden/tiny-mimo.json and tiny-mimo.bin: the logits of some positions, f32, first
those of the trunk, then those of the MTP rows; and the 64 tokens that greedy decoding adds to a prompt.
Needs models/train/requirements.txt and gguf.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/train"))
from train import HIDDEN, LAYERS, MTP_PREFIX, TinyMimo  # noqa: E402

PROMPT = [277, 2596, 612, 2409, 886, 2225, 991, 11, 268, 351, 338, 487, 428, 526, 422, 845, 390, 2641, 75, 963, 448]
ROWS = [0, 1, 7, 20]
MTP_ROWS = [1, 2, 20]
NEW = 64

LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "nextn.enorm": "token_layernorm", "nextn.hnorm": "hidden_layernorm", "nextn.eh_proj": "input_proj",
    "nextn.shared_head_norm": "final_layernorm",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def checkpoint_name(name):
    """The checkpoint's name of a GGUF tensor."""
    stem, kind = name.rsplit(".", 1)
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    prefix = MTP_PREFIX if int(layer) == LAYERS else f"model.layers.{layer}."
    return f"{prefix}{LAYER[part]}.{kind}"


@torch.no_grad()
def main():
    model = TinyMimo().eval()
    state = model.hf_state()
    seen = set()
    for file in ("tiny-mimo-f16.gguf", "mtp-tiny-mimo-f16.gguf"):
        for tensor in GGUFReader(ROOT / "models" / file).tensors:
            name = checkpoint_name(tensor.name)
            value = torch.from_numpy(tensor.data.astype(np.float32))
            if name.endswith("input_proj.weight"):
                # GGUF has the columns (token, hidden), the checkpoint (hidden, token).
                value = torch.cat([value[:, HIDDEN:], value[:, :HIDDEN]], 1)
            state[name].copy_(value.reshape(state[name].shape))
            seen.add(name)
    assert seen == set(state), set(state) ^ seen

    ids = torch.tensor([PROMPT])
    hidden, residual = model.trunk(ids)
    trunk = model.lm.lm_head(hidden)[0]
    mtp = model.lm.lm_head(model.mtp_rows(ids, residual))[0]  # row q - 1 is that of position q
    greedy = list(PROMPT)
    for _ in range(NEW):
        hidden, _ = model.trunk(torch.tensor([greedy]))
        greedy.append(int(model.lm.lm_head(hidden[0, -1]).argmax()))
    golden = ROOT / "tests/tests/golden"
    rows = torch.cat([trunk[ROWS], mtp[[q - 1 for q in MTP_ROWS]]])
    rows.numpy().astype("<f4").tofile(golden / "tiny-mimo.bin")
    index = {"prompt": PROMPT, "rows": ROWS, "mtp_rows": MTP_ROWS, "greedy": greedy[len(PROMPT):]}
    (golden / "tiny-mimo.json").write_text(json.dumps(index) + "\n")


main()
