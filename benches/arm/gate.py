#!/usr/bin/env python3
"""Hot loops of the Arm tiers, as compiled, on models of real cores: cycles per multiplication, and bytes per cycle.

    benches/arm/gate.sh              # builds the kernels, then runs this on them
    benches/arm/gate.py PROGRAM [--csv FILE] [--check]

PROGRAM is a release build: of the kernels' library, or of a program, which has the same functions. A loop is cut out of
its disassembly from its first to its last instruction: unpacking, loads of scales and
their arithmetic are in it. llvm-mca says how many cycles a round of it takes if everything it reads is in the first
cache. Multiplications are counted from the instructions themselves. `--check` fails if a target below is missed.

Needs llvm-objdump-19 and llvm-mca-19, and a program with names as `-Csymbol-mangling-version=v0` makes them. Cores are
those of which LLVM 19 has a model of its own; it takes others for an older relative.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections import namedtuple

CORES = ["neoverse-n1", "neoverse-n2", "neoverse-v1", "neoverse-v2", "cortex-a510"]
# Bytes of a register of SVE, where they are more than NEON's and those tiers are chosen.
VECTORS = {"neoverse-v1": 32, "a64fx": 64}
# Where a tier is measured, if not on all cores: the last has no other dot products, so NEON is what to compare with.
OF_TIER = {"neon": CORES + ["a64fx"], "sve": ["neoverse-v1", "a64fx"], "svei8mm": ["neoverse-v1"]}
FEATURES = "+dotprod,+i8mm,+sve"
# Bytes a weight takes in memory, scales included.
BYTES = {"Q4_0": 18 / 32, "Q5_0": 22 / 32, "Q8_0": 34 / 32, "Q4_K": 144 / 256, "Q5_K": 176 / 256, "Q6_K": 210 / 256}
# What the (halves, mins) of a micro-kernel stand for.
KINDS = {("false", "false"): "Q4_0", ("false", "true"): "Q4_K", ("true", "false"): "Q6_K"}
# Cycles per multiplication of public kernels, by the same tool and models: loops of ggml's hand-written Q4_0 kernels
# (arch/arm/repack.cpp, 4x8 blocks) and KleidiAI's (8x4x32, 1x4x32). One token; four tokens.
PUBLIC = {
    ("gemv", "neoverse-n2"): [("ggml 4x4", 0.102), ("ggml 4x8", 0.126), ("KleidiAI", 0.126)],
    ("gemv", "neoverse-v2"): [("ggml 4x4", 0.049), ("ggml 4x8", 0.059), ("KleidiAI", 0.063)],
    ("gemv", "cortex-a510"): [("ggml 4x4", 0.383), ("ggml 4x8", 0.281)],
    ("i8mm gemm", "neoverse-n2"): [("ggml", 0.044), ("KleidiAI", 0.046)],
    ("i8mm gemm", "neoverse-v2"): [("ggml", 0.022), ("KleidiAI", 0.023)],
    ("i8mm gemm", "cortex-a510"): [("ggml", 0.107)],
    ("dotprod gemm", "neoverse-n2"): [("ggml", 0.056)],
    ("dotprod gemm", "neoverse-v2"): [("ggml", 0.028)],
    ("dotprod gemm", "cortex-a510"): [("ggml", 0.104)],
}
# Multiplications of a token in the step of a group: 32 inputs by the rows that are multiplied at a time.
STEP = {"gemv": 32 * 16, "gemm": 32 * 8, "kv8": 32 * 8}
# The loops of attention over a cache of 8 bits.
CACHE = {"dotprod": ("gemm", "Q8_0"), "i8mm": ("kv8", "int8")}
# Most cycles per multiplication: what is computed, with how many tokens, on which core.
TARGETS = {
    ("i8mm", "gemm", "Q4_0", 4, "neoverse-n2"): 0.0345,
    ("i8mm", "gemm", "Q4_0", 4, "neoverse-v2"): 0.0172,
    ("dotprod", "gemv", "Q4_0", 1, "neoverse-n2"): 0.087,
    ("dotprod", "gemv", "Q4_0", 1, "neoverse-v2"): 0.040,
    ("dotprod", "gemv", "Q4_0", 1, "cortex-a510"): 0.6 * 0.281,
}
# Loops of SVE that are to take no longer than those of another tier.
BESIDE = [
    ("svei8mm", "i8mm", ("gemm", "Q4_0", 4, "neoverse-v1")),
    ("svei8mm", "i8mm", ("gemm", "Q4_K", 4, "neoverse-v1")),
    ("svei8mm", "i8mm", ("gemm", "Q6_K", 4, "neoverse-v1")),
    ("sve", "neon", ("gemm", "Q4_0", 4, "a64fx")),
    ("sve", "neon", ("gemv", "Q4_0 packed", 1, "a64fx")),
    # Of few tokens svei8mm has these, and others from registers of 512 bits up.
    ("sve", "dotprod", ("gemv", "Q5_0 packed", 4, "neoverse-v1")),
    ("sve", "dotprod", ("gemv", "Q5_K packed", 4, "neoverse-v1")),
    ("sve", "dotprod", ("gemv", "Q6_K packed", 4, "neoverse-v1")),
]
# Most, of what Q4_0 takes.
RATIOS = {"Q4_K": 1.15, "Q6_K": 1.6}

# What the linker sees of a private function has a number behind it.
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+?)(?: \(\.llvm\.\d+\))?>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
TARGET = re.compile(r"0x([0-9a-f]+) <.*>$")
BRANCH = re.compile(r"^(b|b\..+|cbn?z|tbn?z)$")

Line = namedtuple("Line", "address name operands")
Row = namedtuple("Row", "tier kind format tokens loop core instructions macs cycles weights loads outer")


def functions(program):
    """Name and instructions of every function of an Arm tier."""
    command = ["llvm-objdump-19", "-d", "-C", "--no-show-raw-insn", "--mattr=" + FEATURES, program]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, lines = None, []
    for line in text.splitlines():
        if start := FUNCTION.match(line):
            if lines:
                yield name, lines
            name, lines = start[1] if "::aarch64::" in start[1] else None, []
        elif name and (instruction := INSTRUCTION.match(line)):
            lines.append(Line(int(instruction[1], 16), instruction[2], instruction[3].split("//")[0].strip()))
    if lines:
        yield name, lines


def loops(lines):
    """All loops, as ranges of lines: from where a branch goes back to, to the branch."""
    number = {line.address: n for n, line in enumerate(lines)}
    found = {}
    for end, line in enumerate(lines):
        target = TARGET.search(line.operands)
        start = number.get(int(target[1], 16)) if target and BRANCH.match(line.name) else None
        if start is not None and start <= end:
            found[start] = max(end, found.get(start, 0))
    return sorted(found.items())


def macs(line, core):
    """Multiplications of codes that an instruction does."""
    if line.operands.startswith("z"):
        return {"sdot": 1, "usmmla": 2}.get(line.name, 0) * VECTORS.get(core, 16)
    if line.name in ("sdot", "udot", "usdot", "sudot"):
        return 16
    if line.name in ("smmla", "ummla", "usmmla"):
        return 32
    # Not those of 16 bits, or of numbers for other ends.
    if re.match(r"[su]ml[as]l2?$|[su]mull2?$", line.name) and re.match(r"v\d+\.8h", line.operands):
        return 8
    return 0


def loaded(line, core):
    """Bytes that an instruction reads from memory."""
    name, operands = line.name, line.operands
    if name.startswith("ld1") and operands.startswith("{ z"):
        # Replicated, a register, or half of one: words that become twice as long.
        replicated = {"ld1rw": 4, "ld1rqw": 16}.get(name)
        return replicated or VECTORS.get(core, 16) // (2 if name == "ld1w" and ".d" in operands else 1)
    registers = re.findall(r"\b([qdsxwhbv]\d+|[xw]zr)\b", operands.split("[")[0])
    size = {"q": 16, "d": 8, "s": 4, "h": 2, "b": 1, "x": 8, "w": 4}
    if name.startswith("ld1r"):
        return {"b": 1, "h": 2, "s": 4, "d": 8}[re.search(r"\.\d+([bhsd])", operands)[1]]
    if name == "ld1":
        return 16 * operands.split("}")[0].count(".")
    if re.match(r"ld(r|ur|p|np)$", name):
        return sum(size.get(register[0], 0) for register in registers)
    return {"ldrb": 1, "ldurb": 1, "ldrsb": 1, "ldrh": 2, "ldurh": 2, "ldrsh": 2, "ldrsw": 4}.get(name, 0)


def simulate(lines, core):
    """Cycles of a round, over many of them."""
    rounds = 100
    text = ".Lx:\n" + "".join(f"{l.name} {TARGET.sub('.Lx', l.operands)}\n" for l in lines)
    command = ["llvm-mca-19", "-mtriple=aarch64", f"-mcpu={core}", f"-mattr={FEATURES}", f"-iterations={rounds}"]
    run = subprocess.run(command, input=text, capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", run.stdout)
    if not cycles:
        sys.exit(f"llvm-mca on {core}: {run.stderr.strip()[:300]}")
    return int(cycles[1]) / rounds


def before(program):
    """What `sve` does for groups before it multiplies them, by format and tokens: sums of inputs become numbers, scales
    are brought into order. Loops, each with the groups of a round."""
    found = {}
    for name, lines in functions(program):
        tile = re.search(r"::sve::gemv::tile::<.*Stored<.*\b(Q\d_[0K])>, (\d)(?:usize)?>$", name)
        every = loops(lines) if tile else []
        for body in (lines[start : end + 1] for start, end in innermost(every)):
            count = lambda *names: sum(line.name in names for line in body)
            # Four registers of scales become longer, or are products, and so are as many of minima.
            groups = count("fmul") // 8 or count("fcvtl", "fcvtl2") // 4
            if not groups and count("str", "stp", "sub", "orr", "lsl") > 8 and not count("bl", "blr", "ret"):
                groups = 1
            if groups:
                found.setdefault((tile[1] + " packed", int(tile[2])), []).append((groups, body))
    # They are told by what is in them, so one could be missed: then nothing is to be reported.
    if wrong := [what for what, parts in found.items() if len(parts) != 2]:
        sys.exit(f"sve gemv {wrong}: expected two loops before that which multiplies")
    return found


def innermost(every):
    """Those of the loops that have no other in them."""
    return [a for a in every if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in every)]


def describe(name):
    """Tier, kind, format and tokens of a function, of those of SVE columns too, by its name; `None` if it is none of
    those measured."""
    # The last tier named: functions of one are made for the instructions of another.
    tiers = re.findall(r"::aarch64::(\w+)::(?:panel|gemv|build|product)\b", name)
    if not tiers:
        return None
    tier = tiers[-1]
    if found := re.search(r"::product::multiply::<(.*)>$", name):
        # Codes, in SVE's own tier; columns, tokens, whether there are halves of groups, and minima.
        parts = re.findall(r"\b(?:true|false|\d+)", found[1])
        form = KINDS.get(tuple(parts[-2:]))
        columns, tokens = map(int, parts[-4:-2])
        codes = int(parts[0]) if tier == "sve" else 7
        if codes < 7:
            form = {4: form, 5: form.replace("4", "5"), 6: "Q6_K"}[codes] + " packed"
            return tier, "gemv", form, tokens, columns
        if codes == 8 and form != "Q4_0":
            return None
        return tier, "gemm", "Q8_0" if codes == 8 else form, tokens, columns
    if found := re.search(r"::(?:product|eight_rows)::<(.*)>$", name):
        # A flag, or a type that has one; tokens, and whether there are halves of groups, and minima.
        parts = re.search(r"\b(true|false)>?, (\d+)(?:usize)?, (true|false), (true|false)$", found[1])
        form = KINDS.get(parts.group(3, 4)) if parts else None
        if form and tier == "i8mm":
            # Panels of a prompt are stored in pairs of rows; those of the cache are not.
            if parts[1] == "true":
                return tier, "gemm", form, int(parts[2])
            return (tier, "kv8", "int8", int(parts[2])) if form == "Q4_0" else None
        if form and (parts[1] == "false" or form == "Q4_0"):
            # The cache has codes of 8 bits, as Q8_0.
            return tier, "gemm", "Q8_0" if parts[1] == "true" else form, int(parts[2])
    if found := re.search(r"::(?:gemv|panel)::tile::<(.*)>$", name):
        weights = re.search(r"\b(Q\d_[0K])\b", found[1])
        tokens = re.search(r", (\d+)(?:usize)?$", found[1])
        if weights and tokens:
            packed = " packed" if "Stored<" in found[1] else ""
            return tier, "gemv", weights[1] + packed, int(tokens[1])
    if found := re.search(r"::build::build::<.*\b(Q\d_[0K])\b.*>$", name):
        return tier, "build", found[1] + (" packed" if "Stored<" in name else ""), 0
    return None


def measure(program):
    seen, prepared = set(), before(program)
    for name, lines in functions(program):
        what = describe(name)
        if not what or what[3] in (2, 3):
            continue
        tier, kind, form, tokens, *columns = what
        every = loops(lines)
        counted = lambda part, core: sum(macs(line, core) for line in part)
        hot = [l for l in every if kind == "build" or counted(lines[l[0] : l[1] + 1], CORES[0])]
        for n, (start, end) in enumerate(innermost(hot)):
            if (what, n) in seen:
                continue
            seen.add((what, n))
            body, count = lines[start : end + 1], counted(lines[start : end + 1], CORES[0])
            around = [l for l in every if l[0] <= start and end <= l[1] and l != (start, end)]
            around.sort(key=lambda l: l[1] - l[0])
            step = 0 if columns else STEP.get(kind, 0) * tokens
            if count < step:
                # A loop over the lines of a group: the step is the loop around it, with all their rounds.
                if step % count or not around or counted(lines[around[0][0] : around[0][1] + 1], CORES[0]) != count:
                    sys.exit(f"{name}: a loop of {count} multiplications is no part of a step of {step}")
                first, last = around.pop(0)
                body = lines[first:start] + body * (step // count) + lines[end + 1 : last + 1]
                start, end = first, last
            smallest = around[0][1] - around[0][0] if around else len(lines) - 1
            # As stored: in a file, in the cache, or unpacked to a byte each.
            size = BYTES[form.split()[0]] if kind == "gemv" else 1
            for core in OF_TIER.get(tier, CORES):
                # As many columns as a panel of 16 rows has, or as are multiplied at a time.
                if columns and columns[0] != most_columns(tier, kind, core):
                    continue
                count, cycles, instructions = counted(body, core), simulate(body, core), len(body)
                if columns and kind == "gemv":
                    first = prepared[form, tokens]
                    # That of the group of a round.
                    cycles += sum(simulate(part, core) / groups for groups, part in first)
                    instructions += sum(len(part) // groups for groups, part in first)
                # Numbers for other ends are multiplied by the same instructions.
                count -= count % step if step else 0
                weights = count / tokens * size if tokens else 0
                reads = sum(loaded(line, core) for line in body)
                yield Row(tier, kind, form, tokens, n, core, instructions, count, cycles, weights, reads,
                          smallest - (end - start))


def most_columns(tier, kind, core):
    """Registers of SVE that a panel of 16 rows takes, or two for many tokens, if so many are multiplied at a time."""
    width, most = (8, 4) if tier == "svei8mm" else (4, 2)
    columns = 16 * width // VECTORS[core]
    return most if kind == "gemm" else columns


def attention(rows):
    """Cycles per cached byte, of keys and of values, by tier, queries of a head and core.

    A loop multiplies keys with the queries, values with their weights; values a second time with the middle of weights,
    which is one token more (kernels/src/simd/attention/eight.rs). Copies to panels and exponentials are not in it.
    """
    loops = {(r.tier, r.tokens, r.core): r for r in rows if (r.kind, r.format) == CACHE.get(r.tier)}
    # i8mm multiplies the last of an odd number of tokens twice.
    twice = lambda tier, tokens: 1 + tokens % 2 / tokens if tier == "i8mm" else 1
    of = lambda *key: loops[key].cycles / loops[key].weights * twice(*key[:2])
    return {(tier, tokens, core): (of(tier, tokens, core), of(tier, tokens, core) + of(tier, 1, core))
            for tier, tokens, core in loops if (tier, 1, core) in loops}


def table(rows):
    """One line a loop, cores side by side: cycles per multiplication, and bytes per cycle."""
    cells = {}
    for row in rows:
        cells.setdefault(row[:5], {})[row.core] = row
    print(f"{'loop':36} {'instr.':>6} {'macs':>5} {'outer':>5}  " + "  ".join(f"{core:>17}" for core in CORES + ["a64fx"]))
    for (tier, kind, form, tokens, n), of_core in sorted(cells.items()):
        label = f"{tier} {kind} {form}" + (f", {tokens} tokens" if tokens else "") + (f" #{n}" if n else "")
        any_row = next(iter(of_core.values()))
        parts = []
        for core in CORES + ["a64fx"]:
            row = of_core.get(core)
            if row is None:
                parts.append("")
            elif row.macs:
                parts.append(f"{row.cycles / row.macs:7.4f} {(row.weights or row.loads) / row.cycles:6.2f}B/c")
            else:
                parts.append(f"{row.cycles:9.1f} cycles")
        print(f"{label:36} {any_row.instructions:6} {any_row.macs:5} {any_row.outer:5}  " + "  ".join(f"{p:>17}" for p in parts))
    print("\nA token's attention over a cache of 8 bits, cycles per cached byte:")
    for (tier, queries, core), (keys, values) in sorted(attention(rows).items()):
        print(f"  {tier:8} {queries} queries a head  {core:12} keys {keys:.3f}, values {values:.3f}")
    print("\nA format's cycles per multiplication beside those of Q4_0:")
    best, beside = fastest(rows), {}
    for (tier, kind, form, tokens, core), value in best.items():
        if plain := form[:4] in RATIOS and best.get((tier, kind, "Q4_0" + form[4:], tokens, core)):
            beside.setdefault((tier, kind, form, tokens), []).append(f"{core} {value / plain:.2f}")
    for (tier, kind, form, tokens), ratios in sorted(beside.items()):
        print(f"  {tier:8} {kind} {form:11} {tokens} tokens  " + ", ".join(ratios))
    print("\nThe same of others, Q4_0:")
    for (what, core), others in PUBLIC.items():
        print(f"  {what:14} {core:12} " + ", ".join(f"{name} {value}" for name, value in others))


def fastest(rows):
    """Cycles per multiplication of the fastest loop of its kind."""
    best = {}
    for row in rows:
        if row.macs:
            key = (row.tier, row.kind, row.format, row.tokens, row.core)
            best[key] = min(best.get(key, float("inf")), row.cycles / row.macs)
    return best


def misses(rows):
    """Targets that are not met, or that nothing is there for."""
    best = fastest(rows)
    for key, most in TARGETS.items():
        # Packed weights are what a model is to be stored in; row-major ones cost more to take apart.
        tier, kind, form, tokens, core = key
        found = min((best[k] for k in (key, (tier, kind, form + " packed", tokens, core)) if k in best), default=None)
        if found is None or found > most:
            yield f"{' '.join(map(str, key))}: {found and round(found, 4)} cycles per multiplication, at most {most:.4f}"
    for tier, other, what in BESIDE:
        found, most = (best.get((name, *what)) for name in (tier, other))
        if found is None or most is None or found > most:
            yield f"{tier} {' '.join(map(str, what))}: {found} cycles per multiplication, {other} {most}"
    for (tier, kind, form, tokens, core), value in best.items():
        plain = best.get((tier, kind, "Q4_0" + form[4:], tokens, core))
        most = RATIOS.get(form[:4])
        if most and plain and kind == "gemm" and tier == "i8mm" and value > most * plain:
            yield f"{tier} {kind} {form} {tokens} tokens on {core}: {value / plain:.2f} of Q4_0, at most {most}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--csv", help="write all numbers to this file")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    args = parser.parse_args()
    rows = list(measure(args.program))
    if not rows:
        sys.exit(f"{args.program} has no hot loop of an Arm tier: was it built with -Csymbol-mangling-version=v0?")
    table(rows)
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(row._replace(cycles=f"{row.cycles:.2f}", weights=f"{row.weights:.2f}") for row in rows)
            for (tier, queries, core), cycles in sorted(attention(rows).items()):
                for part, number in zip(("keys", "values"), cycles):
                    # Of one byte.
                    writer.writerow([tier, "attention", part, queries, 0, core, "", "", f"{number:.4f}", 1, "", ""])
    missed = list(misses(rows))
    for line in missed:
        print("missed:", line)
    if args.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
