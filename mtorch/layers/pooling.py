"""Pooling: one number for every window of an image or a sequence."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, may_be_true, wide, widened
from mtorch.checks import check_flag
from mtorch.layer import Layer
from mtorch.layers.geometry import (
    Sizes,
    as_image,
    check_fits,
    check_image,
    describe,
    like_input,
    make_window,
)
from mtorch.math.windows import Pair, Window, positions, spans


def max_pool(xp: ModuleType, x: Array, window: Window) -> Array:
    """x (N, C, H, W) -> y (N, C, OH, OW)."""
    n, c, *size = x.shape
    y = xp.full_like(x, -math.inf, shape=(n, c, *window.out_size(size)))
    for out, seen in positions(window, size):
        y[:, :, *out] = xp.maximum(y[:, :, *out], x[:, :, *seen])
    return y


def max_pool_grad(xp: ModuleType, x: Array, y: Array, dy: Array, window: Window) -> Array:
    """x (N, C, H, W), y and dy (N, C, OH, OW) -> dx: each dy goes to the first entry of its window that is not below y.

    That is the largest one. Where y is NaN, it is the last NaN, as in torch.
    """
    dx = xp.zeros_like(x, dtype=wide(x.dtype))
    nan = y != y
    unclaimed = ~nan  # windows whose winner is still to come
    for out, seen in positions(window, x.shape[2:]):
        wins = unclaimed[:, :, *out] & ~(x[:, :, *seen] < y[:, :, *out])
        dx[:, :, *seen] += dy[:, :, *out] * wins
        unclaimed[:, :, *out] ^= wins
    if may_be_true(xp, nan):
        for out, seen in reversed(list(positions(window, x.shape[2:]))):
            wins = nan[:, :, *out] & (x[:, :, *seen] != x[:, :, *seen])
            dx[:, :, *seen] += dy[:, :, *out] * wins
            nan[:, :, *out] ^= wins
    return dx.astype(x.dtype, copy=False)


def window_sums(xp: ModuleType, x: Array, window: Window, axis: int) -> Array:
    """Along one axis of the image: y[i] = sum_k x[i s - p + k]."""
    y = _zeros(xp, x, window.out_size(x.shape[2:])[axis - 2], axis)
    for out, seen in spans(window, x.shape[axis], axis - 2):
        y[_at(axis, out)] += x[_at(axis, seen)]
    return y


def window_sums_grad(xp: ModuleType, dy: Array, size: int, window: Window, axis: int) -> Array:
    """dy -> dx: the sum of dy[i] over all windows i that contain the entry."""
    dx = _zeros(xp, dy, size, axis)
    for out, seen in spans(window, size, axis - 2):
        dx[_at(axis, seen)] += dy[_at(axis, out)]  # in window_sums this was y[out] += x[seen]
    return dx


def _zeros(xp: ModuleType, like: Array, size: int, axis: int) -> Array:
    return xp.zeros_like(like, shape=like.shape[:axis] + (size,) + like.shape[axis + 1 :])


def _at(axis: int, entries: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (entries,)


class _Pool(Layer):
    """A window that slides over every channel by itself; `stride` is the size of the kernel unless it is given."""

    array_only = True
    rank = 2

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None,
        padding: Sizes,
        dilation: Sizes,
        ceil_mode: bool,
        *,
        xp: ModuleType,
        dtype: Any,
        rng: Any,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name, stride = type(self).__name__, kernel_size if stride is None else stride
        ceil_mode = check_flag(name, "ceil_mode", ceil_mode)
        self.window = make_window(name, self.rank, kernel_size, stride, padding, dilation, ceil_mode)
        if any(2 * p > k for p, k in zip(self.window.padding, self.window.kernel, strict=True)):
            raise ValueError(f"{name} expected padding of at most half the kernel_size {kernel_size}, got {padding}")

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return {1: known[1]} if 1 in known else {}

    def details(self) -> str:
        return describe(self.window, self.rank) + (", ceil_mode=True" if self.window.ceil else "")

    def check_input(self, x: Array) -> Array:
        """x as an image; ShapeMismatchError where it does not fit."""
        return check_fits(self, check_image(self, x, self.rank), self.window)


class MaxPool(_Pool):
    """The largest entry of every window, for images and for sequences, which are images of height 1."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        *,
        ceil_mode: bool = False,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, xp=xp, dtype=dtype, rng=rng)

    @accelerated
    def forward(self, x: Array) -> Array:
        image = self.check_input(x)
        y = max_pool(self.xp, image, self.window)
        self.remember(image, y)
        return like_input(y, self.rank)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = as_image(self.cast_grad(output_grad))
        image, y = self.recall()
        dx = max_pool_grad(self.xp, image, y, g, self.window)
        return like_input(dx, self.rank)


class AvgPool(_Pool):
    """The mean of every window, for images and for sequences, which are images of height 1.

    The sum over a window is the sum along W of the sums along H.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(kernel_size, stride, padding, 1, ceil_mode, xp=xp, dtype=dtype, rng=rng)
        self.count_include_pad = check_flag(type(self).__name__, "count_include_pad", count_include_pad)

    def counts(self, size: Pair) -> Any:
        """What the sum over each window is divided by: KH KW, or (OH, OW) where not all windows count as many."""
        if self.count_include_pad and not self.window.ceil:
            return math.prod(self.window.kernel)
        along_h, along_w = (self._counts(axis, n) for axis, n in enumerate(size))
        return along_h[:, None] * along_w

    def _counts(self, axis: int, n: int) -> Array:
        """How many places of the image, or of the image and its padding, each window covers along one axis."""
        xp, window = self.xp, self.window
        kernel, stride, padding, _ = (pair[axis] for pair in window[:4])
        start = xp.arange(window.out_size((n, n))[axis]) * stride - padding
        edge = padding if self.count_include_pad else 0
        return (xp.minimum(start + kernel, n + edge) - xp.maximum(start, -edge)).astype(self.dtype)

    def forward(self, x: Array) -> Array:
        image = self.check_input(x)
        self.remember(image.shape[2:])
        sums = window_sums(self.xp, window_sums(self.xp, widened(image), self.window, axis=2), self.window, axis=3)
        return like_input((sums / self.counts(image.shape[2:])).astype(self.dtype, copy=False), self.rank)

    def backward(self, output_grad: Array) -> Array:
        g = as_image(self.cast_grad(output_grad))
        h, w = self.recall()
        share = widened(g) / self.counts((h, w))
        columns = window_sums_grad(self.xp, share, w, self.window, axis=3)
        dx = window_sums_grad(self.xp, columns, h, self.window, axis=2)
        return like_input(dx.astype(self.dtype, copy=False), self.rank)

    def details(self) -> str:
        return super().details() + ("" if self.count_include_pad else ", count_include_pad=False")


class MaxPool2d(MaxPool):
    """y[n, c, i, j] = max_{k, l} x[n, c, i s - p + k d, j s - p + l d]; padding never wins.

    ceil_mode: OH is rounded up, so that a last window may reach beyond the padding, if it begins before that.

    Shapes: (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2p - d (KH - 1) - 1) // s + 1.  Remembers x and y.

    Backward: y is a copy of one entry, so the whole of its gradient goes there; of equal ones the first in reading
    order wins. NaN wins over every number, and of several the last, as in torch. Where windows overlap, an entry that
    won several times gets the sum.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype}
        for sizes, shape in _IMAGES:
            yield cls(*sizes, **bound), shape
        yield cls(2, 1, 1, (2, 3), **bound), (2, 1, 4, 5)
        yield cls(3, 2, 1, ceil_mode=True, **bound), (2, 1, 4, 6)
        yield cls(2, ceil_mode=True, **bound), (8, 2, 3, 5)


class AvgPool2d(AvgPool):
    """y[n, c, i, j] = sum_{k, l} x[n, c, i s - p + k, j s - p + l] / (KH KW); padding counts as zeros.

    count_include_pad: False divides by the number of entries of the image that the window covers.
    ceil_mode: as in `MaxPool2d`; what a window covers beyond the padding does not count.

    Shapes: (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2p - KH) // s + 1.  Remembers the size of the image.

    Backward: every entry of a window has the weight 1 / (KH KW), so dx is the sum of output_grad / (KH KW) over the
    windows that saw it.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype}
        for sizes, shape in _IMAGES:
            yield cls(*sizes, **bound), shape
        yield cls(3, 2, 1, ceil_mode=True, **bound), (2, 1, 4, 6)
        yield cls(2, 1, 1, count_include_pad=False, **bound), (2, 1, 3, 4)
        yield cls((2, 3), 3, (1, 0), True, False, **bound), (2, 1, 4, 6)


class MaxPool1d(MaxPool):
    """y[n, c, i] = max_k x[n, c, i s - p + k d]: `MaxPool2d` along one axis.

    Shapes: (N, C, T) -> (N, C, OT), OT = (T + 2p - d (K - 1) - 1) // s + 1.

    Backward: y is a copy of one entry, so the whole of its gradient, output_grad, goes there; of equal ones the first
    wins.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype}
        for sizes, shape in _SEQUENCES:
            yield cls(*sizes, **bound), shape
        yield cls(2, 3, 1, 2, ceil_mode=True, **bound), (2, 2, 7)


class AvgPool1d(AvgPool):
    """y[n, c, i] = sum_k x[n, c, i s - p + k] / K: `AvgPool2d` along one axis.

    Shapes: (N, C, T) -> (N, C, OT), OT = (T + 2p - K) // s + 1.

    Backward: an entry has the weight 1 / K in each window that saw it, so dx sums output_grad / K over those windows.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype}
        for sizes, shape in _SEQUENCES:
            yield cls(*sizes, **bound), shape
        yield cls(3, 2, 1, True, False, **bound), (2, 2, 6)


_IMAGES: list[tuple[Any, tuple[int, ...]]] = [
    ((2,), (2, 2, 4, 6)),
    ((2,), (2, 2, 5, 7)),  # a remainder
    ((3, 2, 1), (2, 2, 6, 5)),  # overlap and padding
    (((2, 3), (1, 2), (0, 1)), (2, 1, 4, 6)),
    ((1, 2), (1, 2, 5, 4)),  # entries no window sees
    ((2,), (8, 2, 4, 4)),
]
_SEQUENCES: list[tuple[Any, tuple[int, ...]]] = [((2,), (2, 3, 6)), ((3, 2, 1), (2, 2, 8)), ((2, 3), (2, 2, 7))]
