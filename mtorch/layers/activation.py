"""What all elementwise activations share."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class Activation(Layer):
    """An elementwise function; any shape -> the same shape."""

    array_only = True

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return known

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls not in (Activation, SizedActivation):
            yield cls(xp=xp, dtype=dtype), (4, 3)
            yield cls(xp=xp, dtype=dtype), (2, 1, 3)


class SizedActivation(Activation):
    """An activation that may be told the size of the last axis, as in the original mtorch: `Relu(16)`.

    dim: optional, the size of the last axis. Every call is checked against it.
    """

    def __init__(self, dim: int | None = None, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.dim = None if dim is None else check_size(type(self).__name__, "dim", dim)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.dim)
        return known if self.dim is None else known | {-1: self.dim}

    def check_size(self, x: Array) -> None:
        """Raises ShapeMismatchError unless the last axis of x has `dim` entries."""
        if x.shape[-1:] != (self.dim,):
            raise ShapeMismatchError(self, f"expected input of shape (..., {self.dim}), got {x.shape}")

    def details(self) -> str:
        return "" if self.dim is None else str(self.dim)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(xp=xp, dtype=dtype, rng=rng)
        if cls is not SizedActivation:
            yield cls(3, xp=xp, dtype=dtype), (2, 3)
