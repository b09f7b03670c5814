"""An inspection as a figure."""

from math import isfinite, log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtorch.insight.inspection import Inspection, Record

BLUE, ORANGE, GREY, RED = "#2f6db3", "#d9822b", "#8a919c", "#c23b4b"
MOST_NAMES = 24  # more layers than that are numbered sparsely


def pyplot() -> Any:
    """matplotlib.pyplot; an error of one line where it is missing."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        text = "plot() needs matplotlib; in the clone: pip install -e '.[plot]'"
        raise ImportError(text, name="matplotlib") from error
    return pyplot


def figure(found: "Inspection") -> Any:
    """Outputs, dead and saturated shares, gradients; and for sequences the gradient at every step."""
    plt = pyplot()
    timed = [r for r in found if sum(v > 0 for v in r.input_over_time or ()) > 1]
    width = max(6.4, min(14, 1.8 + 0.55 * len(found)))
    height = 7.4 + 2.2 * bool(timed)
    fig, axes = plt.subplots(3 + bool(timed), 1, figsize=(width, height), layout="constrained")
    outputs(axes[0], found)
    shares(axes[1], found)
    gradients(axes[2], found)
    if timed:
        over_time(axes[3], timed)
    names = [f"{r.name}\n{type(r.layer).__name__}" if r.name else type(r.layer).__name__ for r in found]
    places, every = range(len(names)), 1 + (len(names) - 1) // MOST_NAMES
    for axis in axes[:3]:
        axis.set_xlim(-0.6, len(found) - 0.4)
        axis.set_xticks(places[::every], [])
    slant = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    axes[2].set_xticks(places[::every], names[::every], fontsize=8, **slant)
    for axis in axes:
        axis.title.set_size(10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
        axis.set_axisbelow(True)
    fig.suptitle(f"{found.title}: {found.loss_name} {found.loss:.4g}", fontsize=11)
    return fig


def outputs(axis: Any, found: "Inspection") -> None:
    known = [(place, r.mean, r.std) for place, r in enumerate(found) if isfinite(r.mean) and isfinite(r.std)]
    places, means, stds = zip(*known, strict=True) if known else ((), (), ())
    axis.vlines(places, [m - s for _, m, s in known], [m + s for _, m, s in known], color=BLUE, linewidth=7, alpha=0.4)
    axis.plot(places, means, "o", color=BLUE, markersize=4)
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_title("outputs: mean, and one standard deviation either way")


def shares(axis: Any, found: "Inspection") -> None:
    dead = [(place - 0.2, 100 * r.dead) for place, r in enumerate(found) if isfinite(r.dead)]
    full = [(place + 0.2, 100 * r.saturated) for place, r in enumerate(found) if r.saturated is not None]
    for values, colour, label in (
        (dead, GREY, "dead: 0 for all samples"),
        (full, RED, "saturated: within 1 % of a bound"),
    ):
        axis.bar([place for place, _ in values], [share for _, share in values], 0.38, color=colour)
        axis.plot([], [], "s", color=colour, label=label)
    axis.set(ylim=(0, 105), ylabel="% of the entries", title="entries that are dead or saturated")
    axis.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def gradients(axis: Any, found: "Inspection") -> None:
    for values, colour, mark, label in (
        ([r.grad_norm for r in found], ORANGE, "o-", "of the output"),
        ([r.weight_grad_norm for r in found], BLUE, "s", "of the layer's parameters"),
    ):
        shown = [(place, v) for place, v in enumerate(values) if v and isfinite(v)]
        axis.plot([place for place, _ in shown], [v for _, v in shown], mark, color=colour, markersize=5, label=label)
    _log_scale(axis, [v for r in found for v in (r.grad_norm, r.weight_grad_norm) if v and isfinite(v)])
    axis.set_title("norm of the gradient")
    axis.legend(frameon=False, fontsize=8)


def over_time(axis: Any, timed: "list[Record]") -> None:
    for record in timed:
        values = [v if v > 0 else float("nan") for v in record.input_over_time or ()]
        axis.plot(range(len(values)), values, "-", label=f"{record.name} {record.layer!r}")
    _log_scale(axis, [v for record in timed for v in record.input_over_time or () if v > 0 and isfinite(v)])
    axis.set(xlabel="step", title="norm of the gradient that a layer hands on, at every step")
    axis.legend(frameon=False, fontsize=8)


def _log_scale(axis: Any, values: list[float]) -> None:
    """A logarithmic axis of at least two decades, with powers of ten alone."""
    axis.set_yscale("log")
    low, high = log10(min(values, default=1)), log10(max(values, default=1))
    middle, half = (low + high) / 2, max((high - low) * 0.55, 1)
    axis.set_ylim(10 ** (middle - half), 10 ** (middle + half))
    axis.yaxis.minorticks_off()
