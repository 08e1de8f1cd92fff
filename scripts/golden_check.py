#!/usr/bin/env python3
"""Runs `halfbyte logits` on larger random models in every number format and compares with transformers in f32.

Needs `pip install torch transformers gguf safetensors`, a built `halfbyte`, and llama.cpp's `llama-quantize`. Some
minutes on one core.

    python scripts/golden_qwen2.py --large --out DIR
    python scripts/golden_check.py DIR --halfbyte target/release/halfbyte --llama-quantize PATH [--isa NAME ...]

For each model of DIR, each format and each isa it prints the normalised mean square error of the logits against
Qwen2ForCausalLM (f32, eager) that got the same weights, decoded by gguf-py; it fails if one is above --limit, or if
the most likely token differs anywhere but in a tie. Files:

  f32      the GGUF written by gguf-py, and `halfbyte convert` of the Hugging Face directory (`+convert`)
  formats  made by llama-quantize from that GGUF, and by `halfbyte quantize` (`+quantize`): for those it is also
           printed how many tensors have the type that llama-quantize chose, and how many are the same bytes

The cache is f32, so that the only rounding beside f32 arithmetic is that of the weights, which both sides share.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import gguf
import numpy as np
import torch

import golden_qwen2

FORMATS = ["q8_0", "q4_0", "q4_k_m"]
# Two logits closer than this are a tie: rounding may decide it either way.
TIE = 1e-4


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def decoded(path, spec, sidecar=None):
    """The tensors of a GGUF file as f32, by their Hugging Face names."""
    names = {golden_qwen2.gguf_name(name, spec): name for name in golden_qwen2.weights(spec)}
    tensors = {}
    for file in filter(None, [path, sidecar]):
        for tensor in gguf.GGUFReader(file).tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            values = torch.from_numpy(np.array(values, dtype=np.float32).reshape(tensor.shape[::-1].tolist()))
            if tensor.name.endswith("eh_proj.weight"):
                values = values.roll(spec["hidden"], dims=1)
            tensors[names[tensor.name]] = values
    return tensors


def check(options, what, path, spec, tokens, truth, mtp):
    for isa in options.isa or [None]:
        ids = options.folder / "ids"
        ids.write_text(" ".join(str(token) for token in tokens.tolist()))
        command = [options.halfbyte, "logits", path, "--tokens", f"@{ids}", "--kv", "f32"]
        command += (["--mtp"] if mtp else []) + (["--isa", isa] if isa else []) + ["--threads", options.threads]
        lines = run(*command).splitlines()
        found = torch.tensor(np.array([json.loads(line) for line in lines], dtype=np.float32))
        error = golden_qwen2.nmse(found, truth.double())
        top = truth.topk(2).values
        clear = top[:, 0] - top[:, 1] > TIE
        differ = int((found.argmax(-1) != truth.argmax(-1))[clear].sum())
        name = f"{what}{' mtp' if mtp else ''} {len(tokens)} tokens{f' {isa}' if isa else ''}"
        print(f"{name:48} nmse {error:.1e}, top-1 differs at {differ} ({int((~clear).sum())} ties)", flush=True)
        options.failed |= error > options.limit or differ > 0


def compare(options, name, spec, label, path, sidecar=None):
    """Checks one file, with all token sequences of its model."""
    forward = golden_qwen2.reference(spec, decoded(path, spec, sidecar))
    for count in options.tokens:
        random = torch.Generator().manual_seed(count)
        tokens = torch.randint(spec["vocab"], (count,), generator=random)
        for truth, mtp in zip(forward(tokens), [False, True]):
            if truth is not None:
                check(options, f"{name} {label}", path, spec, tokens, truth.detach(), mtp)


def same(ours, theirs):
    """How much of what `halfbyte quantize` wrote is what llama-quantize wrote."""
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(theirs).tensors}
    pairs = [(tensor, theirs[tensor.name]) for tensor in gguf.GGUFReader(ours).tensors]
    types = sum(a.tensor_type == b.tensor_type for a, b in pairs)
    data = sum(a.tensor_type == b.tensor_type and np.array_equal(a.data, b.data) for a, b in pairs)
    return f"{types} of {len(pairs)} tensors have llama-quantize's type, {data} its bytes"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--halfbyte", required=True)
    arguments.add_argument("--llama-quantize", required=True)
    arguments.add_argument("--isa", nargs="*", help="instruction sets to force; by default the best one")
    arguments.add_argument("--threads", default=1)
    arguments.add_argument("--tokens", nargs="*", type=int, default=[64, 600])
    arguments.add_argument("--formats", nargs="*", default=FORMATS)
    arguments.add_argument("--limit", type=float, default=1e-9)
    options = arguments.parse_args()
    options.failed = False
    torch.set_num_threads(1)
    for name, spec in golden_qwen2.LARGE.items():
        original = options.folder / f"{name}.gguf"
        compare(options, name, spec, "f32", original)
        converted = options.folder / f"{name}-converted.gguf"
        run(options.halfbyte, "convert", options.folder / name, converted, "--type", "f32", "--force")
        sidecar = converted.with_name(f"mtp-{converted.name}")
        compare(options, name, spec, "f32+convert", converted, sidecar if spec["mtp"] else None)
        for kind in options.formats:
            theirs, ours = (options.folder / f"{name}-{kind}{end}.gguf" for end in ["", "-ours"])
            run(options.llama_quantize, original, theirs, kind, 1)
            run(options.halfbyte, "quantize", original, ours, kind, "--force")
            compare(options, name, spec, kind, theirs)
            compare(options, name, spec, f"{kind}+quantize", ours)
            print(f"{name} {kind}: {same(ours, theirs)}", flush=True)
    sys.exit("failed: see above" if options.failed else 0)


if __name__ == "__main__":
    main()
