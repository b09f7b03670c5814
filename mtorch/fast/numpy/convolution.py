"""Convolution row by row, for batches of images.

An image row lies in memory as (C, W, N), and is unrolled along W alone, as KW copies shifted by a column each, into
(KW * C, OW * N).  KH unrolled rows that follow one another are then the columns of one output row *as they lie*, a
matrix without a further copy: the unrolled image is KW times the image instead of KH * KW times, its copies are long
runs, and a product serves one output row of the whole batch, of which one call makes a stack.  Every result lies in
memory as (H, C, W, N) and is handed on as an (N, C, H, W) view, which is what the next convolution likes to read.

Where a row has few columns, and with a dilation along H, the products of `mtorch.layers.convolution` are better.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy
from numpy.lib.stride_tricks import as_strided

from mtorch.accelerate import replace
from mtorch.arrays import Array, widened
from mtorch.fast import aligned
from mtorch.fast.threads import Task, in_threads, together
from mtorch.fast.unpacked import in_columns
from mtorch.layers import convolution as reference
from mtorch.layers.conv import Conv
from mtorch.layers.conv_transpose import ConvTranspose
from mtorch.layers.convolution import Convolution
from mtorch.layers.geometry import as_image, like_input
from mtorch.math.windows import Pair, Window, spans

UNROLLED_BYTES = 1 << 22  # how much of an image is unrolled at a time
PRODUCT_BYTES = 1 << 21  # how much of the products that add up to an image gradient
FEW_COLUMNS = 192  # below this many columns in an output row one product for all rows is better


# ---------------------------------------------------------------------- the layers


def conv(layer: Conv, x: Array) -> tuple[Array, Any]:
    image, bias = layer.check_input(x), None if layer.bias is None else layer.bias.value
    y = convolve(image, layer.kernels(), bias, layer.window, layer.groups)
    return like_input(y, layer.rank), image


def conv_grad(layer: Conv, image: Array, output_grad: Array) -> Array:
    """Both gradients at once: a thread that is done with one, of an odd number of rows, goes on with the other."""
    g = as_image(output_grad)
    dx = input_grad(g, layer.kernels(), image.shape[2:], layer.window, layer.groups)
    if layer.weight.trainable:
        dw, dx = together(weight_grad(image, g, layer.window, layer.groups), dx)
        layer.weight.accumulate(like_input(dw, layer.rank))
    else:
        (dx,) = together(dx)
    if layer.bias is not None:
        layer.bias.accumulate(lambda: channel_sum(g))
    return layer.input_grad(dx)


def conv_parameter_grads(layer: Conv, image: Array, output_grad: Array) -> None:
    g = as_image(output_grad)
    _parameter_grads(layer, image, g, g)


def conv_transpose(layer: ConvTranspose, x: Array) -> tuple[Array, Any]:
    image, size = layer.check_input(x)
    (y,) = together(input_grad(image, layer.kernels(), size, layer.window, layer.groups))
    if layer.bias is not None:
        y += layer.bias.value[:, None, None]
    return like_input(y, layer.rank), image


def conv_transpose_grad(layer: ConvTranspose, image: Array, output_grad: Array) -> Array:
    conv_transpose_parameter_grads(layer, image, output_grad)
    dx = convolve(as_image(output_grad), layer.kernels(), None, layer.window, layer.groups)
    return like_input(dx, layer.rank)


def conv_transpose_parameter_grads(layer: ConvTranspose, image: Array, output_grad: Array) -> None:
    g = as_image(output_grad)
    _parameter_grads(layer, g, image, g)


def _parameter_grads(layer: Convolution, image: Array, dy: Array, output_grad: Array) -> None:
    """image: what the windows slide over; dy: what stands at their positions. One of the two is the output gradient."""
    if layer.weight.trainable:
        (dw,) = together(weight_grad(image, dy, layer.window, layer.groups))
        layer.weight.accumulate(like_input(dw, layer.rank))
    if layer.bias is not None:
        layer.bias.accumulate(lambda: channel_sum(output_grad))


# ---------------------------------------------------------------------- the three products


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Array:
    """x (N, C, H, W), weight (O, C / G, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    if _rows_pay(window, len(x) * window.out_size(x.shape[2:])[1]):
        return _rows_convolve(x, weight, bias, window, groups)
    y = reference.convolve(numpy, x, weight, window, groups)
    if bias is not None:
        y += bias[:, None, None]
    return y


def weight_grad(x: Array, dy: Array, window: Window, groups: int) -> Task:
    """x (N, C, H, W), dy (N, O, OH, OW) -> dweight (O, C / G, KH, KW)."""
    if _rows_pay(window, dy.shape[0] * dy.shape[3]):
        return _rows_weight_grad(widened(x), widened(dy), window, groups)
    return _undivided(lambda _: reference.convolve_weight_grad(numpy, x, dy, window, groups))


def input_grad(dy: Array, weight: Array, size: Pair, window: Window, groups: int) -> Task:
    """dy (N, O, OH, OW), weight (O, C / G, KH, KW), size (H, W) -> dx (N, C, H, W)."""
    if _rows_pay(window, dy.shape[0] * dy.shape[3]):
        return _rows_input_grad(dy, widened(weight), size, window, groups)
    return _undivided(lambda _: reference.convolve_input_grad(numpy, dy, weight, size, window, groups))


def _undivided(function: Callable[[range], Array]) -> Task:
    return Task(function, 1, 0.0, finish=lambda parts: parts[0])


def channel_sum(dy: Array) -> Array:
    """dy (N, O, OH, OW) -> (O,), the gradient of a bias."""
    dy = widened(dy)
    rows = dy.transpose(2, 1, 3, 0)
    if not rows.flags.c_contiguous or not rows.size:
        return dy.sum(axis=(0, 2, 3))
    columns = rows.shape[2] * rows.shape[3]
    return (rows.reshape(*rows.shape[:2], columns) @ numpy.ones(columns, rows.dtype)).sum(axis=0)


def _rows_pay(window, columns):
    return columns >= FEW_COLUMNS and window.dilation[0] == 1


# ---------------------------------------------------------------------- rows


def _rows(image, groups):
    """(N, C, H, W) -> (G, H, C / G, W * N), a view where the image lies in memory like that."""
    n, c, h, w = image.shape
    rows = image.transpose(2, 1, 3, 0).reshape(h, groups, c // groups, w, n).transpose(1, 0, 2, 3, 4)
    return numpy.ascontiguousarray(rows).reshape(groups, h, c // groups, w * n)


def _batch_last(image):
    """The image with the batch innermost in memory: a copy when it is not."""
    if image.strides[0] == image.itemsize or image.shape[0] == 1:
        return image
    return numpy.ascontiguousarray(image.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)


def _unroll(image, first, last, window, groups):
    """The image rows first, .., last - 1, or zeros beyond the image, unrolled: (G, rows, KW * C / G, OW * N)."""
    n, c, h, w = image.shape
    kernel_w, out_w, depth = window.kernel[1], window.out_size((h, w))[1], c // groups
    low, high = (min(max(i, 0), h) for i in (first, last))
    allocate = aligned.aligned if aligned.is_large(image.nbytes) else numpy.empty  # a piece of it is not large
    out = allocate((groups, last - first, kernel_w, depth, out_w, n), image.dtype)
    out[:, : low - first] = 0
    out[:, high - first :] = 0
    part = image[:, :, low:high].transpose(2, 1, 3, 0).reshape(high - low, groups, depth, w, n).transpose(1, 0, 2, 3, 4)
    for k, (seen, columns) in enumerate(spans(window, w, 1)):
        target = out[:, low - first : high - first, k]
        target[:, :, :, : seen.start] = 0
        target[:, :, :, seen.stop :] = 0
        target[:, :, :, seen] = part[:, :, :, columns]
    return out.reshape(groups, last - first, kernel_w * depth, out_w * n)


def _stack(rows, tall, step, count):
    """(G, H, D, columns) -> (G, count, tall * D, columns): views of `tall` rows, each `step` rows below the last."""
    groups, _, depth, columns = rows.shape
    by_group, by_row, *rest = rows.strides
    return as_strided(rows, (groups, count, tall * depth, columns), (by_group, step * by_row, *rest))


def _walk(image, out_w, window, groups, part):
    """The columns of those output rows, as many rows at a time as stay in cache.

    Yields (output rows, their columns (G, rows, KH * KW * C / G, OW * N)).
    """
    n, c, *_ = image.shape
    (kernel, kernel_w), stride, padding = window.kernel, window.stride[0], window.padding[0]
    row_bytes = kernel_w * c * out_w * n * image.itemsize
    step = max(1, (UNROLLED_BYTES // row_bytes - kernel) // stride)
    for i in range(part.start, part.stop, step):
        count = min(step, part.stop - i)
        top = i * stride - padding
        unrolled = _unroll(image, top, top + (count - 1) * stride + kernel, window, groups)
        yield slice(i, i + count), _stack(unrolled, kernel, stride, count)


def _rows_convolve(x, weight, bias, window, groups):
    (n, _, *size), (o, c, kernel_h, kernel_w) = x.shape, weight.shape
    (out_h, out_w), og, image = window.out_size(size), o // groups, _batch_last(x)
    matrix = weight.transpose(0, 2, 3, 1).reshape(groups, 1, og, kernel_h * kernel_w * c)
    b = None if bias is None else bias.reshape(groups, 1, og, 1)
    y = aligned.empty((out_h, o, out_w, n), x.dtype)
    rows = y.reshape(out_h, groups, og, out_w * n).transpose(1, 0, 2, 3)

    def make(part: range) -> None:
        for i, columns in _walk(image, out_w, window, groups, part):
            in_columns(matrix, columns, rows[:, i])
            if b is not None:
                rows[:, i] += b

    in_threads(make, out_h, y.size * kernel_h * kernel_w * c)
    return y.transpose(3, 1, 0, 2)


def _rows_weight_grad(x, dy, window, groups):
    (_, o, out_h, out_w), (kernel_h, kernel_w) = dy.shape, window.kernel
    c, og, image, rows = x.shape[1] // groups, o // groups, _batch_last(x), _rows(dy, groups)

    def add_up(part: range) -> Array:
        total = numpy.zeros((groups, kernel_h * kernel_w * c, og), x.dtype)
        for i, columns in _walk(image, out_w, window, groups, part):
            product = numpy.empty((*columns.shape[:3], og), x.dtype)
            numpy.matmul(columns, rows[:, i].transpose(0, 1, 3, 2), out=product)
            total += product.sum(axis=1)
        return total

    def joined(parts: list[Array]) -> Array:
        dw = functools.reduce(numpy.add, parts).reshape(groups, kernel_h, kernel_w, c, og)
        return dw.transpose(0, 4, 3, 1, 2).reshape(o, c, kernel_h, kernel_w)

    return Task(add_up, out_h, dy.size * kernel_h * kernel_w * c, joined)


def _rows_input_grad(output_grad, weight, size, window, groups):
    """A row of dx sums over the rows of dy whose windows saw it: one product for them all, then KW shifted adds.

    With stride s the rows i of dx with the same (i + p) % s were seen with the same kernel rows.
    """
    (n, o, _, out_w), (_, c, kernel_h, kernel_w), (height, width) = output_grad.shape, weight.shape, size
    stride, padding = window.stride[0], window.padding[0]
    dy, og, columns = _rows(widened(output_grad), groups), o // groups, spans(window, width, 1)
    w = weight.reshape(groups, og, c, kernel_h, kernel_w).transpose(0, 4, 2, 3, 1)
    dx = aligned.empty((height, groups, c, width, n), dy.dtype)
    step = max(1, PRODUCT_BYTES // (groups * kernel_w * c * out_w * n * dy.itemsize)) * stride

    def make(part: range) -> None:
        for phase in range(stride):
            seen = w[:, :, :, phase::stride][:, :, :, ::-1]  # up, as the rows of dy go down
            matrix = seen.reshape(groups, 1, kernel_w * c, seen.shape[3] * og)
            for i in range(part.start + (phase - part.start - padding) % stride, part.stop, step):
                rows = range(i, min(part.stop, i + step), stride)
                product = numpy.empty((groups, len(rows), kernel_w * c, out_w * n), dy.dtype)
                _multiply_rows(matrix, dy, (i + padding) // stride - seen.shape[3] + 1, product)
                shifted = product.reshape(groups, len(rows), kernel_w, c, out_w, n).transpose(2, 1, 0, 3, 4, 5)
                _add_shifted(dx[i : rows.stop : stride], shifted, columns)

    def joined(_: list[None]) -> Array:
        image = dx.transpose(4, 1, 2, 0, 3).reshape(n, groups * c, height, width)
        return image.astype(output_grad.dtype, copy=False)

    return Task(make, height, dy.size * kernel_h * kernel_w * c, joined)


def _multiply_rows(matrix, dy, low, product):
    """product[:, j] = matrix @ the rows of dy (G, H, O / G, columns) from low + j on, which are zeros beyond the image.

    Where all of them lie inside, the rows j are one stacked product.
    """
    height, og = dy.shape[1:3]
    tall, count = matrix.shape[3] // og, product.shape[1]
    inside = range(max(0, -low), min(count, height - tall - low + 1))
    if inside:
        stack = _stack(dy[:, low + inside.start :], tall, 1, len(inside))
        in_columns(matrix, stack, product[:, inside.start : inside.stop])
    for j in [j for j in range(count) if j not in inside]:
        first, last = max(low + j, 0), min(low + j + tall, height)
        if first >= last:
            product[:, j] = 0
        else:
            part = matrix[..., (first - low - j) * og : (last - low - j) * og]
            numpy.matmul(part, _stack(dy[:, first:], last - first, 1, 1), out=product[:, j : j + 1])


def _add_shifted(rows, shifted, columns):
    """rows (.., W, N) = the sum of shifted (KW, .., OW, N) over KW, each at its columns of the image."""
    seen, where = columns[0]
    if where.step == 1:
        rows[..., : where.start, :] = 0
        rows[..., where.stop :, :] = 0
    else:
        rows[...] = 0
    rows[..., where, :] = shifted[0][..., seen, :]
    for k, (seen, where) in enumerate(columns[1:], 1):
        rows[..., where, :] += shifted[k][..., seen, :]


replace(
    Conv,
    numpy,
    forward=conv,
    backward=conv_grad,
    backward_parameters=conv_parameter_grads,
    multithreaded=lambda layer: True,
)
replace(
    ConvTranspose,
    numpy,
    forward=conv_transpose,
    backward=conv_transpose_grad,
    backward_parameters=conv_transpose_parameter_grads,
    multithreaded=lambda layer: True,
)
