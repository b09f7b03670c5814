"""Reductions over any axes."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array, widened
from mtorch.checks import Axes, check_axes, check_flag
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class Reduction(Layer):
    """One number for all entries along some axes.

    axis: an int, a tuple of ints, or None for all axes. keepdims: keep these axes, with one entry each.
    """

    array_only = True

    def __init__(
        self,
        axis: Axes = None,
        keepdims: bool = False,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.axis, self.keepdims = check_axes(name, axis), check_flag(name, "keepdims", keepdims)

    def axes(self, x: Array) -> tuple[int, ...]:
        """The axes to reduce, counted from the front and in order."""
        if x.dtype.kind != "f":
            raise TypeError(f"{self!r} expected floats, got {x.dtype}")
        if self.axis is None:
            return tuple(range(x.ndim))
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        found = {n % x.ndim for n in axes if -x.ndim <= n < x.ndim}
        if len(found) < len(axes):
            raise ShapeMismatchError(self, f"expected input with the axes {self.axis}, got shape {x.shape}")
        return tuple(sorted(found))

    def kept_shape(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with one entry along each of the axes."""
        return tuple(1 if i in axes else n for i, n in enumerate(shape))

    def repeated(self, values: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
        """The values repeated along the reduced axes, as a new array."""
        return self.xp.broadcast_to(values.reshape(self.kept_shape(shape, axes)), shape).copy()

    def details(self) -> str:
        return ("all axes" if self.axis is None else f"axis={self.axis}") + (", keepdims=True" if self.keepdims else "")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        options = [(None, False), (0, False), (-1, True), ((0, 2), False), ((2, -3), True), ((), False)]
        for axis, keepdims in options:  # entries 0.2 apart, so that no difference quotient changes the winner
            yield (
                cls(axis, keepdims, xp=xp, dtype=dtype),
                lambda xp, rng: xp.asarray((rng.permutation(24) * 0.2 - 2.0).reshape(2, 3, 4)),
            )


class Sum(Reduction):
    """y = sum of x over the axes.

    Shapes: any -> without those axes; with `keepdims` they stay, with size 1.

    Backward: y moves by as much as any entry that was added, so each gets g = output_grad of its sum: dx = g.
    """

    def forward(self, x: Array) -> Array:
        axes = self.axes(x)
        self.remember(x.shape, axes)
        y = widened(x).sum(axis=axes, keepdims=self.keepdims)
        return as_array(self.xp, y.astype(x.dtype, copy=False))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape, axes = self.recall()
        return self.repeated(g, shape, axes)


class Mean(Reduction):
    """y = mean of x over the axes, n entries each.

    Shapes: any -> without those axes; with `keepdims` they stay, with size 1.

    Backward: an entry has the weight 1 / n in its mean, so with g = output_grad  dx = g / n.
    """

    def forward(self, x: Array) -> Array:
        axes = self.axes(x)
        if x.size == 0 and math.prod(x.shape[i] for i in axes) == 0:
            raise ShapeMismatchError(self, f"expected entries to average, got shape {x.shape}")
        self.remember(x.shape, axes)
        y = widened(x).mean(axis=axes, keepdims=self.keepdims)
        return as_array(self.xp, y.astype(x.dtype, copy=False))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape, axes = self.recall()
        share = widened(g) / math.prod(shape[i] for i in axes)
        return self.repeated(share.astype(g.dtype, copy=False), shape, axes)


class _Extremum(Reduction):
    """y = the entry that wins along the axes; at a tie the first one, the reduced axes read in order.

    Backward: y is the winner, so it gets all of g and the others get 0.
    """

    def winners(self, rows: Array) -> Array:
        """The position of the winner in each row."""
        raise NotImplementedError(f"{type(self).__name__} does not define winners")

    def forward(self, x: Array) -> Array:
        axes = self.axes(x)
        order = tuple(i for i in range(x.ndim) if i not in axes) + axes
        count = math.prod(x.shape[i] for i in axes)
        if count == 0:
            raise ShapeMismatchError(self, f"expected entries to choose from, got shape {x.shape}")
        rows = x.transpose(order).reshape(x.size // count, count)
        index = self.xp.arange(rows.shape[0]), self.winners(rows)
        self.remember(x.shape, axes, order, index)
        short = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return rows[index].reshape(self.kept_shape(x.shape, axes) if self.keepdims else short)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape, axes, order, index = self.recall()
        rows = self.xp.zeros((g.size, math.prod(shape[i] for i in axes)), g.dtype)
        rows[index] = g.reshape(-1)
        back = tuple(order.index(i) for i in range(len(shape)))
        return rows.reshape(tuple(shape[i] for i in order)).transpose(back)


class Max(_Extremum):
    """y = max of x over the axes.

    Shapes: any -> without those axes; with `keepdims` they stay, with size 1.  Remembers where the winners are.

    Backward: y is a copy of one entry, so all of g = output_grad goes to the first winner of each maximum, and 0 to the
    others.
    """

    def winners(self, rows: Array) -> Array:
        return rows.argmax(axis=1)


class Min(_Extremum):
    """y = min of x over the axes.

    Shapes: any -> without those axes; with `keepdims` they stay, with size 1.  Remembers where the winners are.

    Backward: y is a copy of one entry, so all of g = output_grad goes to the first winner of each minimum, and 0 to the
    others.
    """

    def winners(self, rows: Array) -> Array:
        return rows.argmin(axis=1)
