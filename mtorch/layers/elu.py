"""The exponential linear unit."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class ELU(Activation):
    """y = x where x > 0, alpha (exp(x) - 1) elsewhere.

    In one line, y = max(x, 0) + alpha (exp(min(x, 0)) - 1).

    Shapes: any -> the same.  Remembers y.

    Backward: left of 0 dy/dx = alpha exp(x) = y + alpha, right of it 1:
        dx = output_grad * ([y > 0] + (y + alpha) [y <= 0]);
    at 0, a kink unless alpha = 1, it is alpha.

    Clevert, Unterthiner & Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2015,
    arXiv:1511.07289.
    """

    def __init__(self, alpha: float = 1.0, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.alpha = check_number("ELU", "alpha", alpha, least=0)

    def forward(self, x: Array) -> Array:
        xp = self.xp
        y = xp.maximum(x, 0) + self.alpha * xp.expm1(xp.minimum(x, 0))
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        left = self.xp.minimum(y, 0) + self.alpha
        return as_array(self.xp, g * (y > 0) + g * left * (y <= 0))

    def details(self) -> str:
        return f"alpha={self.alpha:g}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for alpha in (1.0, 0.5, 2.0, 0.0):
            yield cls(alpha, xp=xp, dtype=dtype), (4, 3)
