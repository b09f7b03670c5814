"""Sliding windows by way of strides."""

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.math.windows import Window, windows_out


def strided_windows_out(xp, x: Array, window: Window) -> Array:
    """One copy of a view of the padded image that repeats its elements by way of its strides."""
    n, c, h, w = x.shape
    (kernel, (top, left), (out_h, out_w)) = window.kernel, window.padding, window.out_size((h, w))
    padded = numpy.empty((c, h + 2 * top, w + 2 * left, n), x.dtype)
    if top or left:
        padded[...] = 0
    padded[:, top : top + h, left : left + w] = x.transpose(1, 2, 3, 0)
    by_channel, by_row, by_column, by_image = padded.strides
    across = (by_row * window.dilation[0], by_column * window.dilation[1])
    along = (by_row * window.stride[0], by_column * window.stride[1])
    shape, strides = (c, *kernel, out_h, out_w, n), (by_channel, *across, *along, by_image)
    columns = numpy.ndarray(shape, x.dtype, padded, 0, strides).copy()
    return columns.reshape(c, kernel[0] * kernel[1], out_h, out_w, n)


replace(windows_out, numpy, strided_windows_out)
