"""The smooth rectifier."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.activation import Activation
from mtorch.math.logistic import sigmoid

FAR = 3e4  # exp(-FAR) is 0


class Softplus(Activation):
    """y = log(1 + exp(beta x)) / beta, elementwise.

    It is computed as max(x, 0) + log(1 + exp(-|beta x|)) / beta, which never overflows and is right to the last digits
    for every x, so there is no need of a threshold. With threshold=20, torch's default, y = x where beta x is larger.

    Shapes: any -> the same.  Remembers x.

    Backward: dy/dx = exp(beta x) / (1 + exp(beta x)), the logistic function, so dx = output_grad / (1 + exp(-beta x));
    1 beyond the threshold.

    Dugas, Bengio, Belisle, Nadeau & Garcia, "Incorporating Second-Order Functional Knowledge ...", 2000.
    """

    def __init__(
        self,
        beta: float = 1.0,
        threshold: float | None = None,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.beta = check_number("Softplus", "beta", beta, above=0)
        self.threshold = None if threshold is None else check_number("Softplus", "threshold", threshold)

    def forward(self, x: Array) -> Array:
        xp, z = self.xp, self.scaled(x)
        y = xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(z))) / self.beta
        if self.threshold is not None:
            y = xp.where(z > self.threshold, x, y)
        self.remember(x)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        z = self.scaled(self.recall())
        dx = as_array(self.xp, g * sigmoid(self.xp, z))
        return dx if self.threshold is None else self.xp.where(z > self.threshold, g, dx)

    def scaled(self, x: Array) -> Array:
        """beta x, cut off where it could overflow."""
        if self.beta == 1:
            return x
        return self.beta * (x if self.beta < 1 else self.xp.clip(x, -FAR / self.beta, FAR / self.beta))

    def details(self) -> str:
        options = [f"beta={self.beta:g}"] if self.beta != 1 else []
        options += [f"threshold={self.threshold:g}"] if self.threshold is not None else []
        return ", ".join(options)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(xp=xp, dtype=dtype, rng=rng)
        yield cls(2, xp=xp, dtype=dtype), (4, 3)
        yield cls(0.5, 1.5, xp=xp, dtype=dtype), (2, 1, 3)
