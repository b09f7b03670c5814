"""Windows out, windows back: the pair of moves under every convolution and pooling.

A window slides over the last two axes of an image x (N, C, H, W).  Output position (i, j) sees, at kernel position
(k, l), the input element

    x[n, c, i * stride - padding + k * dilation, j * stride - padding + l * dilation]        (per axis)

or padding where that lies outside.  `windows_out` copies what every window sees into columns
(C, KH, KW, OH, OW, N); `windows_back` is its transpose: it adds every column entry to the element it was copied from.
One-dimensional data are images of height 1.

The batch is the last axis of the columns, and the arrays made here lie in memory as (.., W, N) and are handed on as
(N, C, H, W) views: the innermost runs are then long whatever the stride, and elementwise layers keep the order.
"""

from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels.memory import scratch

Pair = tuple[int, int]


class Window(NamedTuple):
    """The geometry of a sliding window, each a pair (along H, along W)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def out_size(self, size: Pair) -> Pair:
        """The number of positions of the window on an image of `size`."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )


@cache
def spans(window: Window, size: int, axis: int) -> tuple[tuple[slice, slice], ...]:
    """For each kernel position along one axis: which outputs see a real element there, and which elements those are."""
    kernel, stride, padding, dilation = (pair[axis] for pair in window)
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    result = []
    for k in range(kernel):
        offset = k * dilation - padding
        low = max(0, -(offset // stride))
        high = max(low, min(out, (size - 1 - offset) // stride + 1))
        start = low * stride + offset
        stop = start + (high - low - 1) * stride + 1 if high > low else start
        result.append((slice(low, high), slice(start, stop, stride)))
    return tuple(result)


def windows_out(xp: ModuleType, x: Array, window: Window, fill: float = 0.0) -> Array:
    """(N, C, H, W) -> (C, KH, KW, OH, OW, N): what every window sees, `fill` where it sees padding."""
    return (_strided_windows_out if is_numpy(xp) else _sliced_windows_out)(xp, x, window, fill)


def _sliced_windows_out(xp, x, window, fill):
    """One copy for every kernel position."""
    n, c, h, w = x.shape
    shape = (c, *window.kernel, *window.out_size((h, w)), n)
    cols = xp.full(shape, fill, dtype=x.dtype) if any(window.padding) else xp.empty(shape, dtype=x.dtype)
    image = x.transpose(1, 2, 3, 0)
    for k, (out_rows, rows) in enumerate(spans(window, h, 0)):
        for m, (out_columns, columns) in enumerate(spans(window, w, 1)):
            cols[:, k, m, out_rows, out_columns] = image[:, rows, columns]
    return cols


def _strided_windows_out(xp, x, window, fill):
    """One copy of a view of the padded image that repeats its elements by way of its strides."""
    n, c, h, w = x.shape
    (kernel, (top, left), (out_h, out_w)) = window.kernel, window.padding, window.out_size((h, w))
    padded = scratch("padded", (c, h + 2 * top, w + 2 * left, n), x.dtype)
    if top or left:
        padded[...] = fill
    padded[:, top : top + h, left : left + w] = x.transpose(1, 2, 3, 0)
    by_channel, by_row, by_column, by_image = padded.strides
    across = (by_row * window.dilation[0], by_column * window.dilation[1])
    along = (by_row * window.stride[0], by_column * window.stride[1])
    shape, strides = (c, *kernel, out_h, out_w, n), (by_channel, *across, *along, by_image)
    return numpy.ndarray(shape, x.dtype, padded, 0, strides).copy()


def windows_back(xp: ModuleType, cols: Array, size: Pair, window: Window) -> Array:
    """(C, KH, KW, OH, OW, N) -> (N, C, H, W): the sum of everything that was copied from each element."""
    c, n = cols.shape[0], cols.shape[-1]
    image = xp.zeros((c, *size, n), dtype=cols.dtype)
    for k, (out_rows, rows) in enumerate(spans(window, size[0], 0)):
        for m, (out_columns, columns) in enumerate(spans(window, size[1], 1)):
            image[:, rows, columns] += cols[:, k, m, out_rows, out_columns]
    return image.transpose(3, 0, 1, 2)
