#!/usr/bin/env python3
"""The CSV files of benches/record: `id,median_ns,unit_per_s,tier,note`, rows `machine` and `method` first.

Run alone, it writes what `cargo bench` left behind:

    cargo bench -p halfbyte-benches | tee bench.log
    bench_record.py target/criterion benches/record/x86_64-unknown-linux-gnu/2026-12-31.csv --log bench.log --since 60
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import time
from datetime import date
from pathlib import Path
from statistics import median

COLUMNS = ["id", "median_ns", "unit_per_s", "tier", "note"]
FIRST = ["machine", "method"]


def spread(values):
    """`median (least to most)`."""
    middle, low, high = (f"{x:.4g}" if x < 10_000 else f"{x:.0f}" for x in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def number(value):
    """Six digits or all before the point; nothing for None."""
    return "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.6g}"


def machine(version, note):
    """What this machine is."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            cpu = value.strip()
            break
    cores = len(os.sched_getaffinity(0))
    parts = [f"{date.today()}", cpu, f"{cores} cores", f"{platform.system()} {platform.release()}", version]
    return "; ".join(part for part in [*parts, note] if part)


def read(path):
    """The rows of a record, as dictionaries."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Record:
    """Rows of one measurement."""

    def __init__(self, machine, method):
        self.rows = [
            dict(zip(COLUMNS, ["machine", "", "", "", machine])),
            dict(zip(COLUMNS, ["method", "", "", "", method])),
        ]

    def add(self, id_, median_ns, unit_per_s, tier, note):
        values = [id_, number(median_ns), number(unit_per_s), tier, note]
        self.rows.append(dict(zip(COLUMNS, values)))

    def write(self, path):
        """Adds the rows to a file of today; what was measured before stays as it is."""
        rows = read(path) if path.exists() else []
        rows += [row for row in self.rows if row not in rows]
        rows.sort(key=lambda row: FIRST.index(row["id"]) if row["id"] in FIRST else len(FIRST))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def criterion(folder, since):
    """Results not older than `since` minutes: id, median in ns, units per second, range."""
    for path in sorted(Path(folder).glob("**/new/benchmark.json")):
        if time.time() - path.stat().st_mtime > 60 * since:
            continue
        benchmark, sample = (json.loads(path.with_name(f"{name}.json").read_text()) for name in ("benchmark", "sample"))
        each = [ns / iterations for ns, iterations in zip(sample["times"], sample["iters"])]
        units = sum(benchmark["throughput"].values())
        middle = median(each)
        yield benchmark["full_id"], middle, units * 1e9 / middle, f"{min(each):.0f} to {max(each):.0f} ns"


def shares(log):
    """What products reached of the peak, as `cargo bench` printed it below their ids."""
    found, id_ = {}, None
    for line in log.read_text().splitlines():
        if line.startswith("matmul/"):
            id_ = line.split()[0]
        elif line.split()[:1] == ["peak:"]:
            found[id_] = line.split("peak:")[1].strip()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("criterion", type=Path, help="criterion's folder, below target")
    parser.add_argument("record", type=Path, help="add rows to this CSV file")
    parser.add_argument("--log", type=Path, help="what `cargo bench` printed, for parts of the peak")
    parser.add_argument("--since", type=float, default=1e9, metavar="MINUTES", help="leave out what is older")
    parser.add_argument("--note", default="", help="more about the machine, for the record")
    args = parser.parse_args()
    results = list(criterion(args.criterion, args.since))
    of_peak = shares(args.log) if args.log else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    record = Record(
        machine(f"commit {commit}", args.note),
        f"criterion: medians of samples, one thread; load average at the end {load}",
    )
    for id_, ns, rate, note in results:
        tier = id_.split("/")[2] if id_.count("/") > 2 else ""
        record.add(id_, ns, rate, tier, "; ".join([note, of_peak[id_]] if id_ in of_peak else [note]))
    record.write(args.record)


if __name__ == "__main__":
    main()
