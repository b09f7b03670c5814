"""The results as a picture: ratios of every workload, and how the step time grows with batch, width and depth."""

import math

from .rounds import Row
from .workloads import WORKLOADS

COLORS = {"ours": "#1769aa", "torch": "#d9622b", "numpy": "#8a8f98"}
LABELS = {"ours": "mtorch", "torch": "PyTorch", "numpy": "hand-written NumPy"}
AXES = {
    "batch": "batch size of 784-512-512-10",
    "width": "width w of 784-w-w-10, batch 128",
    "depth": "layers of 784-64-…-10, batch 128",
}


def draw(path: str, rows: list[Row], scaling: dict[str, list[tuple[int, Row]]], caption: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row.ratio("torch") or row.ratio("numpy")]
    heights = [1.1 + 0.3 * len(shown)] * bool(shown) + [3.6] * bool(scaling)
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
        for side, marker in (("numpy", "D"), ("torch", "o")):
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
    axes.legend(handles.values(), handles.keys(), frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def growth(axes, axis: str, line: list[tuple[int, Row]]) -> None:
    for side in ("numpy", "torch", "ours"):
        points = [(size, 1e3 * row.median(side)) for size, row in line if row.times.get(side)]
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
