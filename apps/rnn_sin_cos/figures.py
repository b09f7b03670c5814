"""The pictures a run leaves: the curve it learned and how it came to it, the loss, and the net on its own."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy

from apps.rnn_sin_cos.free_run import Curves
from mtorch.checkpoint import write_atomically
from mtorch.data import sample_times

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

SHOWN = 5  # samples of sine in the picture
TRUE, GUESS, SINE, ERROR = "#444444", "#c1121f", "#2a6f97", "#c1121f"
EARLY = plt.get_cmap("viridis_r")


def save(figure: Any, path: Path) -> None:
    for panel in figure.axes:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120, metadata={"Software": None}))
    plt.close(figure)


def cosine(path: Path, cell: str, test: tuple[numpy.ndarray, ...], moments: dict[int, numpy.ndarray]) -> None:
    """Sine in; true and predicted cosine, now and at earlier moments; the error.

    test: sine and cosine (T, N, 1).  moments: step -> prediction (T, N, 1).
    """
    times = sample_times(0, SHOWN)
    figure, (above, middle, below) = plt.subplots(
        3, 1, figsize=(10, 7.5), sharex=True, layout="constrained", height_ratios=(1, 2, 1)
    )
    last = max(moments)
    early = {step: y for step, y in sorted(moments.items()) if step != last}
    for i in range(SHOWN):
        t = times[:, i]
        first = i == 0
        above.plot(t, test[0][:, i, 0], ".-", color=SINE)
        middle.plot(t, test[1][:, i, 0], "-", color=TRUE, lw=5, alpha=0.3, label="cosine" * first)
        for k, (step, y) in enumerate(early.items()):
            colour = EARLY(0.1 + 0.75 * k / max(len(early) - 1, 1))
            label = ("untrained" if step == 0 else f"after {step:,} steps") * first
            middle.plot(t, y[:, i, 0], "-", color=colour, lw=1, label=label)
        middle.plot(t, moments[last][:, i, 0], ".-", color=GUESS, lw=1.5, label=f"after {last:,} steps" * first)
        below.plot(t, moments[last][:, i, 0] - test[1][:, i, 0], ".-", color=ERROR)
        for panel in (above, middle, below):
            panel.axvline(t[0], color="0.7", lw=0.8, ls=":")
    title = f"{cell.upper()}: cosine from sine, each sample of ten steps from an empty state"
    above.set(ylabel="sine, read", title=title)
    middle.set(ylabel="cosine")
    below.set(ylabel="error", xlabel="time; a new sample begins at each dotted line, and there the sign is unknown")
    middle.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def following(path: Path, cell: str, test: tuple[numpy.ndarray, ...], moments: dict[int, numpy.ndarray]) -> None:
    """The noisy sine; the true and the predicted next points, now and at earlier moments; the error."""
    windows, noisy, clean = test
    places = numpy.arange(len(windows), len(windows) + len(noisy))
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 6.5), sharex=True, layout="constrained", height_ratios=(2, 1)
    )
    above.plot(places, noisy, ".", color="0.6", ms=4, label="points with noise")
    above.plot(places, clean, color=TRUE, lw=5, alpha=0.3, label="the sine behind them")
    last = max(moments)
    early = [step for step in sorted(moments) if step != last]
    for k, step in enumerate(early):
        label = "untrained" if step == 0 else f"after {step:,} steps"
        above.plot(places, moments[step], color=EARLY(0.1 + 0.75 * k / max(len(early) - 1, 1)), lw=0.8, label=label)
    above.plot(places, moments[last], color=GUESS, lw=1.5, label=f"after {last:,} steps")
    below.plot(places, moments[last] - clean, color=ERROR, lw=1)
    above.set(ylabel="value", title=f"{cell.upper()}: the next point from the four before it, on noise it has not seen")
    below.set(ylabel="error against\nthe sine", xlabel="point")
    above.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def losses(path: Path, cell: str, history: list[dict[str, Any]]) -> None:
    """The training loss and the test measures over the steps, on a logarithmic scale."""
    figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
    steps = [row["step"] for row in history]
    names = [name for name in history[0] if name != "step"]
    for name, colour, width in zip(names, ("#a9b4c2", SINE, GUESS), (5, 1.5, 1.5), strict=True):
        panel.plot(steps, [row[name] for row in history], color=colour, lw=width, label=name.replace("_", " "))
    if "test_mse" in names:
        panel.axhline(0.05, color="0.4", lw=1, ls="--", label="floor 0.05: the sign at the first step")
    panel.set(xlabel="step", ylabel="error", yscale="log", title=f"{cell.upper()}: error over training")
    panel.legend(frameon=False)
    save(figure, path)


def free_run(path: Path, cell: str, curves: Curves) -> None:
    """The net beyond its ten steps: reading on, and on its own."""
    t, start = curves.time, curves.time[curves.trained - 1]
    figure, panels = plt.subplots(
        4, 1, figsize=(11, 8.5), sharex=True, layout="constrained", height_ratios=(2, 1, 2, 1)
    )
    panels[0].plot(t, numpy.cos(t), color=TRUE, lw=5, alpha=0.3, label="cosine")
    panels[0].plot(t, curves.reading, ".-", color=GUESS, ms=3, lw=1, label="the net's cosine")
    panels[0].set(title=f"{cell.upper()} reading on: sine is given, the state is its own from the eleventh step")
    panels[1].plot(t[1:], (curves.reading - numpy.cos(t))[1:], color=ERROR, lw=1)
    panels[2].plot(t, numpy.cos(t), color=TRUE, lw=5, alpha=0.3, label="cosine")
    panels[2].plot(t, curves.own_cosine, ".-", color=GUESS, ms=3, lw=1, label="the net's cosine")
    panels[2].plot(t, curves.own_sine, "-", color=SINE, lw=1, label="the sine made from it")
    panels[2].set(title="On its own: each next sine is made from the last one and the net's cosine")
    panels[3].plot(t[1:], (curves.own_cosine - numpy.cos(t))[1:], color=ERROR, lw=1)
    panels[3].set(xlabel="time; trained were the ten steps up to the dotted line")
    for panel, name in zip(panels, ("cosine", "error from\nstep 2", "value", "error from\nstep 2"), strict=True):
        panel.set_ylabel(name)
        panel.axvline(start, color="0.4", lw=1, ls=":")
    for panel in (panels[0], panels[2]):
        panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)
