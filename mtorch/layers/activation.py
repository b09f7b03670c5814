"""What all elementwise activations share."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.checks import check_size
from mtorch.layer import Layer


class Activation(Layer):
    """An elementwise function; any shape -> the same shape.

    dim: optional, the size of the last axis; `Sequential` then checks that neighbours agree.
    """

    array_only = True

    def __init__(self, dim: int | None = None, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.dim = None if dim is None else check_size(type(self).__name__, "dim", dim)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.dim)
        return known if self.dim is None else known | {-1: self.dim}

    def details(self) -> str:
        return "" if self.dim is None else str(self.dim)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is not Activation:
            yield cls(xp=xp, dtype=dtype), (4, 3)
            yield cls(3, xp=xp, dtype=dtype), (2, 1, 3)
