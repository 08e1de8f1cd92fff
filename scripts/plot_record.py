#!/usr/bin/env python3
"""Draws records of benches/record as SVG files and writes their tables into a README.

    plot_record.py benches/record/x86_64-unknown-linux-gnu/2026-12-*.csv --readme benches/README.md

Beside a record appear its pictures: `*-models.svg` (our rate over that of each peer, whole models), `*-peers-*.svg`
(products beside other engines) and `*-tiers-*.svg` (products of each tier), as far as it has rows for them. The
lines of the README between `<!-- record -->` and `<!-- end of record -->` are replaced.

Python's standard library is enough.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench_record import FIRST, read

# Readable on white for all kinds of sight (Okabe and Ito 2008). The white is part of the picture: a dark page changes
# nothing.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c8c", "#5a4fa2", "#999933", "#222222"]
RATIO = re.compile(r"rate over (\S+) ([\d.]+) \(([\d.]+) to ([\d.]+)\)")
WIDTH, LEFT, BAR, GAP, TOP = 960, 370, 15, 12, 64


@dataclass
class Bar:
    """A value of a series, with the range it was seen in."""

    series: str
    value: float
    low: float = None
    high: float = None


def number(value):
    """Three digits at least."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def text(x, y, content, anchor="start", size=13, colour="#222"):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="{colour}">{escape(content)}</text>'


def box(x, y, width, height, colour):
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def line(x1, y1, x2, y2, style='stroke="#222"'):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def steps(most):
    """Round numbers from 0 to `most`, at most eight."""
    step = 10 ** len(str(int(most)))
    for divisor in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if most / (step / divisor) > 8:
            break
        best = step / divisor
    return [n * best for n in range(int(most / best) + 1)]


def chart(title, unit, groups, mark=None):
    """Bars from the left in groups `(label, [Bar])`; `mark` is a value to draw a line at."""
    series = list(dict.fromkeys(bar.series for _, bars in groups for bar in bars))
    colours = dict(zip(series, COLOURS * (len(series) // len(COLOURS) + 1)))
    # A range that leaves the picture is cut off.
    most = max(bar.value for _, bars in groups for bar in bars) * 1.2
    scale = (WIDTH - LEFT - 20) / most
    height = TOP + sum(len(bars) * BAR + GAP for _, bars in groups) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        box(0, 0, WIDTH, height, "#ffffff"),
        text(16, 24, title, size=16),
    ]
    x = 16
    for name in series:
        out.append(box(x, 36, 11, 11, colours[name]))
        out.append(text(x + 15, 46, name, size=12))
        x += 32 + 7 * len(name)
    for value in steps(most):
        x = LEFT + value * scale
        out.append(line(x, TOP - 8, x, height - 30, 'stroke="#ddd"'))
        out.append(text(x, height - 14, f"{value:g}", "middle", 12, "#555"))
    y = TOP
    for label, bars in groups:
        out.append(text(LEFT - 8, y + len(bars) * BAR / 2 + 4, label, "end"))
        for bar in bars:
            x = LEFT + bar.value * scale
            out.append(box(LEFT, y + 1, x - LEFT, BAR - 2, colours[bar.series]))
            end, middle = x, y + BAR / 2
            if bar.low is not None:
                low, end = LEFT + bar.low * scale, max(x, LEFT + min(bar.high, most * 0.95) * scale)
                out.append(line(low, middle, end, middle))
                out += [line(x, middle - 3, x, middle + 3) for x in (low, end)]
            out.append(text(end + 5, middle + 4, number(bar.value), size=11))
            y += BAR
        y += GAP
    if mark is not None:
        x = LEFT + mark * scale
        out.append(line(x, TOP - 8, x, height - 30, 'stroke="#222" stroke-dasharray="4 3"'))
    out.append(text(LEFT - 8, height - 14, unit, "end", 12, "#555"))
    return "\n".join([*out, "</svg>", ""])


def ratios(row):
    """Our rate over that of others: name, ratio, least, most."""
    found = RATIO.findall(row["note"]) if row["id"].split("/")[-2].startswith("halfbyte") else []
    return [(name, *map(float, numbers)) for name, *numbers in found]


def parts(row):
    """Operation, engine or tier, and shape of an id."""
    return row["id"].split("/", 3)[1:]


def model_groups(rows):
    """Whole models: a group for each case and each of our engines."""
    groups = []
    for row in rows:
        if row["id"].startswith("model/") and ratios(row):
            operation, engine, shape = parts(row)
            sizes = dict(part.split("=") for part in shape.split(","))
            words = [operation.replace("_", " ")]
            words += [f"after {sizes['depth']}"] if "depth" in sizes else []
            words += ["1 thread"] if sizes["threads"] == "1" else []
            words += ["beside a busy process"] if "busy" in sizes else []
            words += [engine.removeprefix("halfbyte-")] if engine != "halfbyte" else []
            groups.append((", ".join(words), [Bar(*ratio) for ratio in ratios(row)]))
    return groups


def product_groups(rows, kind, wanted):
    """Rates in 1e9 of ids that begin with `kind`: a group for each operation and shape, a bar for each engine."""
    groups = {}
    for row in rows:
        if row["id"].startswith(kind) and row["unit_per_s"]:
            operation, engine, shape = parts(row)
            if wanted(operation, engine, shape):
                sizes = dict(part.split("=") for part in shape.split(","))
                label = f"{operation.split('_', 1)[1]}, {sizes['rows']} x {sizes['depth']}"
                label += f", {sizes['tokens']} tokens" if "tokens" in sizes else ""
                bars = groups.setdefault(label, [])
                bars.append(Bar(engine, float(row["unit_per_s"]) / 1e9))
    return list(groups.items())


def charts(rows):
    """Name of a file and its picture, for what there are rows for."""

    def all_(*_):
        return True

    def fast(_operation, tier, _shape):
        return tier not in ("scalar", "portable")

    def many(operation, tier, shape):
        return fast(operation, tier, shape) and ("tokens=512" in shape or "rows=96" in shape)

    gemm, gemv = "1e9 multiplications/s", "GB of weights/s"
    for name, title, unit, groups in [
        ("models", "Whole models: rate of halfbyte over that of others", "times", model_groups(rows)),
        ("peers-gemm", "Products with many tokens, one thread", gemm, product_groups(rows, "peers/gemm", all_)),
        ("peers-gemv", "Products with one token, one thread", gemv, product_groups(rows, "peers/gemv", all_)),
        ("tiers-gemm", "Tiers: products with many tokens, one thread", gemm, product_groups(rows, "matmul/gemm", many)),
        ("tiers-gemv", "Tiers: products with one token, one thread", gemv, product_groups(rows, "matmul/gemv", fast)),
    ]:
        if groups:
            yield name, title, chart(title, unit, groups, 1 if name == "models" else None)


def table(rows):
    """Whole models as lines of Markdown: ours, beside others."""
    lines = ["| case | engine | tier | median | over others (least to most) | of read bandwidth |", "|---" * 6 + "|"]
    for row in rows:
        if not row["id"].startswith("model/") or not row["id"].split("/")[2].startswith("halfbyte"):
            continue
        operation, engine, shape = parts(row)
        rate = float(row["unit_per_s"])
        units = {"first": f"{1 / rate:.3g} s", "resident": f"{rate / 1e9:.3f} GB"}
        amount = units.get(operation.split("_")[0], f"{number(rate)} tokens/s")
        over = ", ".join(f"{name} {value:.2f} ({low:.2f} to {high:.2f})" for name, value, low, high in ratios(row))
        share = re.search(r"([\d.]+) \([^)]*\) of the bandwidth", row["note"])
        share = f"{float(share[1]):.2f}" if share else ""
        if operation.startswith("resident"):
            over = row["note"].split("; ")[-1]
        case = f"{operation.replace('_', ' ')}, {shape.replace(',', ', ')}"
        lines.append(f"| {case} | {engine} | {row['tier']} | {amount} | {over} | {share} |")
    return lines if len(lines) > 2 else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD")
    parser.add_argument("--readme", type=Path, help="also replace the part of this file that is made from records")
    args = parser.parse_args()
    lines = []
    for record in args.records:
        rows = read(record)
        lines += ["", f"From `{record.name}`:", ""]
        lines += [f"- {row['id']}: {row['note']}" for row in rows if row["id"] in FIRST]
        lines += ["", *table(rows)]
        for name, title, picture in charts(rows):
            path = record.with_name(f"{record.stem}-{name}.svg")
            path.write_text(picture)
            print(path)
            if args.readme:
                lines += ["", f"![{title}]({path.absolute().relative_to(args.readme.absolute().parent)})"]
    if args.readme:
        before, rest = args.readme.read_text().split("<!-- record -->\n", 1)
        _, after = rest.split("<!-- end of record -->\n", 1)
        body = "\n".join(lines[1:])
        args.readme.write_text(f"{before}<!-- record -->\n{body}\n<!-- end of record -->\n{after}")


if __name__ == "__main__":
    main()
