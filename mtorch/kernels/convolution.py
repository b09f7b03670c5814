"""Convolution (cross-correlation) of a batch of images and the gradients for its two factors.

With O output channels in G groups, window position (i, j) and kernel position (k, l),

    y[n, o, i, j] = sum_{c, k, l} weight[o, c, k, l] * x[n, c, i * s - p + k * d, j * s - p + l * d] + bias[o]

so in terms of the columns of `windows_out` it is one product a group, and so are its adjoints:

    y = weight @ columns,   dweight = dy @ columns^T,   dcolumns = weight^T @ dy,   dx = windows_back(dcolumns).

The generic bodies say just that.  The NumPy bodies (`_rows_...`) work on rows: an image row lies in memory as
(C, W, N), and unrolled along W alone, KW copies shifted by a column each, as (KW * C, OW * N).  KH unrolled rows that
follow one another are then the columns of one output row *as they lie*, a matrix without a further copy: the unrolled
image is KW times the image instead of KH * KW times, its copies are long runs, and one product serves one output row
of the whole batch.  Every result lies in memory as (H, C, W, N) and is handed on as an (N, C, H, W) view, which is what
the next convolution likes to read.
"""

from functools import cache
from types import ModuleType

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels.memory import empty, scratch
from mtorch.kernels.threads import in_parts
from mtorch.kernels.windows import Pair, Window, spans, windows_back, windows_out

UNROLLED_BYTES = 1 << 24  # how much of an image is unrolled at a time
FEW_COLUMNS = 192  # below this many columns in an output row one product for all rows is better


def convolve(xp: ModuleType, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> Array:
    """x (N, C, H, W), weight (O, C / G, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    body = _rows_convolve if _rows_pay(xp, x, window) else _columns_convolve
    return body(xp, x, weight, bias, window, groups)


def convolve_weight_grad(xp: ModuleType, x: Array, dy: Array, window: Window, groups: int = 1) -> Array:
    """x (N, C, H, W), dy (N, O, OH, OW) -> dweight (O, C / G, KH, KW)."""
    body = _rows_weight_grad if _rows_pay(xp, x, window) else _columns_weight_grad
    return body(xp, x, dy, window, groups)


def convolve_input_grad(xp: ModuleType, dy: Array, weight: Array, size: Pair, window: Window, groups: int = 1) -> Array:
    """dy (N, O, OH, OW), weight (O, C / G, KH, KW), size (H, W) -> dx (N, C, H, W).

    This is also the transposed convolution of dy.
    """
    pays = is_numpy(xp) and dy.shape[0] * dy.shape[3] >= FEW_COLUMNS
    body = _rows_input_grad if pays else _columns_input_grad
    return body(xp, dy, weight, size, window, groups)


def channel_sum(xp: ModuleType, dy: Array) -> Array:
    """dy (N, O, OH, OW) -> (O,), the gradient of a bias."""
    rows = dy.transpose(2, 1, 3, 0)
    if not is_numpy(xp) or not rows.flags.c_contiguous or not rows.size:
        return dy.sum(axis=(0, 2, 3))
    columns = rows.shape[2] * rows.shape[3]
    return (rows.reshape(*rows.shape[:2], columns) @ numpy.ones(columns, rows.dtype)).sum(axis=0)


# ---------------------------------------------------------------------- generic bodies


def _columns_convolve(xp, x, weight, bias, window, groups):
    columns = windows_out(xp, x, window)
    (out_h, out_w, n), w = columns.shape[3:], _by_group(weight, groups)
    y = w @ columns.reshape(groups, w.shape[2], out_h * out_w * n)
    y = y.reshape(len(weight), out_h, out_w, n)
    if bias is not None:
        y += bias[:, None, None, None]
    return y.transpose(3, 0, 1, 2)


def _columns_weight_grad(xp, x, dy, window, groups):
    columns = windows_out(xp, x, window)
    (c, kernel_h, kernel_w, out_h, out_w, n), o = columns.shape, dy.shape[1]
    columns = columns.reshape(groups, c // groups * kernel_h * kernel_w, out_h * out_w * n)
    g = dy.transpose(1, 2, 3, 0).reshape(groups, o // groups, out_h * out_w * n)
    return (g @ columns.transpose(0, 2, 1)).reshape(o, c // groups, kernel_h, kernel_w)


def _columns_input_grad(xp, dy, weight, size, window, groups):
    n, o, out_h, out_w = dy.shape
    g = dy.transpose(1, 2, 3, 0).reshape(groups, o // groups, out_h * out_w * n)
    columns = _by_group(weight, groups).transpose(0, 2, 1) @ g
    return windows_back(xp, columns.reshape(groups * weight.shape[1], *window.kernel, out_h, out_w, n), size, window)


def _by_group(weight, groups):
    o, c, kernel_h, kernel_w = weight.shape
    return weight.reshape(groups, o // groups, c * kernel_h * kernel_w)


# ---------------------------------------------------------------------- NumPy bodies


def _rows_pay(xp, x, window):
    return is_numpy(xp) and x.shape[0] * window.out_size(x.shape[2:])[1] >= FEW_COLUMNS


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


def _unroll(image, rows, window, groups):
    """The image rows of that range unrolled along W: (G, rows, KW * C / G, OW * N), in scratch."""
    n, c, _, w = image.shape
    kernel_w, out_w = window.kernel[1], window.out_size(image.shape[2:])[1]
    part = image[:, :, rows.start : rows.stop].transpose(2, 1, 3, 0).reshape(len(rows), groups, c // groups, w, n)
    part = part.transpose(1, 0, 2, 3, 4)
    out = scratch("unrolled", (groups, len(rows), kernel_w, c // groups, out_w, n), image.dtype)
    for k, (seen, columns) in enumerate(spans(window, w, 1)):
        target = out[:, :, k]
        target[:, :, :, : seen.start] = 0
        target[:, :, :, seen.stop :] = 0
        target[:, :, :, seen] = part[:, :, :, columns]
    return out.reshape(groups, len(rows), kernel_w * (c // groups), out_w * n)


def _band(window, channels, out_channels, groups):
    """How many output rows one product makes.

    With few output channels a product spends its time on reading the columns.  Several rows at once need a weight
    matrix that repeats down a diagonal band, with zeros beside it: a few more multiplications, far fewer columns read.
    """
    kernel, columns = window.kernel[0], window.kernel[0] * window.kernel[1] * channels
    if groups > 1 or kernel == 1 or window.dilation[0] > 1:
        return 1
    return min(8, 24 // out_channels) if out_channels <= 12 else 2 if columns <= 16 else 1


@cache
def _parts(window: Window, height: int, capacity: int, band: int, bands: range) -> list[tuple[range, list[tuple]]]:
    """How to walk over those bands of output rows: parts of at most `capacity` image rows with the products they allow.

    A product is (output rows, the kernel rows of the band that see the image, where in the part those image rows are).
    """
    (kernel, _), (stride, _), (padding, _), (dilation, _) = window
    out = (height + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    parts: list[tuple[range, list[tuple]]] = []
    for i in range(bands.start * band, min(out, bands.stop * band), band):
        count = min(band, out - i)
        top, depth = i * stride - padding, kernel + (count - 1) * stride
        low = min(depth, max(0, -(top // dilation)))
        high = max(low, min(depth, (height - 1 - top) // dilation + 1))
        begin, end = (max(0, top), top + (high - 1) * dilation + 1) if high > low else (0, 1)
        if not parts or end - parts[-1][0].start > capacity:
            parts.append((range(begin, end), []))
        rows, products = parts.pop()
        start = top + low * dilation - rows.start if high > low else 0
        where = slice(start, start + (high - low) * dilation, dilation)
        parts.append((range(rows.start, max(rows.stop, end)), products))
        products.append((slice(i, i + count), slice(low, high), where))
    return parts


def _walk(image, out_w, window, groups, band, bands):
    """For each product: its output rows, the columns of the weight matrix it takes, and what stands before those."""
    n, c, height, _ = image.shape
    depth, columns = window.kernel[1] * (c // groups), out_w * n
    capacity = UNROLLED_BYTES // (groups * depth * columns * image.itemsize)
    for rows, products in _parts(window, height, capacity, band, bands):
        unrolled = _unroll(image, rows, window, groups)
        for out_rows, seen, where in products:
            count = seen.stop - seen.start
            part = unrolled[:, where].reshape(groups, count * depth, columns)
            yield out_rows, slice(seen.start * depth, seen.stop * depth), part


def _diagonal(matrix, window, o, band):
    """The places of a weight matrix (G, O, KH * KW * C) in that of the band."""
    depth = matrix.shape[2] // (window.kernel[0] + (band - 1) * window.stride[0])
    for i in range(band):
        start = i * window.stride[0] * depth
        yield matrix[:, i * o : (i + 1) * o, start : start + window.kernel[0] * depth]


def _rows_convolve(xp, x, weight, bias, window, groups):
    (n, _, *size), (o, c, kernel_h, kernel_w) = x.shape, weight.shape
    (out_h, out_w), og, band = window.out_size(size), o // groups, _band(window, c, o, groups)
    matrix = numpy.zeros((groups, band * og, (kernel_h + (band - 1) * window.stride[0]) * kernel_w * c), weight.dtype)
    for place in _diagonal(matrix, window, og, band):
        place[...] = weight.transpose(0, 2, 3, 1).reshape(groups, og, -1)
    b = None if bias is None else bias.reshape(groups, 1, og, 1)
    y = empty((out_h, o, out_w, n), x.dtype)
    rows = y.reshape(out_h, groups, og, out_w * n).transpose(1, 0, 2, 3)
    image = _batch_last(x)

    def make(bands: range) -> None:
        for i, seen, columns in _walk(image, out_w, window, groups, band, bands):
            out = rows[:, i]
            count = (i.stop - i.start) * og
            numpy.matmul(matrix[:, :count, seen], columns, out=out.reshape(groups, count, out_w * n))
            if b is not None:
                out += b

    in_parts(make, -(-out_h // band), y.size * kernel_h * kernel_w * c)
    return y.transpose(3, 1, 0, 2)


def _rows_weight_grad(xp, x, dy, window, groups):
    (n, channels, *_), (_, o, out_h, out_w), (kernel_h, kernel_w) = x.shape, dy.shape, window.kernel
    c, og = channels // groups, o // groups
    band = _band(window, c, o, groups)
    rows, image = _rows(dy, groups), _batch_last(x)

    def add_up(bands: range) -> Array:
        matrix = numpy.zeros((groups, band * og, (kernel_h + (band - 1) * window.stride[0]) * kernel_w * c), x.dtype)
        product = numpy.empty_like(matrix)
        for i, seen, columns in _walk(image, out_w, window, groups, band, bands):
            count = (i.stop - i.start) * og
            g = rows[:, i].reshape(groups, count, out_w * n)
            part = numpy.matmul(g, columns.transpose(0, 2, 1), out=product[:, :count, seen])
            matrix[:, :count, seen] += part
        return sum(_diagonal(matrix, window, og, band))

    dw = sum(in_parts(add_up, -(-out_h // band), dy.size * kernel_h * kernel_w * c))
    return dw.reshape(o, kernel_h, kernel_w, c).transpose(0, 3, 1, 2)


@cache
def _seers(window: Window, height: int) -> list[tuple[slice, slice, int]]:
    """For each image row: the output rows that see it, the kernel rows they see it with, and how many these are.

    Kernel rows are counted from the last, so that both go up: the later the output row, the sooner the kernel row.
    """
    (kernel, _), (stride, _), (padding, _), (dilation, _) = window
    out = (height + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    seers = []
    for i in range(height):
        tops = [(i + padding - (kernel - 1 - k) * dilation, k) for k in range(kernel)]
        met = [(top // stride, k) for top, k in tops if top % stride == 0 and 0 <= top < out * stride]
        steps = (met[1][0] - met[0][0], met[1][1] - met[0][1]) if len(met) > 1 else (1, 1)
        ends = zip(met[0], met[-1], steps, strict=True) if met else ((0, -1, 1), (0, -1, 1))
        seers.append((*(slice(first, last + 1, step) for first, last, step in ends), len(met)))
    return seers


def _rows_input_grad(xp, dy, weight, size, window, groups):
    """A row of dx sums over the rows of dy whose windows saw it: one product for them all, then KW shifted adds."""
    (n, o, _, out_w), (_, c, kernel_h, kernel_w), (height, width) = dy.shape, weight.shape, size
    dy, operations = _rows(dy, groups), dy.size * weight[0].size
    w = weight.reshape(groups, o // groups, c, kernel_h, kernel_w).transpose(0, 4, 2, 3, 1)[:, :, :, ::-1]
    w = numpy.ascontiguousarray(w).reshape(groups, kernel_w * c, kernel_h, o // groups)
    dx = empty((height, groups, c, width, n), dy.dtype)
    seers_of, columns = _seers(window, height), spans(window, width, 1)

    def make(rows: range) -> None:
        product = scratch("product", (groups, kernel_w * c, out_w * n), dy.dtype)
        shifted = product.reshape(groups, kernel_w, c, out_w, n)
        for i in rows:
            seers, kernel_rows, count = seers_of[i]
            depth = count * (o // groups)
            matrix = w[:, :, kernel_rows].reshape(groups, kernel_w * c, depth)
            numpy.matmul(matrix, dy[:, seers].reshape(groups, depth, out_w * n), out=product)
            _add_shifted(dx[i], shifted, columns)

    in_parts(make, height, operations)
    return dx.transpose(4, 1, 2, 0, 3).reshape(n, groups * c, height, width)


def _add_shifted(row, shifted, columns):
    """row (G, C, W, N) = the sum of shifted (G, KW, C, OW, N) over KW, each at its columns of the image."""
    seen, where = columns[0]
    if where.step == 1:
        row[:, :, : where.start] = 0
        row[:, :, where.stop :] = 0
    else:
        row[...] = 0
    row[:, :, where] = shifted[:, 0, :, seen]
    for k, (seen, where) in enumerate(columns[1:], 1):
        row[:, :, where] += shifted[:, k, :, seen]
