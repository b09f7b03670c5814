"""What layer norm and RMS norm share."""

import math
from types import ModuleType
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_flag, check_memory, check_size, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.parameter import Parameter


class RowNorm(Layer):
    """Normalises over the last axes, whose sizes are `shape`, and multiplies by a weight of that shape."""

    array_only = True

    def __init__(self, normalized_shape: int | tuple[int, ...], affine: bool, xp: ModuleType, dtype: Any):
        super().__init__(xp=xp, dtype=dtype)
        sizes = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        name = type(self).__name__
        self.shape = tuple(check_size(name, "normalized_shape", size) for size in sizes)
        check_memory(name, math.prod(self.shape), normalized_shape=self.shape)
        if not sizes:
            raise ValueError(f"{name} expected a normalized_shape of at least one axis, got {shown(normalized_shape)}")
        self.axes = tuple(range(-len(sizes), 0))
        affine = check_flag(name, "elementwise_affine", affine)
        self.weight = Parameter(xp.ones(self.shape, dtype=self.dtype)) if affine else None

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        for axis, size in zip(self.axes, self.shape, strict=True):
            self.check_dim(known, axis, size)
        return known | dict(zip(self.axes, self.shape, strict=True))

    def check_shape(self, x: Array) -> None:
        if x.shape[-len(self.shape) :] != self.shape:
            wanted = ", ".join(["...", *map(str, self.shape)])
            raise ShapeMismatchError(self, f"expected input of shape ({wanted}), got {x.shape}")

    def details(self) -> str:
        return ", ".join(map(str, self.shape)) + ("" if self.weight is not None else ", elementwise_affine=False")
