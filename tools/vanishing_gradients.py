"""Draws docs/images/vanishing_gradients.png: the gradient in a deep sigmoid net, and in a ReLU net with a good start.

`python tools/vanishing_gradients.py [--out FILE]`. Both nets have ten hidden layers of 64 units and see the same 256
digits; `mtorch.inspect` runs one forward and one backward through each. The weights of the ReLU net have the variance
2 / fan_in, which keeps the size of the signal (He, Zhang, Ren & Sun, 2015, arXiv:1502.01852).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib import pyplot  # noqa: E402

from mtorch import CrossEntropyLoss, Sequential, inspect, layers  # noqa: E402
from mtorch.data import digits, standardise  # noqa: E402
from mtorch.layers import Linear  # noqa: E402

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "vanishing_gradients.png"
HIDDEN, WIDTH, SAMPLES = 10, 64, 256
NETS = (("sigmoid", layers.Sigmoid, 1, "#c2570c"), ("ReLU, weights of variance 2 / fan in", layers.ReLU, 2, "#1f66c1"))


def net(activation: type, coe: float) -> Sequential:
    """Ten hidden layers."""
    nn = layers.on(rng=0)
    sizes = [784, *[WIDTH] * HIDDEN]
    hidden = [
        layer
        for size, out in zip(sizes, sizes[1:], strict=False)
        for layer in (nn.Linear(size, out, coe=coe), activation())
    ]
    return Sequential(*hidden, nn.Linear(WIDTH, 10))


def norms(activation: type, coe: float) -> list[float]:
    """The norm of the gradient that reaches each Linear layer."""
    data = digits()
    x, labels = standardise(data.train_images[:SAMPLES]), data.train_labels[:SAMPLES]
    found = inspect(net(activation, coe), x, labels, CrossEntropyLoss)
    return [record.grad_norm or 0.0 for record in found if isinstance(record.layer, Linear)]


def draw(path: Path) -> None:
    fig, axes = pyplot.subplots(1, 2, figsize=(9, 3.1), sharey=True, layout="constrained")
    for axis, (name, activation, coe, colour) in zip(axes, NETS, strict=True):
        values = norms(activation, coe)
        places = range(1, len(values) + 1)
        axis.bar(places, values, color=colour, width=0.72)
        axis.set(yscale="log", ylim=(1e-9, 1), xticks=places, xlabel="linear layer, from the pixels to the loss")
        axis.set_title(name, fontsize=11)
        axis.tick_params(axis="x", length=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#8a919c", alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
        for place in (1, len(values)):
            value = values[place - 1]
            axis.text(place, value * 1.5, f"{value:.0e}" if value < 0.001 else f"{value:.2g}", ha="center", fontsize=8)
    axes[0].set_ylabel("norm of the gradient")
    fig.savefig(path, dpi=100)
    pyplot.close(fig)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGE)
    draw(parser.parse_args().out)
