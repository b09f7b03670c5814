"""The rectifier that leaks."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class LeakyReLU(Activation):
    """y = x where x > 0, negative_slope * x elsewhere.

    With a = negative_slope, y = max(x, 0) + a min(x, 0).

    Shapes: any -> the same.  Remembers x.

    Backward: two straight lines: dx = output_grad * ([x > 0] + a [x <= 0]); a at the kink.

    Maas, Hannun & Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013.
    """

    def __init__(
        self, negative_slope: float = 0.01, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Array) -> Array:
        a = self.negative_slope
        y = self.xp.maximum(x, 0)
        if a:  # 0 * -inf would be NaN
            y = y + a * self.xp.minimum(x, 0)
        self.remember(x)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        right = x > 0
        return as_array(self.xp, g * right + self.negative_slope * (g * ~right))

    def details(self) -> str:
        return f"negative_slope={self.negative_slope:g}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        for slope in (0.3, 0.0, 2.5, -0.5):
            yield cls(slope, xp=xp, dtype=dtype), (2, 1, 3)
