"""A choice between two arrays by a mask."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array, shape_value, unbroadcast
from mtorch.errors import ShapeMismatchError
from mtorch.guards import NO_ARRAY
from mtorch.layer import Layer


class Where(Layer):
    """y = a where the condition holds, b elsewhere, of a tuple (condition, a, b), whose shapes broadcast.

    condition: booleans, or integers, of which 0 is false.

    Shapes: C, A, B -> what they broadcast to.  Remembers the condition.

    Backward: each entry of y is a copy, so da = g where the condition holds and db = g elsewhere, 0 at the other
    places, summed over the axes on which the operand was stretched; the condition has no gradient (None).
    """

    takes = ("any", "floats", "floats")

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def forward(self, x: tuple[Array, Array, Array]) -> Array:
        if x.__class__ is not tuple or len(x) != 3 or any(part.__class__ in NO_ARRAY for part in x):
            raise ShapeMismatchError(self, f"expected a tuple (condition, a, b) of arrays, got {shape_value(x)}")
        condition, a, b = x
        if condition.dtype.kind not in "biu":
            raise TypeError(f"{self!r} expected a condition of booleans or integers, got {condition.dtype}")
        condition = condition != 0
        try:
            y = self.xp.where(condition, a, b)
        except ValueError:
            shapes = f"{condition.shape}, {a.shape} and {b.shape}"
            raise ShapeMismatchError(self, f"expected shapes that fit each other, got {shapes}") from None
        self.remember(condition, a.shape, b.shape)
        return as_array(self.xp, y)

    def backward(self, output_grad: Array) -> tuple[None, Array, Array]:
        g = self.cast_grad(output_grad)
        condition, a_shape, b_shape = self.recall()
        da, db = self.xp.where(condition, g, 0), self.xp.where(condition, 0, g)
        return None, *(as_array(self.xp, unbroadcast(d, s)) for d, s in ((da, a_shape), (db, b_shape)))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        def value(shape, a, b, kind="bool"):
            return lambda xp, rng: (
                xp.asarray(rng.integers(0, 2, shape).astype(kind)),
                xp.asarray(rng.standard_normal(a)),
                xp.asarray(rng.standard_normal(b)),
            )

        yield cls(xp=xp, dtype=dtype), value((4, 3), (4, 3), (4, 3))
        yield cls(xp=xp, dtype=dtype), value((2, 1), (3,), (), kind="int64")
        yield cls(xp=xp, dtype=dtype), value((3,), (2, 1, 3), (4, 1))
        yield cls(xp=xp, dtype=dtype), value((), (), ())
