"""The results as tables for people, plain or Markdown."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from . import busy
from .pairs import Pairs
from .results import Results
from .rounds import QUIET, Row, first_quartile
from .workloads import OTHERS, PARTS, WORKLOADS

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
    "our calls",
]
LEGEND = """First quartiles ± half the range between the quartiles; ratios are ours over theirs; "!" is above the goal.
"products" and "passes": what the matrix products and the passes over memory take alone ("†": no room for the goal).
"our calls": the bare NumPy calls of the time steps of a small GRU or LSTM."""
NAMES = {"torch": "PyTorch", "jax": "jax.jit", "sklearn": "scikit-learn", "pydynet": "PyDyNet"}


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
    return f"{time_text(row.time(side))} ±{100 * row.spread(side):.0f} %"


def cells(row: Row) -> list[str]:
    workload = WORKLOADS[row.name]
    line = [workload.title, *(cell(row, side) for side in ("ours", "torch", "numpy"))]
    for side in ("torch", "numpy"):
        line += ratio_and_goal(row, side)
    return [*line, *(time_text(row.time(side)) for side in PARTS)]


def ratio_and_goal(row: Row, side: str) -> list[str]:
    ratio, goal = row.ratio(side), WORKLOADS[row.name].goals.get(side)
    mark = "" if ratio is None or goal is None or ratio <= goal else " !"
    if mark and side in OTHERS and row.out_of_reach(side, goal):
        mark = " †"
    return ["" if ratio is None else f"{ratio:.2f}{mark}", "" if goal is None else f"≤ {goal:.2f}"]


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
        self.widths[8:] = [8, 8, 9]
        if names:
            print(LEGEND, end="\n\n")
            print(joined(HEAD, self.widths), joined(["-" * w for w in self.widths], self.widths), sep="\n", flush=True)

    def __call__(self, row: Row) -> Row:
        print(joined(cells(row), self.widths), flush=True)
        return row


def notes(rows: Iterable[Row]) -> list[str]:
    """One line for everything that has no number, and one for the company that the numbers had."""
    rows, reasons = list(rows), {}  # reason -> the rows, each once
    for row in rows:
        for side, reason in row.notes.items():
            reasons.setdefault(f"{side}: {reason}", {})[row.name] = None
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


class Table(NamedTuple):
    title: str
    head: list[str]
    lines: list[list[str]]
    remark: str = ""


def alternatives(rows: list[Row]) -> Table:
    """The other libraries that a user would pick, where a row has more of them than PyTorch."""
    lines, differences = [], {}
    for row in rows:
        workload, fastest = WORKLOADS[row.name], row.fastest_other()
        if not any(side in workload.sides for side in OTHERS[1:]):
            continue
        line = [workload.title, time_text(row.time("ours"))]
        for side in OTHERS:
            mark = " *" if side in row.differences() else ""
            line.append(time_text(row.time(side)) + mark if side in workload.sides else "–")
        differences |= dict.fromkeys(row.differences().values())
        line += ratio_and_goal(row, "torch") + ratio_and_goal(row, "jax")
        line.append(f"{row.ratio(fastest):.2f} ({NAMES[fastest]})" if fastest and row.ratio(fastest) else "")
        lines.append(line)
    head = ["workload", "ours", *NAMES.values()]
    head += ["ours / PyTorch", "goal", "ours / jax.jit", "goal", "ours / the fastest of the others"]
    return Table("What a user would pick instead", head, lines, " ".join(f"* {text}." for text in differences))


def beside(rows: list[Row]) -> Table:
    """Step times alone and beside a loop that keeps a core busy, with the default number of threads and with one."""

    def times(row: Row, side: str) -> list[str]:
        keys = [f"{key} {place}" for key in (side, f"{side} one thread") for place in busy.PLACES]
        return [time_text(row.time(key)) for key in keys]

    def ratio(row: Row, place: str) -> str:
        found = busy.ratio_to_better(row, "ours", place)
        return "" if found is None else f"{found:.2f}" + " !" * (found > busy.GOAL)

    head = [
        "workload",
        "ours alone",
        "beside",
        "1 thread alone",
        "beside",
        "ratio alone",
        "ratio beside",
        "PyTorch alone",
        "beside",
        "1 thread alone",
        "beside",
    ]
    ratios = {row.name: [ratio(row, place) for place in busy.PLACES] for row in rows}
    lines = [[WORKLOADS[row.name].title, *times(row, "ours"), *ratios[row.name], *times(row, "torch")] for row in rows]
    remark = (
        "Alone, and beside a Python loop that keeps one core busy; with the default number of threads, and with one by "
        "OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1. A ratio is our time with the default number of threads over the "
        f"better of the two in the same place; its goal is {busy.GOAL}, and `!` marks one above."
    )
    return Table("Beside a busy process", head, lines, remark)


def earlier(found: dict) -> Table:
    """Step times against those of an earlier commit, in fresh processes."""
    lines, counts = [], set()
    for name, times in found["rows"].items():
        if name in WORKLOADS:
            pairs = Pairs(**times)
            low, high = pairs.range()
            own = time_text(first_quartile(pairs.now)), time_text(first_quartile(pairs.then))
            lines.append([WORKLOADS[name].title, *own, f"{pairs.ratio():.3f}", f"{low:.3f} to {high:.3f}"])
            counts.add(str(len(pairs.now)))
    remark = (
        f"Made on {found['date']} by `python -m benchmarks.since {found['commit']} --write`. Two processes of the same "
        "code can differ by 5 % for as long as they live, so each version had "
        f"{' or '.join(sorted(counts))} fresh processes, in pairs. A time is their first quartile; the ratio is the "
        "median of the pairs, and so not the quotient of the two times. With 95 % confidence the true median of such "
        "pairs is in the range."
    )
    head = ["workload", "now", "then", "now / then", "range"]
    return Table(f"Alone, against commit {found['commit']}", head, lines, remark)


def other_tables(results: Results) -> list[Table]:
    """Every table after the first."""
    tables = [found for found in (alternatives(results.rows), beside(results.busy)) if found.lines]
    if found := results.more.get("since"):
        tables.append(earlier(found))
    sides = ("ours", "torch", "numpy")
    if found := results.more.get("cold_start"):
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
            Table(
                "Cold start: seconds of a fresh process (digit net)",
                ["until", "ours", "PyTorch", "by hand", "bare python", "ours / PyTorch"],
                lines,
            )
        )
    if found := results.more.get("memory"):
        lines = [
            [
                what,
                *(f"{found[s][key]:.0f} MiB" if s in found else "" for s in sides),
                f"{found['ours'][key] / found['torch'][key]:.2f}" if {"ours", "torch"} <= set(found) else "",
            ]
            for what, key in (("five CNN steps, beyond the imports", "growth"), ("the whole process", "peak"))
        ]
        tables.append(Table("Peak memory", ["of", "ours", "PyTorch", "by hand", "ours / PyTorch"], lines))
    if found := results.more.get("lenet_to_99"):
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
            Table(
                "LeNet-5 on MNIST: python -m apps.mnist --model lenet, median over seeds",
                ["seconds of", "ours", "--workers", "PyTorch", "ours / PyTorch", "--workers / PyTorch"],
                lines,
            )
        )
    for axis, line in results.scaling.items():
        lines = [
            [
                str(size),
                *(time_text(row.time(side)) for side in sides),
                *("" if row.ratio(side) is None else f"{row.ratio(side):.2f}" for side in ("torch", "numpy")),
            ]
            for size, row in line
        ]
        tables.append(
            Table(
                f"Step time by {axis}", [axis, "ours", "PyTorch", "by hand", "ours / PyTorch", "ours / by hand"], lines
            )
        )
    return tables


def remainder(results: Results) -> str:
    parts = [
        "\n".join(filter(None, (each.title, table(each.head, each.lines), each.remark)))
        for each in other_tables(results)
    ]
    parts += ["\n".join(notes(results))]
    return "\n\n".join(filter(None, parts))


def markdown(results: Results) -> str:
    rounds = max((len(times) for row in results.rows for times in row.times.values()), default="some")
    parts = [
        "# Step times",
        f"Made on {results.date} by `python -m benchmarks --write`: the first quartile of {rounds} rounds in "
        "which the libraries take turns, each in its own process, ± half the range between the quartiles. Other "
        "programs, here or on the same host, make a turn longer and not shorter, so the quicker turns tell more. A "
        "step is forward, loss value, backward and update in float32; a `!` marks a ratio above its goal. The floor of "
        "a step in NumPy "
        "is the time of its matrix products alone, written into arrays that exist already (one image, digit net: of "
        "the bare NumPy calls on vectors), and of the passes over memory that the rest cannot do without, each at the "
        "speed of a copy by one thread. Where a goal is below that floor, and so out of reach for NumPy in one process "
        "on this machine, the mark is a `†`. `our calls` are the bare NumPy calls of the time steps of a small GRU or "
        "LSTM, as we make them, on arrays that exist already. A net as `DataParallel` divides each batch among as many "
        "processes as there are cores; PyTorch uses all cores anyway.",
        "\n".join(f"- {line}" for line in machine_lines(results.machine)),
    ]
    if results.rows:
        parts.append(table(HEAD, [cells(row) for row in results.rows], markdown=True))
    for each in other_tables(results):
        parts += [f"## {each.title}", table(each.head, each.lines, markdown=True)]
        parts += [each.remark.replace("* ", "\\* ")] if each.remark else []
    parts.append("![ratios and scaling](results.png)")
    remarks = notes(results)
    if remarks:
        parts.append("\n".join(f"- {line}" for line in remarks))
    return "\n\n".join(parts) + "\n"


def write(results: Results, folder: Path) -> None:
    (folder / "results.json").write_text(results.as_json())
    (folder / "RESULTS.md").write_text(markdown(results))
