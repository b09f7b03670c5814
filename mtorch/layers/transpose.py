"""The axes in another order."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_integer, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class Transpose(Layer):
    """y has the axes of x in another order: axis i of y is axis axes[i] of x. All axes, the batch included.

    axes: a permutation of all axes; None reverses them, whatever their number.

    Shapes: (n_0, n_1, ...) -> (n_axes[0], n_axes[1], ...).

    Backward: y has the entries of x in other places, so the axes of output_grad go back where they came from: axis
    axes[i] of dx is axis i of output_grad.
    """

    moves_data = True
    array_only = True

    axes: tuple[int, ...] | None = None
    back: tuple[int, ...] | None = None

    def __init__(
        self,
        axes: tuple[int, ...] | None = None,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        if axes is None:
            return
        if not isinstance(axes, tuple | list) or len(axes) > 64:
            raise TypeError(f"Transpose expected a tuple of all axes, got {shown(axes)}")
        given = tuple(check_integer("Transpose", "axes", axis, wanted="integers as axes") for axis in axes)
        self.axes = tuple(axis + len(given) if axis < 0 else axis for axis in given)
        if sorted(self.axes) != list(range(len(given))):
            raise ValueError(f"Transpose expected axes to be a permutation of all axes, got {shown(axes)}")
        self.back = tuple(self.axes.index(i) for i in range(len(given)))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        if self.axes is None:
            return {-1 - axis: size for axis, size in known.items()}
        count = len(self.axes)
        from_front = {axis % count: size for axis, size in known.items() if -count <= axis < count}
        sizes = {i: from_front[axis] for i, axis in enumerate(self.axes) if axis in from_front}
        return sizes | {i - count: size for i, size in sizes.items()}

    def forward(self, x: Array) -> Array:
        if self.axes is not None and x.ndim != len(self.axes):
            raise ShapeMismatchError(self, f"expected input with {len(self.axes)} axes, got shape {x.shape}")
        self.remember()
        return x.transpose(self.axes)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        self.recall()
        return g.transpose(self.back)

    def details(self) -> str:
        return "" if self.axes is None else str(self.axes)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls((1, 0), xp=xp, dtype=dtype), (4, 3)
        yield cls(xp=xp, dtype=dtype), (2, 3, 4)
        yield cls((2, 0, 1), xp=xp, dtype=dtype), (2, 3, 4)
        yield cls((0, -1, 1, -2), xp=xp, dtype=dtype), (2, 3, 1, 4)
