"""The results as pictures.

`overview`: ratios of every workload, and how the step time grows with batch, width and depth.
`side_by_side`: well-known nets in every library that a user would pick.
"""

import math
import textwrap

from .report import NAMES, machine_lines, time_text
from .results import Results
from .rounds import Row
from .workloads import OTHERS, WORKLOADS

COLORS = {
    "ours": "#1769aa",
    "torch": "#d9622b",
    "numpy": "#8a8f98",
    "jax": "#3d8f6b",
    "sklearn": "#c9a227",
    "pydynet": "#8c6bb1",
}
LABELS = {"ours": "mtorch", "numpy": "hand-written NumPy", **NAMES}
WELL_KNOWN = {
    "digit": "digit net 784-16-16-10, batch 20",
    "mlp": "dense net 784-512-512-10, batch 128",
    "lenet": "LeNet-5, batch 64",
    "cnn": "CNN of PyTorch's MNIST example, batch 64",
    "resnet": "ResNet of 10 layers, batch 64",
    "rnn-small": "RNN, 50 steps, 32 sequences, 32 units",
    "gru-small": "GRU, 50 steps, 32 sequences, 32 units",
    "lstm-small": "LSTM, 50 steps, 32 sequences, 32 units",
}
AXES = {
    "batch": "batch size of 784-512-512-10",
    "width": "width w of 784-w-w-10, batch 128",
    "depth": "layers of 784-64-…-10, batch 128",
}


def side_by_side(path: str, results: Results) -> None:
    """Bars of milliseconds a training step, a panel for each net, each with a scale of its own; none without rows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for name in WELL_KNOWN for row in results.rows if row.name == name and row.time("ours")]
    if not shown:
        return
    rows = [shown[i : i + 2] for i in range(0, len(shown), 2)]
    bars = [max(len(sides_of(row)) for row in pair) for pair in rows]
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(8, 1.3 + sum(0.21 * count + 0.42 for count in bars)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.06)
        panels = figure.subplots(len(rows), 2, squeeze=False, height_ratios=bars)
        for line, pair, count in zip(panels, rows, bars, strict=True):
            for axes, row in zip(line, pair, strict=False):
                panel(axes, row, count)
            for axes in line[len(pair) :]:
                axes.set_axis_off()
        figure.suptitle("Time of a training step: shorter is faster", x=0.01, ha="left", fontsize=13, weight="bold")
        figure.supxlabel(side_caption(results), fontsize=8, color="#666666", x=0.01, ha="left")
        figure.savefig(path, dpi=200, facecolor="white")
        plt.close(figure)


def sides_of(row: Row) -> list[str]:
    return [side for side in ("ours", *OTHERS) if row.time(side)]


def panel(axes, row: Row, places: int) -> None:
    """The bars of one net; one that is far longer than the next is cut, so that the others can be told apart."""
    sides = sides_of(row)
    times = [row.time(side) for side in sides]
    *_, second, end = sorted([0.0, *times])
    if len(times) > 2 and end > 4 * second:
        end = 1.6 * second
    for y, (side, seconds) in enumerate(zip(sides, times, strict=True)):
        axes.barh(y, min(seconds, end), color=COLORS[side], height=0.72)
        if seconds > end:
            for cut in (0.9, 0.94):
                axes.plot([cut * end, (cut + 0.02) * end], [y + 0.45, y - 0.45], color="white", linewidth=2)
        ratio = seconds / times[0]
        multiple = "" if side == "ours" else f"  × {ratio:.2f}" if ratio < 9.95 else f"  × {ratio:.0f}"
        text = f" {time_text(seconds)}{multiple}" + " *" * (side in row.differences())
        axes.text(min(seconds, end), y, text, va="center", fontsize=8.5, weight="bold" if side == "ours" else "normal")
    axes.set_xlim(0, 1.45 * end)
    axes.set_ylim(places - 0.4, -0.6)
    axes.set_yticks(range(len(sides)), [LABELS[side] for side in sides], fontsize=9)
    axes.get_yticklabels()[0].set_weight("bold")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.plot([0, 0], [-0.45, len(sides) - 0.55], color="#444444", linewidth=1)
    axes.set_title(WELL_KNOWN[row.name], loc="left", fontsize=9.5)


def side_caption(results: Results) -> str:
    """What was measured and where; versions of the libraries."""
    machine, versions = results.machine["machine"], results.machine["versions"]
    names = {"ours": "mtorch", "torch": "torch", "jax": "jax", "sklearn": "scikit-learn", "pydynet": "pydynet"}
    found = [f"{LABELS[side]} {versions[side][key]}" for side, key in names.items() if key in versions.get(side, {})]
    differs = dict.fromkeys(
        text for row in results.rows if row.name in WELL_KNOWN for text in row.differences().values()
    )
    lines = [
        "Forward, loss, backward and update in float32, first quartiles; × is a multiple of our time; cut bars go on.",
        f"{results.date}, {machine['cores']} cores of {machine['processor'].split(',')[0]}; {', '.join(found)}.",
        *(f"* {text}." for text in differs),
    ]
    return "\n".join(line for text in lines for line in textwrap.wrap(text, 118))


def overview(path: str, results: Results) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, scaling = results.rows, results.scaling
    first, *others = machine_lines(results.machine)
    caption = "\n".join([f"{results.date}, {first}", *textwrap.wrap("; ".join(others), 160)])
    shown = [row for row in rows if row.ratio("torch") or row.ratio("numpy")]
    heights = [1.1 + 0.3 * len(shown)] * bool(shown) + [3.6] * bool(scaling)
    if not heights:
        return
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(11, sum(heights) + 0.4), layout="constrained")
        parts = iter(figure.subfigures(len(heights), height_ratios=heights, squeeze=False).flat)
        if shown:
            ratios(next(parts).subplots(), shown)
        if scaling:
            panels = next(parts).subplots(1, len(scaling), squeeze=False)[0]
            for axes, (axis, line) in zip(panels, scaling.items(), strict=True):
                growth(axes, axis, line)
        figure.supxlabel(caption, fontsize=7.5, color="#666666")
        figure.savefig(path, dpi=130)
        plt.close(figure)


def ratios(axes, rows: list[Row]) -> None:
    for y, row in enumerate(reversed(rows)):
        for side, marker in (("numpy", "D"), ("jax", "s"), ("torch", "o")):
            ratio, goal = row.ratio(side), WORKLOADS[row.name].goals.get(side)
            if ratio:
                axes.plot(
                    ratio,
                    y,
                    marker,
                    color=COLORS[side],
                    markersize=6 if side == "torch" else 5,
                    zorder=3,
                    label=f"ratio to {LABELS[side]}",
                )
            if goal and ratio:
                axes.plot(goal, y, "|", color=COLORS[side], markersize=12, markeredgewidth=1.8, zorder=2, label="goal")
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [WORKLOADS[row.name].title for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.set_xlabel("our step time / theirs (left of 1: mtorch is faster)")
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    axes.legend(handles.values(), handles.keys(), frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)


def growth(axes, axis: str, line: list[tuple[int, Row]]) -> None:
    for side in ("numpy", "torch", "ours"):
        points = [(size, 1e3 * row.time(side)) for size, row in line if row.times.get(side)]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                "-o",
                color=COLORS[side],
                markersize=3,
                label=LABELS[side],
                linewidth=1.0 if side == "numpy" else 1.6,
            )
    sizes = [size for size, _ in line]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes[:: math.ceil(len(sizes) / 6)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("milliseconds a training step")
    axes.legend(frameon=False, fontsize=8)
