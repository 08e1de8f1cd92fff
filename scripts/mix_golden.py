#!/usr/bin/env python3
"""Makes formats/tests/golden/mix.txt: the format that llama.cpp gives each tensor of a model file.

Needs `pip install gguf numpy`, and a build of llama.cpp as shared libraries (tested with libllama 0.5.0).

    python scripts/mix_golden.py FOLDER_OF_LIBLLAMA > formats/tests/golden/mix.txt

Lines:  MIX ARCHITECTURE TIED LAYERS TENSOR EXTENTS FORMAT...   a FORMAT for each layer, one if it is in no layer
"""

import ctypes
import pathlib
import sys
import tempfile

import gguf
import numpy as np

LAYERS, HIDDEN, VOCAB, EXPERTS = 20, 256, 32, 16
FILE_TYPES = {"q4_0": 2, "q4_k_m": 15}
QKV = [("attn_q", HIDDEN, 256), ("attn_k", HIDDEN, 64), ("attn_v", HIDDEN, 64), ("attn_output", 256, HIDDEN)]
# Feed-forward rows of whole K-quant blocks, of whole small blocks only, and of neither.
MODELS = [
    ("qwen2", False, [*QKV, ("ffn_gate", HIDDEN, 512), ("ffn_up", HIDDEN, 512), ("ffn_down", 512, HIDDEN)]),
    ("phi3", True, [("attn_qkv", HIDDEN, 384), QKV[3], ("ffn_up", HIDDEN, 512), ("ffn_down", 256, HIDDEN)]),
    ("phi3", False, [("attn_qkv", HIDDEN, 384), QKV[3], ("ffn_up", HIDDEN, 96), ("ffn_down", 48, HIDDEN)]),
    ("phimoe", False, [*QKV, ("ffn_gate_inp", HIDDEN, EXPERTS), ("ffn_gate_exps", HIDDEN, 96, EXPERTS),
                       ("ffn_up_exps", HIDDEN, 96, EXPERTS), ("ffn_down_exps", 96, HIDDEN, EXPERTS)]),
]


class Params(ctypes.Structure):
    """`llama_model_quantize_params` of llama.h."""

    _fields_ = [("threads", ctypes.c_int32), ("file_type", ctypes.c_int), ("output", ctypes.c_int),
                ("embedding", ctypes.c_int), ("flags", ctypes.c_bool * 6), ("pointers", ctypes.c_void_p * 4),
                ("buffer", ctypes.c_size_t)]


def write(path, architecture, tied, parts):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(64)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "phimoe":
        writer.add_layer_norm_eps(1e-5)
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
    tensors = [("token_embd", HIDDEN, VOCAB)] + ([] if tied else [("output", HIDDEN, VOCAB)])
    tensors += [(f"blk.{i}.{name}", *dims) for i in range(LAYERS) for name, *dims in parts]
    for name, *dims in tensors:
        # As converters write a router; llama.cpp leaves it alone.
        dtype = np.float32 if name.endswith("gate_inp") else np.float16
        writer.add_tensor(f"{name}.weight", np.ones(dims[::-1], dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in ["libggml-base", "libggml-cpu", "libggml"]:
        ctypes.CDLL(folder / f"{name}.so", mode=ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(folder / "libllama.so")
    llama.llama_model_quantize_default_params.restype = Params
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
    llama.llama_model_quantize.restype = ctypes.c_uint32
    llama.llama_backend_init()

    print("# made by scripts/mix_golden.py with llama.cpp")
    with tempfile.TemporaryDirectory() as temporary:
        source, target = f"{temporary}/source.gguf", f"{temporary}/target.gguf"
        for architecture, tied, parts in MODELS:
            write(source, architecture, tied, parts)
            for mix, file_type in FILE_TYPES.items():
                params = llama.llama_model_quantize_default_params()
                params.file_type = file_type
                if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
                    sys.exit(f"llama.cpp does not quantise this {architecture}")
                lines = {}
                for tensor in gguf.GGUFReader(target).tensors:
                    part = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else tensor.name
                    dims = "x".join(str(extent) for extent in tensor.shape)
                    lines.setdefault((part, dims), []).append(tensor.tensor_type.name.lower())
                for (part, dims), formats in lines.items():
                    print(mix, architecture, str(tied).lower(), LAYERS, part, dims, *formats)


main()
