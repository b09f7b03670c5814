"""The pictures a run leaves: curves, guesses and the confusion matrix."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy

from mtorch.checkpoint import write_atomically

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogFormatter  # noqa: E402

RIGHT, WRONG, GREY = "#2a6f97", "#c1121f", "#5c677d"
COLOURS = ["#2a6f97", "#e07a1f", "#3a7d44", "#8e44ad", "#c1121f", "#6b705c", "#00a5a5", "#b5838d", "#444444", "#bc8f00"]


class Plain(LogFormatter):
    """0.4 in place of 4e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return super().__call__(x, pos) and f"{x:g}"


def save(figure: Any, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120, metadata={"Software": None}))
    plt.close(figure)


def curves(path: Path, histories: dict[str, list[dict[str, Any]]]) -> None:
    """Loss and accuracy over epochs, training dashed and test solid, one colour a model."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for (name, history), colour in zip(histories.items(), COLOURS * 2, strict=False):
        epochs = [row["epoch"] for row in history]
        label = "" if len(histories) == 1 else f"{name} "
        for panel, measure, factor in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
            for part, style in (("train", "--"), ("test", "-")):
                values = [factor * row[f"{part}_{measure}"] for row in history]
                panel.plot(epochs, values, style, color=colour, label=f"{label}{part}", marker="." * (len(epochs) < 30))
    panels[0].set(xlabel="epoch", ylabel="loss", title="Loss", yscale="log")
    for place in (panels[0].yaxis.set_major_formatter, panels[0].yaxis.set_minor_formatter):
        place(Plain(minor_thresholds=(2, 0.5)))
    panels[1].set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
    worst = min(history[-1]["test_accuracy"] for history in histories.values())
    panels[1].set_ylim(bottom=max(panels[1].get_ylim()[0], 100 - 600 * (1 - worst)))  # the way up from chance is long
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.get_major_locator().set_params(integer=True)
    panels[1].legend(frameon=False, fontsize=8, ncols=2 if len(histories) > 3 else 1)
    save(figure, path)


def predictions(path: Path, images: Any, labels: Any, guesses: Any, rows: int = 6, columns: int = 10) -> None:
    """A grid of test digits with the guess and how sure it is; the lower half holds more of the mistakes."""
    guess = guesses.argmax(axis=-1)
    half = rows // 2 * columns
    wrong = numpy.flatnonzero(guess != labels)
    wrong = wrong[wrong >= half][:half]
    others = numpy.setdiff1d(numpy.arange(len(labels)), wrong)[: rows * columns - len(wrong)]
    shown = numpy.concatenate([others, wrong])
    side = images.shape[-1]
    gap, head = side // 7, side // 3  # between two pictures, and above each for its caption
    sheet = numpy.zeros((rows * (side + gap + head), columns * (side + gap)))
    size = 11, 11 * sheet.shape[0] / sheet.shape[1] + 0.4
    figure, panel = plt.subplots(figsize=size, layout="constrained")
    for place, i in enumerate(shown):
        top, left = place // columns * (side + gap + head) + head, place % columns * (side + gap)
        sheet[top : top + side, left : left + side] = images[i] / images.max()
        right = guess[i] == labels[i]
        text = f"{guess[i]}  {guesses[i].max():.0%}" if right else f"{guess[i]}, is {labels[i]}"
        middle = left + side / 2 - 0.5
        colour, weight = (RIGHT, "normal") if right else (WRONG, "bold")
        panel.text(middle, top - 1.5, text, ha="center", va="bottom", fontsize=9, color=colour, fontweight=weight)
        if not right:
            frame = plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, color=WRONG, linewidth=1.5)
            panel.add_patch(frame)
    panel.imshow(sheet, cmap="gray_r", interpolation="nearest")
    panel.set(xlim=(-gap, sheet.shape[1]), ylim=(sheet.shape[0], -1))
    panel.set_axis_off()
    mistakes = f"{(guess != labels).sum():,} of {len(labels):,} are wrong"
    panel.set_title(f"Test digits: the guess and its probability; {mistakes}")
    save(figure, path)


def confusion(path: Path, labels: Any, guess: Any) -> None:
    """How often each digit is taken for each other; the diagonal, where it is right, is left pale."""
    classes = int(max(labels.max(), guess.max())) + 1
    counts = numpy.zeros((classes, classes), int)
    numpy.add.at(counts, (labels, guess), 1)
    shade = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    mistakes = shade * (1 - numpy.eye(classes))
    figure, panel = plt.subplots(figsize=(6.2, 5.6), layout="constrained")
    picture = panel.imshow(100 * mistakes, cmap="Reds", vmin=0, vmax=max(1.0, 100 * mistakes.max()))
    figure.colorbar(picture, label="mistakes (% of that digit)", shrink=0.8)
    for i in range(classes):
        for j in range(classes):
            if counts[i, j]:
                colour = GREY if i == j else "white" if mistakes[i, j] > 0.6 * mistakes.max() else "black"
                panel.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color=colour)
    panel.set(xticks=range(classes), yticks=range(classes), xlabel="guess", ylabel="digit")
    panel.set_title(f"Confusion on {len(labels):,} test digits: accuracy {(labels == guess).mean():.2%}")
    save(figure, path)
