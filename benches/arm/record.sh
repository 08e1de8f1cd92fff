#!/usr/bin/env bash
# The record of the Arm tiers, in one go: loops on models of cores, and instructions a token.
#
#     benches/arm/record.sh benches/record/aarch64-unknown-linux-gnu/DATE-models-of-cores.csv
#
# Columns are those of the other records, but that nothing was timed: `count` is cycles of a round of a loop, or
# instructions of a token; `unit_per_cycle` has the units of ../README.md.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,/^set/s/^# \?//p' "$0"; exit 2; }
mkdir -p "$(dirname "$1")"
out=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
benches/arm/gate.sh --csv "$work/loops.csv" >"$work/table"
benches/arm/instructions.sh "$work/instructions.csv"
COMMIT=$(git rev-parse --short HEAD) python3 - "$work/loops.csv" "$work/instructions.csv" >"$work/record.csv" <<'PYTHON'
import csv, datetime, os, re, subprocess, sys

version = lambda *command: re.search(r"\d+(\.\d+)+", subprocess.check_output(command, text=True))[0]
loops, instructions = (list(csv.DictReader(open(name))) for name in sys.argv[1:])
out = csv.writer(sys.stdout, lineterminator="\n")
out.writerow(["id", "count", "unit_per_cycle", "tier", "note"])
out.writerow(["machine", "", "", "", f"{datetime.date.today()}; none: models of cores in llvm-mca {version('llvm-mca-19', '--version')}, "
              f"emulation by qemu {version('qemu-aarch64', '--version')}; no speed was measured; "
              f"rustc {version('rustc', '--version')}; commit {os.environ['COMMIT']}"])
out.writerow(["method", "", "", "", "loops: gate.py on the release build, cycles of a round, all it reads in the first cache"])
out.writerow(["method", "", "", "", "instructions: count.c, one thread, the difference of two runs"])
for row in loops:
    cycles, tokens = float(row["cycles"]), int(row["tokens"])
    unit = row["macs"] if row["kind"] == "gemm" else row["weights"] if tokens else None
    shape = [f"tokens={tokens}"] * (tokens > 0) + [f"loop={row['loop']}"] * (row["loop"] != "0")
    told = f"{row['instructions']} instructions, {row['outer']} around; {row['macs']} multiplications"
    name = f"{row['kind']}_{row['format'].lower().replace(' ', '_')}"
    out.writerow(["/".join(["loop", name, row["core"]] + [",".join(shape)] * bool(shape)), row["cycles"],
                  f"{float(unit) / cycles:.3f}" if unit else "", row["tier"],
                  told if row["macs"] else "cycles per cached byte of int8, with as many queries a head as tokens"])
for row in instructions:
    for kind in ("prompt", "decode"):
        out.writerow([f"instructions/{kind}_{row['model']}/{row['cpu']}", row[f"{kind} instructions a token"], "", row["tier"], ""])
PYTHON
mv "$work/record.csv" "$out"
cat "$work/table" "$work/instructions.csv"
