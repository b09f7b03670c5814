"""Layers that give each sample another shape."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_integer, check_size, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class Reshape(Layer):
    """The entries of each sample in another shape; the batch axis stays. At most one entry of `shape` may be -1.

    Shapes: (N, ...) -> (N, *shape).

    Backward: every entry of y is a copy of one of x, so dx has the entries of output_grad in the shape they came in.
    """

    moves_data = True
    array_only = True

    def __init__(
        self, shape: int | tuple[int, ...], *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(xp=xp, dtype=dtype)
        if not isinstance(shape, int | numpy.integer | tuple | list):
            raise TypeError(f"Reshape expected shape to be an int or a tuple of ints, got {shown(shape)}")
        given = (shape,) if isinstance(shape, int | numpy.integer) else shape
        sizes = [check_integer("Reshape", "shape", n) for n in given]
        self.shape = tuple(n if n == -1 else check_size("Reshape", "shape", n) for n in sizes)
        if self.shape.count(-1) > 1:
            raise ValueError(f"Reshape expected at most one -1 in shape, got {shape}")

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        sizes = {axis + 1: n for axis, n in enumerate(self.shape) if n != -1}
        return sizes | {axis - len(self.shape): n for axis, n in enumerate(self.shape) if n != -1}

    def forward(self, x: Array) -> Array:
        if x.ndim == 0:
            raise ShapeMismatchError(self, "expected input of shape (N, ...), got ()")
        inner, fixed = math.prod(x.shape[1:]), math.prod(n for n in self.shape if n != -1)
        fits = inner == fixed if -1 not in self.shape else inner % fixed == 0
        if not fits:
            raise ShapeMismatchError(self, f"expected {fixed} entries a sample, got input of shape {x.shape}")
        self.remember(x.shape)
        return x.reshape((x.shape[0],) + tuple(inner // fixed if n == -1 else n for n in self.shape))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        return g.reshape(self.recall())

    def details(self) -> str:
        return str(self.shape)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls((2, 3), xp=xp, dtype=dtype), (4, 6)
        yield cls((-1, 2), xp=xp, dtype=dtype), (2, 3, 4)
        yield cls(6, xp=xp, dtype=dtype), (2, 3, 2)


class Flatten(Layer):
    """Each sample as one row; the axes from start_dim to end_dim, both included, as one.

    Shapes: (N, ...) -> (N, D).

    Backward: every entry of y is a copy of one of x, so dx has the entries of output_grad in the shape they came in.
    """

    moves_data = True
    array_only = True

    def __init__(
        self, start_dim: int = 1, end_dim: int = -1, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.start_dim = check_integer("Flatten", "start_dim", start_dim)
        self.end_dim = check_integer("Flatten", "end_dim", end_dim)

    def forward(self, x: Array) -> Array:
        start, end = (dim + x.ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        rows = start == x.ndim == end + 1 > 0  # a sample is a number
        if not (rows or 0 <= start <= end < x.ndim):
            usual = (self.start_dim, self.end_dim) == (1, -1)
            wanted = "input of shape (N, ...), got" if usual else "input with these axes, in this order, got shape"
            raise ShapeMismatchError(self, f"expected {wanted} {x.shape}")
        self.remember(x.shape)
        return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        return g.reshape(self.recall())

    def details(self) -> str:
        usual = (self.start_dim, self.end_dim) == (1, -1)
        return "" if usual else f"start_dim={self.start_dim}, end_dim={self.end_dim}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (2, 3, 4)
        yield cls(xp=xp, dtype=dtype), (3,)
        yield cls(0, -2, xp=xp, dtype=dtype), (2, 3, 4)
        yield cls(-2, xp=xp, dtype=dtype), (2, 3, 2, 2)
