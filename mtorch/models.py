"""Nets that people learn with, as short functions: sizes in, a `Sequential` out.

Digit models take images as rows (N, D), D = side * side, and return one score for each of K classes. All take the
keyword arguments of the layers, `xp`, `dtype` and `rng`.
"""

import math
from typing import Any

from mtorch import layers
from mtorch.containers import Sequential


def linear(pixels: int = 784, classes: int = 10, **options: Any) -> Sequential:
    """One linear map: multinomial logistic regression when trained with cross-entropy."""
    nn = layers.on(**options)
    return Sequential(nn.Linear(pixels, classes))


def mlp(pixels: int = 784, classes: int = 10, hidden: int = 16, **options: Any) -> Sequential:
    """The original mtorch's digit net, 784-16-16-10 with a sigmoid at the end, for a square loss on one-hot targets.

    The output bias starts at the logit of the prior 1 / K and the output weights start small. Otherwise outputs start
    at one half, far too high for nine classes in ten, and the first steps drive some of them so low that the sigmoid
    is flat there and they stay.
    """
    nn = layers.on(**options)
    out = nn.Linear(hidden, classes, coe=0.1)
    out.bias.value[...] = -math.log(classes - 1)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2), nn.ReLU(), nn.Linear(hidden, hidden, coe=2), nn.ReLU(), out, nn.Sigmoid()
    )


def deep(pixels: int = 784, classes: int = 10, hidden: int = 512, **options: Any) -> Sequential:
    """784-512-512-10 with ReLU, for cross-entropy."""
    nn = layers.on(**options)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2), nn.ReLU(),
        nn.Linear(hidden, hidden, coe=2), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip
