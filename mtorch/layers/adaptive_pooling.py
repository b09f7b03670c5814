"""Pooling into a given number of bins."""

import math
from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, widened
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.geometry import Sizes, check_image, check_sizes
from mtorch.math.windows import Pair


class AdaptiveAvgPool2d(Layer):
    """y[n, c, i, j] = the mean of x over bin (i, j): rows floor(i H / OH) to ceil((i + 1) H / OH), columns alike.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) for any H and W; output_size 1 is the global mean.

    Backward: an entry has the weight 1 / |bin| in each bin that holds it: dx = sum over those of output_grad / |bin|.
    Where OH does not divide H, bins overlap.
    """

    array_only = True

    def __init__(self, output_size: Sizes, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.output_size = check_sizes("AdaptiveAvgPool2d", "output_size", output_size, 2)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return ({1: known[1]} if 1 in known else {}) | {2: self.output_size[0], 3: self.output_size[1]}

    def forward(self, x: Array) -> Array:
        check_image(self, x, 2)
        n, c, *size = x.shape
        if not math.prod(size):
            raise ShapeMismatchError(self, f"expected an image of at least 1 x 1, got input of shape {x.shape}")
        self.remember(size)
        y = self.xp.empty_like(x, shape=(n, c, *self.output_size))
        x = widened(x)
        for (i, rows), (j, columns) in self._bins(size):
            y[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
        return y

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        size = self.recall()
        dx = self.xp.zeros_like(g, shape=(*g.shape[:2], *size))
        for (i, rows), (j, columns) in self._bins(size):
            entries = (rows.stop - rows.start) * (columns.stop - columns.start)
            dx[:, :, rows, columns] += g[:, :, i, j, None, None] / entries
        return dx.astype(self.dtype, copy=False)

    def _bins(self, size: Pair) -> Iterator[tuple[tuple[int, slice], tuple[int, slice]]]:
        """(i, its rows), (j, its columns) for every bin."""
        along_h, along_w = (
            [slice(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
            for n, out in zip(size, self.output_size, strict=True)
        )
        return product(enumerate(along_h), enumerate(along_w))

    def details(self) -> str:
        return f"{self.output_size[0]} x {self.output_size[1]}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(1, xp=xp, dtype=dtype), (2, 3, 4, 5)
        yield cls((2, 3), xp=xp, dtype=dtype), (2, 2, 5, 7)
        yield cls((3, 4), xp=xp, dtype=dtype), (1, 2, 2, 4)  # more bins than rows
