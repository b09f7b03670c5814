"""The clipped identity."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class Hardtanh(Activation):
    """y = min(max(x, a), b), elementwise, with a = min_val and b = max_val, -1 and 1 unless given.

    Shapes: any -> the same.  Remembers y.

    Backward: y moves with x strictly between the bounds only: dx = output_grad * [a < y < b]; 0 at both kinks.

    Collobert, "Large Scale Machine Learning", 2004.
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.min_val = check_number("Hardtanh", "min_val", min_val)
        self.max_val = check_number("Hardtanh", "max_val", max_val, least=self.min_val)

    def forward(self, x: Array) -> Array:
        y = self.xp.clip(x, self.min_val, self.max_val)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return as_array(self.xp, g * ((y > self.min_val) & (y < self.max_val)))

    def details(self) -> str:
        usual = (self.min_val, self.max_val) == (-1, 1)
        return "" if usual else f"min_val={self.min_val:g}, max_val={self.max_val:g}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(xp=xp, dtype=dtype, rng=rng)
        yield cls(-0.5, 0.25, xp=xp, dtype=dtype), (3, 5)
