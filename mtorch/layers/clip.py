"""Bounds on every entry."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.elementwise import Elementwise


class Clip(Elementwise):
    """y = min(max(x, min), max): entries below `min` become `min`, those above `max` become `max`.

    min, max: numbers, at least one of them; None is no bound. With min > max every entry becomes `max`, as in torch.

    Shapes: any -> the same.  Remembers x.

    Backward: y moves with x within the bounds, and stands still outside: dx = g [min <= x <= max].
    """

    def __init__(
        self,
        min: float | None = None,
        max: float | None = None,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        if min is None and max is None:
            raise ValueError("Clip expected a bound, min or max or both, got None twice")
        self.min = None if min is None else check_number("Clip", "min", min)
        self.max = None if max is None else check_number("Clip", "max", max)

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.xp.clip(x, self.min, self.max))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        low, high = (-math.inf if self.min is None else self.min), (math.inf if self.max is None else self.max)
        return as_array(self.xp, g * ((x >= low) & (x <= high)))

    def details(self) -> str:
        return f"min={self.min}, max={self.max}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for low, high in ((-0.5, 0.75), (0, None), (None, 0.25), (0.5, -0.5)):
            yield cls(low, high, xp=xp, dtype=dtype), (4, 3)
        yield cls(-1, 1, xp=xp, dtype=dtype), ()
