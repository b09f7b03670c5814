"""The results as a table for people (plain or Markdown) and as a dictionary for machines."""

import datetime

from .rounds import QUIET, Row
from .workloads import FLOORS, WORKLOADS

HEAD = [
    "workload",
    "ours",
    "PyTorch",
    "by hand",
    "ours / PyTorch",
    "goal",
    "ours / by hand",
    "goal",
    "products",
    "passes",
]


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            value = seconds * scale
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def cell(row: Row, side: str) -> str:
    if side not in WORKLOADS[row.name].sides:
        return "–"
    if side not in row.times:
        return "missing" if side == "ours" else ""
    return f"{time_text(row.median(side))} ±{100 * row.spread(side):.0f} %"


def cells(row: Row) -> list[str]:
    workload = WORKLOADS[row.name]
    line = [workload.title, *(cell(row, side) for side in ("ours", "torch", "numpy"))]
    for side in ("torch", "numpy"):
        ratio, goal = row.ratio(side), workload.goals.get(side)
        mark = "" if ratio is None or goal is None or ratio <= goal else " !"
        if mark and side == "torch" and row.out_of_reach(goal):
            mark = " †"
        line.append("" if ratio is None else f"{ratio:.2f}{mark}")
        line.append("" if goal is None else f"≤ {goal:.2f}")
    return [*line, *(time_text(row.median(side)) for side in FLOORS)]


def joined(line: list[str], widths: list[int], markdown: bool = False) -> str:
    padded = [line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))]
    return "| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip()


def table(head: list[str], lines: list[list[str]], markdown: bool = False) -> str:
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = [("-" * (w - 1) + ":") if markdown and i else "-" * w for i, w in enumerate(widths)]
    return "\n".join(joined(line, widths, markdown) for line in [head, rule, *lines])


class RowPrinter:
    """Prints the table row by row, as the rows are measured."""

    def __init__(self, names: list[str]) -> None:
        self.widths = [max(map(len, [HEAD[0], *(WORKLOADS[name].title for name in names)])), *map(len, HEAD[1:])]
        self.widths[1:4] = [14, 14, 14]
        self.widths[5] = self.widths[7] = 6
        self.widths[8] = self.widths[9] = 8
        if names:
            print(joined(HEAD, self.widths), joined(["-" * w for w in self.widths], self.widths), sep="\n", flush=True)

    def __call__(self, row: Row) -> Row:
        print(joined(cells(row), self.widths), flush=True)
        return row


def notes(rows: list[Row]) -> list[str]:
    """One line for everything that has no number, and one for the company that the numbers had."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for side, reason in row.notes.items():
            reasons.setdefault(f"{side}: {reason}", []).append(row.name)
    lines = [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]
    shares = [share for row in rows for turns in row.disturbed.values() for share in turns]
    loud = sum(share >= QUIET for share in shares)
    if loud:
        lines.append(
            f"other processes had {QUIET:.0%} of the machine or more in {loud} of {len(shares)} turns "
            f"({max(shares):.0%} at worst): run again on an idle machine before you trust a ratio"
        )
    return lines


def machine_lines(machine: dict) -> list[str]:
    lines = [", ".join(f"{key} {value}" for key, value in machine["machine"].items())]
    for side, found in machine["versions"].items():
        if found:
            lines.append(f"{side}: " + ", ".join(f"{key} {value}" for key, value in found.items()))
    return lines


def as_dict(machine: dict, rows: list[Row], scaling: dict[str, list[tuple[int, Row]]], extras: dict) -> dict:
    def one(row: Row) -> dict:
        workload = WORKLOADS[row.name]
        return {
            "name": row.name,
            "title": workload.title,
            "goals": workload.goals,
            "notes": row.notes,
            "seconds": {side: row.median(side) for side in row.times},
            "spread": {s: row.spread(s) for s in row.times},
            "ratio": {side: row.ratio(side) for side in ("torch", "numpy") if side in workload.sides},
            "rounds": row.times,
            "disturbed": row.disturbed,
        }

    return {
        "date": datetime.date.today().isoformat(),
        **machine,
        "rows": [one(row) for row in rows],
        "scaling": {axis: [{"size": size, **one(row)} for size, row in line] for axis, line in scaling.items()},
        **extras,
    }


def extra_tables(scaling: dict, extras: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and lines of every table after the first."""
    tables = []
    sides = ("ours", "torch", "numpy")
    if found := extras.get("cold_start"):
        lines = []
        for what, times in found.items():
            pair = times["ours"], times["torch"]
            lines.append(
                [
                    what,
                    *(time_text(times[side]) for side in sides),
                    time_text(times["python"]),
                    f"{pair[0] / pair[1]:.2f}" if all(pair) else "",
                ]
            )
        tables.append(
            (
                "Cold start: seconds of a fresh process (digit net)",
                ["until", "ours", "PyTorch", "by hand", "bare python", "ours / PyTorch"],
                lines,
            )
        )
    if found := extras.get("memory"):
        lines = [
            [
                what,
                *(f"{found[s][key]:.0f} MiB" if s in found else "" for s in sides),
                f"{found['ours'][key] / found['torch'][key]:.2f}" if {"ours", "torch"} <= set(found) else "",
            ]
            for what, key in (("five CNN steps, beyond the imports", "growth"), ("the whole process", "peak"))
        ]
        tables.append(("Peak memory", ["of", "ours", "PyTorch", "by hand", "ours / PyTorch"], lines))
    if found := extras.get("lenet_to_99"):
        lines = []
        for what, key in (("process start to 99 % tested", "seconds"), ("one epoch", "seconds_an_epoch")):
            ours, workers, theirs = times = [found[side][key] for side in ("ours", "workers", "torch")]
            lines.append(
                [
                    what,
                    *(time_text(value) if value else "not reached" for value in times),
                    *(f"{mine / theirs:.2f}" if mine and theirs else "" for mine in (ours, workers)),
                ]
            )
        tables.append(
            (
                "LeNet-5 on MNIST: python -m apps.mnist --model lenet, median over seeds",
                ["seconds of", "ours", "--workers", "PyTorch", "ours / PyTorch", "--workers / PyTorch"],
                lines,
            )
        )
    for axis, line in scaling.items():
        lines = [
            [
                str(size),
                *(time_text(row.median(side)) for side in sides),
                *("" if row.ratio(side) is None else f"{row.ratio(side):.2f}" for side in ("torch", "numpy")),
            ]
            for size, row in line
        ]
        tables.append(
            (f"Step time by {axis}", [axis, "ours", "PyTorch", "by hand", "ours / PyTorch", "ours / by hand"], lines)
        )
    return tables


def remainder(rows: list[Row], scaling: dict, extras: dict) -> str:
    parts = [f"{title}\n{table(head, lines)}" for title, head, lines in extra_tables(scaling, extras)]
    parts += ["\n".join(notes([*rows, *(row for line in scaling.values() for _, row in line)]))]
    return "\n\n".join(filter(None, parts))


def markdown(date: str, machine: dict, rows: list[Row], scaling: dict, extras: dict) -> str:
    parts = [
        "# Step times",
        f"Made on {date} by `python -m benchmarks --write`: medians over rounds in which the libraries take turns, "
        "each in its own process, ± half the range between the quartiles. A step is forward, loss value, backward and "
        "update in float32; a `!` marks a ratio above its goal. The floor of a step in NumPy is the time of its matrix "
        "products alone, written into arrays that exist already (one image, digit net: of the bare NumPy calls on "
        "vectors), and of the passes over memory that the rest cannot do without, at the speed of a copy. Where a goal "
        "is below that floor, and so out of reach for NumPy on this machine, the mark is a `†`. A net as "
        "`DataParallel` divides each batch among as many processes as there are cores; PyTorch uses all cores anyway.",
        "\n".join(f"- {line}" for line in machine_lines(machine)),
    ]
    if rows:
        parts.append(table(HEAD, [cells(row) for row in rows], markdown=True))
    parts += [
        f"## {title}\n\n{table(head, lines, markdown=True)}" for title, head, lines in extra_tables(scaling, extras)
    ]
    parts.append("![ratios and scaling](results.png)")
    remarks = notes([*rows, *(row for line in scaling.values() for _, row in line)])
    if remarks:
        parts.append("\n".join(f"- {line}" for line in remarks))
    return "\n\n".join(parts) + "\n"
