#!/usr/bin/env python3
"""Whole models beside other engines: alternates `halfbyte bench` with `llama-bench` of llama.cpp and ik_llama.cpp.

Every round runs each case once on each engine, one after the other (A B C, A B C ...), each in a process of its own
that warms up first. What counts is the ratio of medians; the range of the ratios within each round says how far to
trust it.

    compare_peers.py model.gguf --llama llama.cpp/build/bin --ik ik_llama.cpp/build/bin --tune --record FILE.csv
    compare_peers.py model.gguf --llama DIR --cases pp512,tg64,tg32@2048 --rounds 7
    compare_peers.py model.gguf --ik-avx2 DIR --isa avx2     forced tiers beside a build for AVX2
    compare_peers.py model.gguf --llama DIR --ik DIR --kv f16,int8 --cases pp4096,tg24@4096    llama.cpp with a q8_0 cache
    compare_peers.py model.gguf --llama DIR --threads 1
    compare_peers.py model.gguf --llama DIR --busy           also (NAME+busy) while another process spins on one core
    compare_peers.py model.gguf --llama DIR --first-token    from the start of a process to its end after one token

Cases: `pp512` runs a prompt of 512 tokens, `tg64` decodes 64 tokens, `tg64@2048` does so after 2048 others. `--tune`
runs every set of flags of each peer once and keeps the fastest for each case. Build peers for this very CPU.

Python's standard library is enough. Linux only.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median

from bench_record import Record, machine, spread

# What a peer may be given, the first set without `--tune`.
FLAGS = {
    "halfbyte": [[]],
    "llama.cpp": [["-fa", fa, "--repack", repack] for repack in "10" for fa in ("on", "off")],
    "ik_llama.cpp": [["-fmoe", "1", "-rtr", rtr, "-fa", fa] for rtr in "10" for fa in "10"]
    + [["-fmoe", "1", "-rtr", "1", "-fa", "1", "-thp", "1"]],
}
# Added for a cache of 8 bits, which needs flash attention.
Q8_CACHE = ["-ctk", "q8_0", "-ctv", "q8_0"]
# From the start of the process to its end: no tuning, but what spares work at the start.
FIRST_TOKEN_FLAGS = {"": [], "-no-repack": ["--no-repack", "--no-warmup"]}
PROMPT_TOKENS = 16
SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@dataclass(frozen=True)
class Case:
    """`tokens` of a prompt, or to decode after `depth` others."""

    kind: str
    tokens: int
    depth: int = 0

    @classmethod
    def parse(cls, text):
        tokens, _, depth = text[2:].partition("@")
        if text[:2] not in ("pp", "tg") or not tokens.isdigit() or (depth and not depth.isdigit()):
            raise argparse.ArgumentTypeError(f"{text!r} is not like pp512, tg64 or tg64@2048")
        return cls(text[:2], int(tokens), int(depth or 0))

    @property
    def name(self):
        return f"{self.kind}{self.tokens}" + (f"@{self.depth}" if self.depth else "")

    @property
    def id(self):
        """Operation and shape, as in the ids of benchmarks."""
        operation = "prefill" if self.kind == "pp" else "decode"
        return operation, f"tokens={self.tokens}" + (f",depth={self.depth}" if self.depth else "")


@dataclass
class Engine:
    """A program that runs a model, and the flags for each case."""

    name: str
    family: str
    program: Path
    model: Path
    isa: str = ""
    kv: str = ""
    flags: dict = field(default_factory=dict)

    def command(self, case, threads):
        n_prompt, n_gen = (case.tokens, 0) if case.kind == "pp" else (0, case.tokens)
        command = [self.program, "-p", n_prompt, "-n", n_gen]
        if self.family == "halfbyte":
            command = [self.program, "bench", self.model, "-p", n_prompt, "-n", n_gen]
            command += ["--depth", case.depth, "--reps", 1, "--threads", threads, "--json"]
            command += ["--isa", self.isa] if self.isa else []
            command += ["--kv", self.kv] if self.kv else []
        else:
            if case.depth and self.family == "llama.cpp":
                command += ["-d", case.depth]
            elif case.depth:
                command = [self.program, "-p", 0, "-n", 0, "-gp", f"{case.depth},{case.tokens}"]
            command += ["-m", self.model, "-t", threads, "-r", 1, "-o", "json"]
        return [str(part) for part in command] + self.flags.get(case, FLAGS[self.family][0])

    def measure(self, case, threads):
        """Tokens per second, and what else the program says."""
        text = run(self.command(case, threads)).stdout
        if self.family == "halfbyte":
            report = json.loads(text)
            part = report["prefill" if case.kind == "pp" else "decode"]
            return part["median"], report
        # Some builds print lines before the list.
        tests = json.loads(text[text.index("[\n"):])
        assert len(tests) == 1, f"{self.program.name} ran {len(tests)} tests instead of one"
        return tests[0]["avg_ts"], tests[0]


def say(*columns):
    """One line, at once."""
    widths = [6, 28, 12, 20]
    print(" ".join(f"{column:<{width}}" for column, width in zip(columns, widths)), *columns[len(widths):], flush=True)


def run(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(command)}\nfailed ({error.returncode}):\n{error.stderr[-2000:]}")


def anonymous(command):
    """A command line without the folders of this machine."""
    return shlex.join(Path(part).name if os.sep in part else part for part in command)


def program(path, name):
    """`path`, or the program of that name in the folder `path`."""
    path = Path(path)
    found = path / name if path.is_dir() else path
    if not os.access(found, os.X_OK):
        sys.exit(f"{found} is not a program")
    return found.absolute()


class Spinner:
    """A process that keeps the last of our cores busy, while it is entered."""

    def __enter__(self):
        core = max(os.sched_getaffinity(0))
        self.process = subprocess.Popen([sys.executable, "-c", SPIN, str(core)])
        time.sleep(0.2)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@dataclass
class Runs:
    """What one engine did in one case."""

    engine: str
    tier: str
    command: str
    values: list = field(default_factory=list)
    loads: list = field(default_factory=list)
    shares: list = field(default_factory=list)
    resident: list = field(default_factory=list)

    def note(self, others):
        """Ratios over others of the same rounds, and how it was measured."""
        parts = [f"rate over {other.engine} {ratio(self, other)}" for other in others]
        if self.shares:
            parts.append(f"{spread(self.shares)} of the bandwidth of reading")
        if self.resident:
            parts.append(f"{max(self.resident) / 1e9:.3f} GB resident at most")
        parts += [f"runs {spread(self.values)}", f"load average {spread(self.loads)}", self.command]
        return "; ".join(parts)


def ratio(mine, other):
    """Ratio of medians, and the range of the ratios of each round."""
    each = [a / b for a, b in zip(mine.values, other.values)]
    return f"{median(mine.values) / median(other.values):.3f} ({min(each):.3f} to {max(each):.3f})"


def peers(results, name):
    """Whom `name` is compared with."""
    ours = name.startswith("halfbyte")
    return [runs for other, runs in results.items() if ours and not other.startswith("halfbyte")]


def tune(engines, cases, threads):
    """Runs every set of flags of a peer once for each case, and keeps the fastest."""
    for engine in engines:
        sets = FLAGS[engine.family]
        for case in cases if len(sets) > 1 else []:
            rates = []
            for flags in sets:
                engine.flags[case] = flags
                rates.append(engine.measure(case, threads)[0])
                say("tune", engine.name, case.name, f"{rates[-1]:.2f} tokens/s", shlex.join(flags))
            engine.flags[case] = sets[rates.index(max(rates))]


def compare(engines, cases, args, record):
    """All rounds of all cases; prints ratios and records rows."""
    conditions = [contextlib.nullcontext()] + ([Spinner()] if args.busy else [])
    results = {}
    for round_ in range(args.rounds):
        for case in cases:
            for engine in engines:
                for condition in conditions:
                    busy = isinstance(condition, Spinner)
                    load = os.getloadavg()[0]
                    with condition:
                        rate, report = engine.measure(case, args.threads)
                    tier = report.get("isa") or engine.family
                    command = anonymous(engine.command(case, args.threads))
                    name = engine.name + ("+busy" if busy else "")
                    runs = results.setdefault((case, busy), {}).setdefault(engine.name, Runs(name, tier, command))
                    runs.values.append(rate)
                    runs.loads.append(load)
                    share = (report.get("decode") or {}).get("bandwidth_share")
                    runs.shares += [share] if share else []
                    memory = report.get("memory")
                    runs.resident += [memory["peak"]["resident_bytes"]] if memory else []
                    say(f"{round_ + 1}/{args.rounds}", name, case.name, f"{rate:.2f} tokens/s", f"load {load:.2f}")
    for (case, busy), by_engine in results.items():
        operation, shape = case.id
        for name, runs in by_engine.items():
            others = peers(by_engine, name)
            if busy:
                others.append(results[case, False][name])
            rate = median(runs.values)
            id_ = f"model/{operation}_{args.label}/{name}/{shape},threads={args.threads}" + (",busy=1" if busy else "")
            record.add(id_, 1e9 / rate, rate, runs.tier, runs.note(others))
            for other in others:
                print(f"{case.name:12} {runs.engine} over {other.engine}: {ratio(runs, other)}")
            if runs.shares:
                print(f"{case.name:12} {runs.engine}: {spread(runs.shares)} of the bandwidth of reading")


def prompt_of(halfbyte, model, count):
    """A text of exactly `count` tokens."""
    words = "Once upon a time there was a king who had three sons and the youngest was called the fool by all".split()
    for length in range(1, len(words) + 1):
        text = " ".join(words[:length])
        tokens = json.loads(run([str(halfbyte), "tokenize", str(model), "--text", text]).stdout)
        if len(tokens) == count:
            return text
    sys.exit(f"no text of {count} tokens for this vocabulary")


def spawn(command):
    """Runs a command; seconds until it ended, and the most memory it had, in bytes."""
    start = time.perf_counter()
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{shlex.join(command)}\nfailed ({process.returncode})")
    return seconds, usage.ru_maxrss * 1024


def first_token(engines, args, record):
    """From the start of a process to its end after one token; pages of the model are cached."""
    prompt = prompt_of(engines[0].program, engines[0].model, PROMPT_TOKENS)
    commands, tiers = {}, {}
    for engine in engines:
        tiers[engine.name] = engine.family
        if engine.family == "halfbyte":
            tiers[engine.name] = engine.measure(Case("pp", 1), args.threads)[1]["isa"]
            command = [engine.program, "run", engine.model, "-p", prompt, "-n", 1, "--temp", 0]
            command += ["--threads", args.threads, "--no-echo"] + (["--isa", engine.isa] if engine.isa else [])
            commands[engine.name] = (engine, command)
        elif engine.family == "llama.cpp":
            names = [name for name in ("llama-completion", "llama-cli") if (engine.program.parent / name).exists()]
            for suffix, flags in FIRST_TOKEN_FLAGS.items() if names else []:
                command = [engine.program.parent / names[0], "-m", engine.model, "-p", prompt, "-n", 1, "--temp", 0]
                command += ["-c", 4096, "-t", args.threads, "-no-cnv"] + flags
                commands[engine.name + suffix] = (engine, command)
    results = {}
    # The first round only brings the pages into the cache.
    for round_ in range(args.rounds + 1):
        for name, (engine, command) in commands.items():
            command = [str(part) for part in command]
            load = os.getloadavg()[0]
            seconds, resident = spawn(command)
            if round_:
                runs = results.setdefault(name, Runs(name, tiers[engine.name], anonymous(command)))
                # As a rate, so that more is better everywhere.
                runs.values.append(1 / seconds)
                runs.resident.append(resident)
                runs.loads.append(load)
            say(f"{round_}/{args.rounds}", name, f"{seconds:.3f} s", f"{resident / 1e9:.3f} GB", f"load {load:.2f}")
    for name, runs in results.items():
        others = peers(results, name)
        shape = f"prompt={PROMPT_TOKENS},threads={args.threads}"
        rate = median(runs.values)
        record.add(f"model/first_token_{args.label}/{name}/{shape}", 1e9 / rate, rate, runs.tier, runs.note(others))
        size = commands[name][0].model.stat().st_size
        most = max(runs.resident)
        note = f"bytes at most, anonymous and mapped; {most / size:.3f} of the file"
        record.add(f"model/resident_{args.label}/{name}/{shape}", None, most, runs.tier, note)
        for other in others:
            print(f"first token: time of {name} over {other.engine} {ratio(other, runs)}")
        print(f"first token: {name} has {most / 1e9:.3f} GB at most, {most / size:.3f} of the file")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file that every engine reads")
    parser.add_argument("--halfbyte", default="target/release/halfbyte", help="default: %(default)s")
    parser.add_argument("--packed", type=Path, metavar="FILE", help="the same model as `halfbyte pack` wrote it")
    parser.add_argument("--llama", metavar="PATH", help="llama-bench of llama.cpp, or its folder")
    parser.add_argument("--ik", metavar="PATH", help="llama-bench of ik_llama.cpp, or its folder")
    parser.add_argument("--ik-avx2", metavar="PATH", help="the same, built without AVX-512 and VNNI")
    parser.add_argument("--isa", default="", metavar="NAMES", help="tiers to force, with commas between; default: best")
    parser.add_argument("--kv", default="", metavar="NAMES", help="types of cache, with commas; default: that of halfbyte")
    parser.add_argument("--cases", default="pp512,tg64", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tune", action="store_true", help="find each peer's best flags first")
    parser.add_argument("--busy", action="store_true", help="each run again beside a process that spins on one core")
    parser.add_argument("--first-token", action="store_true", help="measure the start of the process instead")
    parser.add_argument("--label", help="the model's name in ids; default: that of the file")
    parser.add_argument("--record", type=Path, metavar="FILE", help="add rows to this CSV file")
    parser.add_argument("--note", default="", help="more about the machine and the builds, for the record")
    args = parser.parse_args()
    args.label = args.label or args.model.stem
    cases = [Case.parse(text) for text in args.cases.split(",")]

    halfbyte = program(args.halfbyte, "halfbyte")
    engines = []
    for isa, kv in product(args.isa.split(","), args.kv.split(",")):
        name = "-".join(["halfbyte"] + [part for part in (isa, kv) if part])
        engines.append(Engine(name, "halfbyte", halfbyte, args.model, isa, kv))
        if args.packed:
            engines.append(Engine(f"{name}-packed", "halfbyte", halfbyte, args.packed, isa, kv))
    if "int8" in args.kv.split(","):
        FLAGS["llama.cpp"] = [flags + Q8_CACHE for flags in FLAGS["llama.cpp"] if "on" in flags]
        FLAGS["ik_llama.cpp"] += [flags + Q8_CACHE for flags in FLAGS["ik_llama.cpp"] if flags[-1] == "1"]
    for name, family, path in [
        ("llama.cpp", "llama.cpp", args.llama),
        ("ik_llama.cpp", "ik_llama.cpp", args.ik),
        ("ik_llama.cpp-avx2", "ik_llama.cpp", args.ik_avx2),
    ]:
        if path:
            engines.append(Engine(name, family, program(path, "llama-bench"), args.model))

    method = f"{args.label}: medians of {args.rounds} rounds, engines in turn, a process each; {args.threads} threads"
    record = Record(machine(run([str(halfbyte), "--version"]).stdout.strip(), args.note), method)
    if args.first_token:
        first_token(engines, args, record)
    else:
        if args.tune:
            tune(engines, cases, args.threads)
        compare(engines, cases, args, record)
    if args.record:
        record.write(args.record)


if __name__ == "__main__":
    main()
