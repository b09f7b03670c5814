"""Sliding windows and their transpose: the pair of functions under every convolution, and the geometry of pooling.

A window slides over the last two axes of an image x (N, C, H, W).  Output position (i, j) sees, at kernel position
(k, l), the input element

    x[n, c, i * stride - padding + k * dilation, j * stride - padding + l * dilation]        (per axis)

or padding where that lies outside.  `windows_out` copies what every window sees into columns (C, KH KW, OH, OW, N);
`windows_back` is its transpose: it adds every column entry to the element it was copied from.  One-dimensional data
are images of height 1.

The batch is the last axis of the columns, so that every copy consists of long runs, also with a stride.
"""

from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, wide

Pair = tuple[int, int]
Area = tuple[slice, slice]  # rows and columns of an image


class Window(NamedTuple):
    """The geometry of a sliding window, each a pair (along H, along W).

    ceil: whether a last position counts that reaches beyond the padding, as long as it begins before it.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False

    def out_size(self, size: Pair) -> Pair:
        """The number of positions of the window on an image of `size`."""
        (height, width), (kernel_h, kernel_w), (stride_h, stride_w), (top, left), (apart_h, apart_w), ceil = size, *self
        if ceil:
            return self._ceil(0, height), self._ceil(1, width)
        return (
            (height + 2 * top - apart_h * (kernel_h - 1) - 1) // stride_h + 1,
            (width + 2 * left - apart_w * (kernel_w - 1) - 1) // stride_w + 1,
        )

    def _ceil(self, axis: int, size: int) -> int:
        kernel, stride, padding, dilation = (pair[axis] for pair in self[:4])
        out = -(-(size + 2 * padding - dilation * (kernel - 1) - 1) // stride) + 1
        return out if (out - 1) * stride < size + padding else out - 1


@lru_cache(maxsize=512)  # images of many sizes must not fill the memory
def spans(window: Window, size: int, axis: int) -> tuple[tuple[slice, slice], ...]:
    """For each kernel position along one axis: which outputs see a real element there, and which elements those are."""
    kernel, stride, padding, dilation = (pair[axis] for pair in window[:4])
    out = window.out_size((size, size))[axis]
    result = []
    for k in range(kernel):
        offset = k * dilation - padding
        low = max(0, -(offset // stride))
        high = max(low, min(out, (size - 1 - offset) // stride + 1))
        start = low * stride + offset
        stop = start + (high - low - 1) * stride + 1 if high > low else start
        result.append((slice(low, high), slice(start, stop, stride)))
    return tuple(result)


def positions(window: Window, size: Pair) -> Iterator[tuple[Area, Area]]:
    """For each kernel position in reading order: the outputs that see a real element there, and those elements."""
    for out_rows, rows in spans(window, size[0], 0):
        for out_columns, columns in spans(window, size[1], 1):
            yield (out_rows, out_columns), (rows, columns)


@accelerated
def windows_out(xp: ModuleType, x: Array, window: Window) -> Array:
    """(N, C, H, W) -> (C, KH KW, OH, OW, N): what every window sees, zero where it sees padding."""
    n, c, *size = x.shape
    image = xp.ascontiguousarray(x.transpose(1, 2, 3, 0))  # one transposing copy instead of KH KW
    columns = xp.zeros((c, window.kernel[0] * window.kernel[1], *window.out_size(size), n), dtype=x.dtype)
    for k, (out, seen) in enumerate(positions(window, size)):
        columns[:, k, *out] = image[:, *seen]
    return columns


def windows_back(xp: ModuleType, columns: Array, size: Pair, window: Window) -> Array:
    """(C, KH KW, OH, OW, N) -> (N, C, H, W): the sum of everything that was copied from each element."""
    image = xp.zeros((columns.shape[0], *size, columns.shape[-1]), dtype=wide(columns.dtype))
    for k, (out, seen) in enumerate(positions(window, size)):
        image[:, *seen] += columns[:, k, *out]  # in windows_out this was columns[:, k, *out] = image[:, *seen]
    return image.transpose(3, 0, 1, 2).astype(columns.dtype, copy=False)
