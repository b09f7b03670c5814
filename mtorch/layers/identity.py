"""The layer that does nothing."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Value
from mtorch.layer import Layer


class Identity(Layer):
    """y = x, for any value.

    Shapes: any -> the same.

    Backward: y moves as x does, so dx = output_grad.
    """

    moves_data = True

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return known

    def forward(self, x: Value) -> Value:
        self.remember()
        return x

    def backward(self, output_grad: Value) -> Value:
        g = self.cast_grad(output_grad)
        self.recall()
        return g

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        yield cls(xp=xp, dtype=dtype), ((4, 3), (2,))
