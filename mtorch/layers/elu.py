"""The exponential linear unit."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_number
from mtorch.kernels.activations import elu
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class ELU(Activation):
    """y = x where x > 0, alpha (exp(x) - 1) elsewhere.

    Shapes: any -> the same.  Remembers y.

    Backward: left of 0 dy/dx = alpha exp(x) = y + alpha, right of it 1; with m = min(y, 0) both are
        dx = output_grad * (m + alpha + (1 - alpha) [y > 0]);
    at 0, a kink unless alpha = 1, it is alpha.

    Clevert, Unterthiner & Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2015,
    arXiv:1511.07289.
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        alpha: float = 1.0,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(dim, xp=xp, dtype=dtype)
        self.alpha = check_number("ELU", "alpha", alpha, least=0)

    def forward(self, x: Array) -> Array:
        y = elu(self.xp, x, self.alpha)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        y = self.recall()
        dx = self.xp.clip(y, -self.alpha, 0.0)
        dx += self.alpha
        if self.alpha != 1:
            dx += (y > 0) * self.xp.full_like(y, 1 - self.alpha)
        dx *= output_grad
        return dx

    def details(self) -> str:
        return ", ".join(filter(None, [super().details(), f"alpha={self.alpha:g}"]))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for alpha in (1.0, 0.5, 2.0, 0.0):
            yield cls(3, alpha=alpha, xp=xp, dtype=dtype), (4, 3)
