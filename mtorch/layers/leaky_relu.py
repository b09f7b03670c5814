"""The rectifier that leaks."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class LeakyReLU(Activation):
    """y = x where x > 0, negative_slope * x elsewhere.

    Shapes: any -> the same.  Remembers y, which has the sign of x (x itself if the slope is negative).

    Backward: two straight lines: dx = output_grad * (1 where x > 0, negative_slope elsewhere, also at the kink).

    Maas, Hannun & Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013.
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        negative_slope: float = 0.01,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(dim, xp=xp, dtype=dtype)
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Array) -> Array:
        y = x * self.negative_slope if self.negative_slope else 0.0  # 0 * inf would be NaN
        y = (self.xp.maximum if self.negative_slope <= 1 else self.xp.minimum)(x, y)
        self.remember(y if self.negative_slope >= 0 else x)
        return y

    def backward(self, output_grad: Array) -> Array:
        kept = self.recall()
        dx = self.xp.greater(kept, 0.0).astype(kept.dtype)
        dx *= 1 - self.negative_slope
        dx += self.negative_slope
        dx *= output_grad
        return dx

    def details(self) -> str:
        return ", ".join(filter(None, [super().details(), f"negative_slope={self.negative_slope:g}"]))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        for slope in (0.3, 0.0, 2.5, -0.5):
            yield cls(3, negative_slope=slope, xp=xp, dtype=dtype), (2, 1, 3)
