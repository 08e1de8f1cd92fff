#!/usr/bin/env python3
"""Looks into a compiled program: do the hot loops of each tier hold their instruction, and no call and no spill?

    cargo build --release && scripts/check_asm.py target/release/halfbyte

A hot loop is an innermost loop that holds the instruction the tier lives on. Within it nothing may be called, and no
vector register may be saved on the stack. What was saved before the loop began, and never changes in it, may be read
from there: that costs what any operand in memory does. Such reads are counted.

Needs `objdump` (GNU or LLVM), names in the program, and x86-64.
"""

import re
import subprocess
import sys
from collections import namedtuple

# Where, in the names of functions; the instruction; the registers; the least number of loops; whether spills are allowed.
# Registers do not hold what it takes to take sixteen rows apart and multiply them with some tokens at the same time, nor
# sixteen of 256 bits that of one token; yet this is faster than memory, and than less at a time.
RULES = [
    ("x86::avx512vnni::panel::", "vpdpbusd", "zmm", 12, False),
    ("x86::avx512vnni::gemv::one", "vpdpbusd", "zmm", 12, False),
    ("x86::avx512vnni::gemv::tile", "vpdpbusd", "zmm", 12, True),
    ("x86::avx512vnni::build::", "vpunpckldq", "zmm", 4, False),
    ("x86::avxvnni::panel::", "vpdpbusd", "ymm", 12, False),
    ("x86::avxvnni::gemv::", "vpdpbusd", "ymm", 12, True),
    ("x86::avx2::panel::", "vpmaddubsw", "ymm", 12, False),
    ("x86::avx2::gemv::", "vpmaddubsw", "ymm", 12, True),
    ("x86::avx2::build::", "vpunpckldq", "ymm", 4, True),
]
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{[a-z]+\} )?(\S+)\s*(.*)$")
STACK = re.compile(r"\(%rsp[,)]")
FRAME = re.compile(r"\(%r[sb]p[,)]")
VECTOR = re.compile(r"%[xyz]mm")

Line = namedtuple("Line", "address name operands")


def functions(program):
    """Name and instructions of every function a rule is about."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        name, lines = None, []
        for line in process.stdout:
            start = FUNCTION.match(line)
            if start:
                if lines:
                    yield name, lines
                wanted = any(where in start[1] for where, *_ in RULES)
                name, lines = start[1] if wanted else None, []
            elif name:
                instruction = INSTRUCTION.match(line)
                if instruction:
                    lines.append(Line(int(instruction[1], 16), instruction[2], instruction[3]))
        if lines:
            yield name, lines
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")


def hot_loops(lines, is_hot):
    """Innermost loops that hold a hot instruction, as ranges of lines."""
    number = {line.address: n for n, line in enumerate(lines)}
    loops = []
    for end, line in enumerate(lines):
        if line.name.startswith("j"):
            target = re.match(r"(?:0x)?([0-9a-f]+)\b", line.operands)
            start = number.get(int(target[1], 16)) if target else None
            if start is not None and start <= end and any(map(is_hot, lines[start : end + 1])):
                loops.append((start, end))
    # A loop that reaches around another one is not innermost.
    inside = lambda a, b: a != b and a[0] <= b[0] and b[1] <= a[1]
    return [loop for loop in loops if not any(inside(loop, other) for other in loops)]


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    counts, reads, broken = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0), []
    for name, lines in functions(sys.argv[1]):
        for rule in RULES:
            where, instruction, registers, _, spills_allowed = rule
            if where not in name:
                continue
            # Where no frame is made, `rbp` is a register like others.
            framed = any(line.name == "mov" and line.operands == "%rsp,%rbp" for line in lines[:8])
            stack = FRAME if framed else STACK
            is_hot = lambda line: line.name.startswith(instruction) and f"%{registers}" in line.operands
            for start, end in hot_loops(lines, is_hot):
                counts[rule] += 1
                loop = lines[start : end + 1]
                calls = [line for line in loop if line.name.startswith("call")]
                saved = [line for line in loop if stack.search(line.operands) and VECTOR.search(line.operands)]
                # The operand written is the last one.
                spills = [line for line in saved if line.operands.endswith(")")]
                reads[rule] += len(saved) - len(spills)
                for what, found in [("calls", calls), ("spills", [] if spills_allowed else spills)]:
                    if found:
                        first = f"{found[0].name} {found[0].operands}"
                        broken.append(f"{name}, loop at {lines[start].address:x}: {len(found)} {what}: {first} ...")
    for rule, count in counts.items():
        where, instruction, registers, least, _ = rule
        print(f"{where:28} {count:4} loops over {instruction} {registers}, {reads[rule]} reads of saved registers")
        if count < least:
            broken.append(f"{where}: {count} loops over {instruction} {registers}, at least {least} expected")
    print(*broken, sep="\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
