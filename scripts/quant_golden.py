#!/usr/bin/env python3
"""Makes formats/tests/golden/quant.txt: what ggml's reference code gives for seeded blocks and values.

Needs `pip install gguf numpy` (the Python twin of ggml, bit-exact for all formats here). The error figures of the
K-quant encoders need ggml's C code too: build `ggml/src/ggml-quants.c` as a shared library and pass its path.

    python scripts/quant_golden.py [--libggml PATH] > formats/tests/golden/quant.txt

With --libggml every decoded hash is also recomputed by the C code and must agree.

Lines:  decode FORMAT HASH FIRST    FIRST: bits of the first two decoded blocks, hexadecimal
        encode FORMAT HASH FIRST    FIRST: the first two encoded blocks, hexadecimal
        error FORMAT RMSE WEIGHTED  ggml's own encoder on GAUSSIAN values: sqrt(mean e^2), sqrt(sum w e^2 / sum w x^2)
"""

import argparse
import ctypes
import importlib.metadata
import sys

import gguf
import numpy as np

BLOCKS = 10_000
GAUSSIAN_BLOCKS = 2_000
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
DECODED = ["f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
           "iq4_nl", "iq4_xs", "mxfp4"]
ENCODED = ["f16", "bf16", "q4_0", "q5_0", "q8_0"]


def mix(z):
    """The output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(seed, count):
    """The first `count` outputs of SplitMix64."""
    return mix(np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def digest(values):
    """Order-dependent 64-bit hash of unsigned integers: sum of mix(value + (index + 1) * GOLDEN)."""
    index = np.arange(1, values.size + 1, dtype=np.uint64)
    return int(mix(values.astype(np.uint64) + index * GOLDEN).sum(dtype=np.uint64))


def random_blocks(ty):
    size = BLOCKS * gguf.GGML_QUANT_SIZES[ty][1]
    return words(int(ty), (size + 7) // 8).astype("<u8").view(np.uint8)[:size].reshape(BLOCKS, -1)


def integers(seed, count):
    """Near-Gaussian integers below 2^18 in magnitude: eight 16-bit lanes added up and centred."""
    lanes = words(seed, 2 * count).astype("<u8").view("<u2").reshape(count, 8)
    return lanes.sum(axis=1, dtype=np.int64) - 8 * 32767 - 4


def spread_values(ty, block_len):
    """Blocks of every magnitude; each 97th is zero, each 97th (offset one) constant. All steps are exact in f32."""
    values = integers(1000 + int(ty), BLOCKS * block_len).astype(np.float32).reshape(BLOCKS, block_len)
    index = np.arange(BLOCKS)
    values[index % 97 == 0] = 0
    values[index % 97 == 1] = values[index % 97 == 1][:, :1]
    # f16 overflows above 2^16.
    values *= np.float32(2.0) ** (-(index % 40) - 3).astype(np.float32)[:, None]
    return values


def gaussian(ty):
    return (integers(2000 + int(ty), GAUSSIAN_BLOCKS * 256).astype(np.float32) / np.float32(2**17)).reshape(-1, 256)


def bits(decoded):
    out = np.ascontiguousarray(decoded, dtype="<f4").view("<u4").reshape(BLOCKS, -1).copy()
    out[np.isnan(decoded).reshape(out.shape)] = 0x7FC00000
    return out


def c_decode(lib, name, blocks, values):
    function = getattr(lib, f"dequantize_row_{name.replace('_k', '_K')}")
    out = np.empty(values, dtype=np.float32)
    function(blocks.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values))
    return out


def c_encode(lib, name, values, size):
    function = getattr(lib, f"quantize_row_{name.replace('_k', '_K')}_ref")
    out = np.empty(size, dtype=np.uint8)
    function(values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libggml")
    lib = parser.parse_args().libggml
    lib = ctypes.CDLL(lib, mode=1) if lib else None
    np.seterr(all="ignore")

    print("# made by scripts/quant_golden.py with gguf", importlib.metadata.version("gguf"))
    for name in DECODED:
        ty = gguf.GGMLQuantizationType[name.upper()]
        blocks = random_blocks(ty)
        decoded = bits(gguf.dequantize(blocks, ty))
        if lib and name not in ("f16", "bf16"):
            again = bits(c_decode(lib, name, np.ascontiguousarray(blocks), decoded.size).reshape(BLOCKS, -1))
            if not np.array_equal(decoded, again):
                print(f"warning: {name}: gguf and ggml differ in {(decoded != again).sum()} values", file=sys.stderr)
        print("decode", name, f"{digest(decoded.ravel()):016x}", "".join(f"{b:08x}" for b in decoded[:2].ravel()))
    for name in ENCODED:
        ty = gguf.GGMLQuantizationType[name.upper()]
        values = spread_values(ty, gguf.GGML_QUANT_SIZES[ty][0])
        encoded = np.ascontiguousarray(gguf.quantize(values.reshape(1, -1), ty)).view(np.uint8).reshape(BLOCKS, -1)
        if lib and name.startswith("q"):
            again = c_encode(lib, name, values, encoded.size).reshape(BLOCKS, -1)
            if not np.array_equal(encoded, again):
                print(f"warning: {name}: gguf and ggml encode {(encoded != again).sum()} bytes apart", file=sys.stderr)
        print("encode", name, f"{digest(encoded.ravel()):016x}", encoded[:2].tobytes().hex())
    if not lib:
        print("warning: no error figures without --libggml", file=sys.stderr)
        return
    for name in ["q4_k", "q6_k"]:
        ty = gguf.GGMLQuantizationType[name.upper()]
        values = gaussian(ty)
        size = GAUSSIAN_BLOCKS * gguf.GGML_QUANT_SIZES[ty][1]
        encoded = c_encode(lib, name, values.ravel(), size).reshape(GAUSSIAN_BLOCKS, -1)
        x = values.astype(np.float64)
        error = (gguf.dequantize(encoded, ty).astype(np.float64) - x) ** 2
        sub = x.reshape(-1, 32)
        weight = (np.sqrt((sub**2).mean(axis=1, keepdims=True)) + abs(sub)).reshape(x.shape) if name == "q4_k" else x**2
        print("error", name, np.sqrt(error.mean()), np.sqrt((weight * error).sum() / (weight * x**2).sum()))


main()
