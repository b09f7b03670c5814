"""Pooling: one number for every window of an image or a sequence."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.errors import ShapeMismatchError
from mtorch.kernels.pooling import (
    adaptive_mean_pool,
    adaptive_mean_pool_grad,
    max_pool,
    max_pool_grad,
    mean_pool,
    mean_pool_grad,
)
from mtorch.layer import Layer
from mtorch.layers.geometry import Sizes, as_image, check_fits, check_sizes, describe, make_window


class _Pool(Layer):
    """A window that slides over every channel by itself; `stride` is the size of the kernel unless it is given."""

    array_only = True
    rank = 2

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.window = make_window(name, self.rank, kernel_size, kernel_size if stride is None else stride, padding)
        if any(2 * p > k for p, k in zip(self.window.padding, self.window.kernel, strict=True)):
            raise ValueError(f"{name} expected padding of at most half the kernel_size {kernel_size}, got {padding}")

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return {1: known[1]} if 1 in known else {}

    def details(self) -> str:
        return describe(self.window, self.rank)

    def _image(self, x: Array) -> Array:
        image = as_image(self, x, self.rank)
        check_fits(self, image.shape[2:], self.window)
        return image


class _MaxPool(_Pool):
    new_result = new_grad = True

    def forward(self, x: Array) -> Array:
        image = self._image(x)
        y, winner = max_pool(self.xp, image, self.window)
        self.remember(winner, image.shape[2:])
        return y if self.rank == 2 else y[:, :, 0]

    def backward(self, output_grad: Array) -> Array:
        winner, size = self.recall()
        g = output_grad if self.rank == 2 else output_grad[:, :, None]
        dx = max_pool_grad(self.xp, g, winner, size, self.window)
        return dx if self.rank == 2 else dx[:, :, 0]


class _AvgPool(_Pool):
    new_result = new_grad = True

    def forward(self, x: Array) -> Array:
        image = self._image(x)
        self.remember(image.shape[2:])
        y = mean_pool(self.xp, image, self.window)
        return y if self.rank == 2 else y[:, :, 0]

    def backward(self, output_grad: Array) -> Array:
        size = self.recall()
        g = output_grad if self.rank == 2 else output_grad[:, :, None]
        dx = mean_pool_grad(self.xp, g, size, self.window)
        return dx if self.rank == 2 else dx[:, :, 0]


class MaxPool2d(_MaxPool):
    """y[n, c, i, j] = max_{k, l} x[n, c, i s - p + k, j s - p + l]; padding never wins.

    Shapes: (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2p - KH) // s + 1.  Remembers which (k, l) won, a byte an output.

    Backward: y is a copy of one entry, so the whole of its gradient goes there; of equal ones the first in reading
    order wins. Where windows overlap, an entry that won several times gets the sum.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for sizes, shape in _IMAGES:
            yield cls(*sizes, xp=xp, dtype=dtype), shape


class AvgPool2d(_AvgPool):
    """y[n, c, i, j] = sum_{k, l} x[n, c, i s - p + k, j s - p + l] / (KH KW); padding counts as zeros.

    Shapes: (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2p - KH) // s + 1.  Remembers the size of the image.

    Backward: every entry of a window has the weight 1 / (KH KW), so dx is the sum of output_grad / (KH KW) over the
    windows that saw it.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for sizes, shape in _IMAGES:
            yield cls(*sizes, xp=xp, dtype=dtype), shape


class MaxPool1d(_MaxPool):
    """y[n, c, i] = max_k x[n, c, i s - p + k]: `MaxPool2d` along one axis.

    Shapes: (N, C, T) -> (N, C, OT), OT = (T + 2p - K) // s + 1.  Backward: output_grad goes to the first winner.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for sizes, shape in _SEQUENCES:
            yield cls(*sizes, xp=xp, dtype=dtype), shape


class AvgPool1d(_AvgPool):
    """y[n, c, i] = sum_k x[n, c, i s - p + k] / K: `AvgPool2d` along one axis.

    Shapes: (N, C, T) -> (N, C, OT), OT = (T + 2p - K) // s + 1.  Backward: dx sums output_grad / K over the windows
    that saw it.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for sizes, shape in _SEQUENCES:
            yield cls(*sizes, xp=xp, dtype=dtype), shape


class AdaptiveAvgPool2d(Layer):
    """y[n, c, i, j] = the mean of x over bin (i, j): rows floor(i H / OH) to ceil((i + 1) H / OH), columns alike.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) for any H and W; output_size 1 is the global mean.

    Backward: an entry has the weight 1 / |bin| in each bin that holds it: dx = sum over those of output_grad / |bin|.
    Where OH does not divide H, bins overlap.
    """

    array_only = new_result = new_grad = True

    def __init__(self, output_size: Sizes, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.output_size = check_sizes("AdaptiveAvgPool2d", "output_size", output_size, 2)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return ({1: known[1]} if 1 in known else {}) | {2: self.output_size[0], 3: self.output_size[1]}

    def forward(self, x: Array) -> Array:
        if not math.prod(as_image(self, x, 2).shape[2:]):
            raise ShapeMismatchError(self, f"expected an image of at least 1 x 1, got input of shape {x.shape}")
        self.remember(x.shape[2:])
        return adaptive_mean_pool(self.xp, x, self.output_size)

    def backward(self, output_grad: Array) -> Array:
        return adaptive_mean_pool_grad(self.xp, output_grad, self.recall())

    def details(self) -> str:
        return f"{self.output_size[0]} x {self.output_size[1]}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(1, xp=xp, dtype=dtype), (2, 3, 4, 5)
        yield cls((2, 3), xp=xp, dtype=dtype), (2, 2, 5, 7)
        yield cls((3, 4), xp=xp, dtype=dtype), (1, 2, 2, 4)  # more bins than rows


_IMAGES = [
    ((2,), (2, 2, 4, 6)),
    ((2,), (2, 2, 5, 7)),  # a remainder
    ((3, 2, 1), (2, 2, 6, 5)),  # overlap and padding
    (((2, 3), (1, 2), (0, 1)), (2, 1, 4, 6)),
    ((1, 2), (1, 2, 5, 4)),  # entries no window sees
    ((2,), (8, 2, 4, 4)),
]
_SEQUENCES = [((2,), (2, 3, 6)), ((3, 2, 1), (2, 2, 8)), ((2, 3), (2, 2, 7))]
