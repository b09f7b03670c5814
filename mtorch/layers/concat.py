"""Joining arrays along an axis, and cutting them up again."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, shape_value
from mtorch.checks import check_axis, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


def cuts(shape: tuple[int, ...], axis: int, sizes: list[int]) -> list[tuple[slice, ...]]:
    """The indices of consecutive parts of these sizes along the axis."""
    before, ends = (slice(None),) * (axis % len(shape)), [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [before + (slice(end - size, end),) for size, end in zip(sizes, ends, strict=True)]


class Concat(Layer):
    """y = the arrays of a tuple, one after the other along an axis.

    Shapes: (..., D1, ...), (..., D2, ...), ... -> (..., D1 + D2 + ..., ...); all other axes agree.

    Backward: every entry of y is a copy, so each array gets its own stretch of output_grad.
    """

    moves_data = True

    def __init__(self, axis: int, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.axis = check_axis("Concat", axis)

    def forward(self, x: tuple[Array, ...]) -> Array:
        if x.__class__ is not tuple or not x or any(part is None or part.__class__ is tuple for part in x):
            raise ShapeMismatchError(self, f"expected a tuple of arrays, got {shape_value(x)}")
        if any(part.dtype != x[0].dtype for part in x):
            raise TypeError(f"{self!r} expected arrays of one dtype, got {', '.join(str(part.dtype) for part in x)}")
        try:
            y = self.xp.concatenate(x, axis=self.axis)
        except ValueError:
            text = f"expected shapes that agree but for axis {self.axis}, got {shape_value(x)}"
            raise ShapeMismatchError(self, text) from None
        self.remember([part.shape[self.axis] for part in x])
        return y

    def backward(self, output_grad: Array) -> tuple[Array, ...]:
        g = self.cast_grad(output_grad)
        sizes = self.recall()
        return tuple(g[cut] for cut in cuts(g.shape, self.axis, sizes))

    def details(self) -> str:
        return f"axis={self.axis}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(-1, xp=xp, dtype=dtype), ((4, 3), (4, 2), (4, 1))
        yield cls(0, xp=xp, dtype=dtype), ((2, 3), (1, 3))
        yield cls(1, xp=xp, dtype=dtype), ((2, 1, 3),)
        yield cls(-2, xp=xp, dtype=dtype), ((2, 2, 3), (2, 4, 3))


class Split(Layer):
    """(y_1, ..., y_n) = x in `sections` equal parts along an axis, as a tuple.

    Shapes: (..., n D, ...) -> n times (..., D, ...).

    Backward: every entry of a part is a copy, so dx = the gradients of the parts (g_1, ..., g_n), joined again.
    """

    moves_data = True
    array_only = True

    def __init__(self, sections: int, axis: int, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.sections = self.parts = check_size("Split", "sections", sections)
        self.axis = check_axis("Split", axis)

    def forward(self, x: Array) -> tuple[Array, ...]:
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] % self.sections:
            text = f"expected axis {self.axis} to have a multiple of {self.sections} entries, got shape {x.shape}"
            raise ShapeMismatchError(self, text)
        self.remember()
        return tuple(x[cut] for cut in cuts(x.shape, self.axis, [x.shape[self.axis] // self.sections] * self.sections))

    def backward(self, output_grad: tuple[Array, ...]) -> Array:
        g = self.cast_grad(output_grad)
        self.recall()
        return self.xp.concatenate(g, axis=self.axis)

    def details(self) -> str:
        return f"{self.sections}, axis={self.axis}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(3, -1, xp=xp, dtype=dtype), (4, 6)
        yield cls(2, 0, xp=xp, dtype=dtype), (4, 3)
        yield cls(1, 1, xp=xp, dtype=dtype), (2, 3, 2)
