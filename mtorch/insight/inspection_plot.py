"""An inspection as a figure."""

from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtorch.insight.inspection import Inspection

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
    records, places = list(found), list(range(len(found)))
    timed = [r for r in records if r.input_over_time and len(r.input_over_time) > 1]
    fig, axes = plt.subplots(
        3 + bool(timed), 1, figsize=(max(6.4, min(14, 1.8 + 0.55 * len(records))), 7.4 + 2.2 * bool(timed)),
        layout="constrained",
    )  # fmt: skip
    out, share, grad = axes[:3]
    means, stds = [r.mean for r in records], [r.std for r in records]
    out.errorbar(places, means, stds, fmt="o", color=BLUE, ecolor=BLUE, elinewidth=6, alpha=0.45, markersize=0)
    out.plot(places, means, "o", color=BLUE, markersize=4)
    out.axhline(0, color=GREY, linewidth=0.8)
    out.set_title("outputs: mean, and one standard deviation either way")

    share.bar(
        [p - 0.2 for p in places], [100 * r.dead for r in records], 0.38, color=GREY, label="dead: 0 for all samples"
    )
    full = [(p + 0.2, 100 * r.saturated) for p, r in enumerate(records) if r.saturated is not None]
    share.bar([p for p, _ in full], [s for _, s in full], 0.38, color=RED, label="saturated: within 1 % of a bound")
    share.set(ylim=(0, 105), ylabel="% of the entries", title="entries that let no gradient through")
    share.legend(frameon=False, fontsize=8, loc="upper left")

    for values, colour, mark, label in (
        ([r.grad_norm for r in records], ORANGE, "o-", "of the output"),
        ([r.weight_grad_norm for r in records], BLUE, "s", "of the layer's parameters"),
    ):
        shown = [(p, v) for p, v in enumerate(values) if v and isfinite(v)]
        grad.plot([p for p, _ in shown], [v for _, v in shown], mark, color=colour, markersize=5, label=label)
    grad.set_yscale("log")
    grad.set_title("norm of the gradient")
    grad.legend(frameon=False, fontsize=8)
    names = [f"{r.name}\n{type(r.layer).__name__}" if r.name else type(r.layer).__name__ for r in records]
    every = 1 + (len(names) - 1) // MOST_NAMES
    for axis in axes[:3]:
        axis.set_xlim(-0.6, len(records) - 0.4)
        axis.set_xticks(places[::every], [])
    grad.set_xticks(places[::every], names[::every], rotation=60 if len(names) > 6 else 0, fontsize=8, ha="center")

    if timed:
        for r in timed:
            axes[3].plot(
                range(len(r.input_over_time or ())), r.input_over_time or (), "-", label=f"{r.name} {r.layer!r}"
            )
        axes[3].set(yscale="log", xlabel="step", title="norm of the gradient that a layer hands on, at every step")
        axes[3].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.title.set_size(10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
    fig.suptitle(f"{found.title}: {found.loss_name} {found.loss:.4g}", fontsize=11)
    return fig
