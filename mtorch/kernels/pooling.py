"""Pooling: the largest element or the mean of every window, and their gradients.

Max pooling remembers which kernel position won, one small integer an output: the first of the largest in reading order.
Padding counts as -inf there and never wins; it counts as zero, and is counted, in the mean.  The mean over a rectangle
is the mean along W of the means along H, so its bodies move KH + KW slices instead of KH * KW.
"""

import math
from collections.abc import Iterator
from types import ModuleType

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels.memory import empty, empty_like
from mtorch.kernels.passes import in_blocks
from mtorch.math.windows import Pair, Window, spans, windows_back, windows_out


def max_pool(xp: ModuleType, x: Array, window: Window) -> tuple[Array, Array]:
    """x (N, C, H, W) -> y and the winner's number k * KW + l, both (N, C, OH, OW)."""
    if not is_numpy(xp):
        return _columns_max_pool(xp, x, window)
    fours = window.kernel == window.stride == (2, 2) and window.padding == (0, 0)
    return _fours_max_pool(x) if fours else _running_max_pool(x, window)


def max_pool_grad(xp: ModuleType, dy: Array, winner: Array, size: Pair, window: Window) -> Array:
    """dy and winner (N, C, OH, OW), size (H, W) -> dx (N, C, H, W): the whole of each dy goes to its winner."""
    body = _sliced_max_pool_grad if is_numpy(xp) else _columns_max_pool_grad
    return body(xp, dy, winner, size, window)


def mean_pool(xp: ModuleType, x: Array, window: Window) -> Array:
    """x (N, C, H, W) -> y (N, C, OH, OW), the sum over each window divided by the size of the kernel."""
    n, c, h, w = x.shape
    out_h, out_w = window.out_size((h, w))
    rows = _new(xp, (n, c, out_h, w), x)
    _move(rows, x, [(out, where) for out, where in spans(window, h, 0)], 2)
    y = _new(xp, (n, c, out_h, out_w), x)
    _move(y, rows, [(out, where) for out, where in spans(window, w, 1)], 3)
    y *= 1 / (window.kernel[0] * window.kernel[1])
    return y


def mean_pool_grad(xp: ModuleType, dy: Array, size: Pair, window: Window) -> Array:
    """dy (N, C, OH, OW), size (H, W) -> dx (N, C, H, W): every element of a window gets the same share."""
    n, c, out_h, _ = dy.shape
    share = dy * (1 / (window.kernel[0] * window.kernel[1]))
    rows = _new(xp, (n, c, out_h, size[1]), dy)
    _move(rows, share, [(where, out) for out, where in spans(window, size[1], 1)], 3)
    dx = _new(xp, (n, c, *size), dy)
    _move(dx, rows, [(where, out) for out, where in spans(window, size[0], 0)], 2)
    return dx


def adaptive_mean_pool(xp: ModuleType, x: Array, out_size: Pair) -> Array:
    """x (N, C, H, W) -> y (N, C, *out_size): the mean of bin i, from floor(i H / OH) to ceil((i + 1) H / OH)."""
    n, c, h, w = x.shape
    rows = _new(xp, (n, c, out_size[0], w), x)
    for i, part in enumerate(_bins(h, out_size[0])):
        rows[:, :, i] = x[:, :, part].mean(axis=2)
    y = _new(xp, (n, c, *out_size), x)
    for j, part in enumerate(_bins(w, out_size[1])):
        y[:, :, :, j] = rows[:, :, :, part].mean(axis=3)
    return y


def adaptive_mean_pool_grad(xp: ModuleType, dy: Array, size: Pair) -> Array:
    """dy (N, C, OH, OW), size (H, W) -> dx (N, C, H, W)."""
    n, c, out_h, out_w = dy.shape
    rows = _new(xp, (n, c, out_h, size[1]), dy)
    rows[...] = 0
    for j, part in enumerate(_bins(size[1], out_w)):
        rows[:, :, :, part] += dy[:, :, :, j : j + 1] * (1 / (part.stop - part.start))
    dx = _new(xp, (n, c, *size), dy)
    dx[...] = 0
    for i, part in enumerate(_bins(size[0], out_h)):
        dx[:, :, part] += rows[:, :, i : i + 1] * (1 / (part.stop - part.start))
    return dx


# ---------------------------------------------------------------------- shared pieces

def _bins(size: int, out: int) -> Iterator[slice]:
    return (slice(i * size // out, -((-i - 1) * size // out)) for i in range(out))


def _batch_last(image: Array) -> bool:
    return image.strides[0] == image.itemsize and image.shape[0] > 1


def _new(xp, shape, like, dtype=None):
    """Uninitialised, the batch innermost in memory where that of `like` is."""
    n, *rest = shape
    make, dtype = empty if is_numpy(xp) else xp.empty, dtype or like.dtype
    return make((*rest, n), dtype).transpose(3, 0, 1, 2) if _batch_last(like) else make(shape, dtype)


def _move(target, source, pairs, axis):
    """target[to] += source[from] along one axis for every pair, on a target that starts as zero."""
    before = (slice(None),) * axis
    first, *rest = pairs
    if len(range(*first[0].indices(target.shape[axis]))) != target.shape[axis]:
        target[...] = 0
    target[*before, first[0]] = source[*before, first[1]]
    for to, origin in rest:
        target[*before, to] += source[*before, origin]


def _positions(window, size):
    """(number, outputs that see a real element there, those elements) for each kernel position in reading order."""
    columns = spans(window, size[1], 1)
    for k, (out_rows, rows) in enumerate(spans(window, size[0], 0)):
        for m, (out_columns, where) in enumerate(columns):
            yield k * len(columns) + m, (..., out_rows, out_columns), (..., rows, where)


def _first_real(xp, window, size):
    """(OH, OW): the number of the first kernel position that is not on padding, the winner where all are -inf."""
    row, column = (
        xp.maximum(padding - stride * xp.arange(out), 0)
        for padding, stride, out in zip(window.padding, window.stride, window.out_size(size), strict=True)
    )
    return row[:, None] * window.kernel[1] + column


def _winner_dtype(window):
    return numpy.dtype("uint8" if window.kernel[0] * window.kernel[1] <= 256 else "int32")


# ---------------------------------------------------------------------- generic bodies of max pooling


def _columns_max_pool(xp, x, window):
    columns = windows_out(xp, x, window, -math.inf)
    c, kernel_h, kernel_w, out_h, out_w, n = columns.shape
    columns = columns.reshape(c, kernel_h * kernel_w, out_h, out_w, n)
    y, winner = columns.max(axis=1), columns.argmax(axis=1)
    if any(window.padding):
        winner = xp.where(y == -math.inf, _first_real(xp, window, x.shape[2:])[:, :, None], winner)
    return y.transpose(3, 0, 1, 2), winner.astype(_winner_dtype(window)).transpose(3, 0, 1, 2)


def _columns_max_pool_grad(xp, dy, winner, size, window):
    taps = window.kernel[0] * window.kernel[1]
    won = winner.transpose(1, 2, 3, 0)[:, None] == xp.arange(taps, dtype=winner.dtype)[:, None, None, None]
    columns = xp.where(won, dy.transpose(1, 2, 3, 0)[:, None], dy.dtype.type(0))
    return windows_back(xp, columns.reshape(columns.shape[0], *window.kernel, *columns.shape[2:]), size, window)


# ---------------------------------------------------------------------- NumPy bodies of max pooling


def _fours_max_pool(x):
    """2 x 2 windows side by side: the winner of each row of two, then of the two rows."""
    n, c, h, w = x.shape
    y = _new(numpy, (n, c, h // 2, w // 2), x)
    winner = empty_like(numpy, x, numpy.dtype("uint8"), y.shape)
    left, right = x[..., 0 : w - 1 : 2], x[..., 1:w:2]

    def make(rows: slice) -> None:
        pairs = slice(2 * rows.start, 2 * rows.stop)
        a, b = left[:, :, pairs], right[:, :, pairs]
        best, second = numpy.maximum(a, b), numpy.greater(b, a)
        top, bottom = best[:, :, 0::2], best[:, :, 1::2]
        numpy.maximum(top, bottom, out=y[:, :, rows])
        lower = numpy.greater(bottom, top)
        # winner = 2 * lower + second in the row that won
        won = second[:, :, 0::2] ^ second[:, :, 1::2]
        won &= lower
        won ^= second[:, :, 0::2]
        won, lower = won.view("uint8"), lower.view("uint8")
        won += lower
        numpy.add(won, lower, out=winner[:, :, rows])

    in_blocks(make, h // 2, x.size, 4)
    return y, winner


def _running_max_pool(x, window):
    """The best so far over the kernel positions, one slice at a time."""
    n, c, *size = x.shape
    shape = (n, c, *window.out_size(size))
    y, winner = _new(numpy, shape, x), _new(numpy, shape, x, _winner_dtype(window))
    y[...] = -math.inf
    winner[...] = _first_real(numpy, window, size)
    for number, out, where in _positions(window, size):
        best, challenger, holder = y[out], x[where], winner[out]
        wins = challenger > best
        numpy.maximum(best, challenger, out=best)
        change = holder ^ number
        change *= wins
        holder ^= change
    return y, winner


def _sliced_max_pool_grad(xp, dy, winner, size, window):
    n, c, *out_size = dy.shape
    if _batch_last(winner) and not _batch_last(dy):
        dy = numpy.ascontiguousarray(dy.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    dx = empty_like(numpy, winner, dy.dtype, (n, c, *size))
    tiled = window.kernel == window.stride and window.padding == (0, 0)
    if not tiled or tuple(size) != tuple(k * o for k, o in zip(window.kernel, out_size, strict=True)):
        dx[...] = 0
    if tiled:
        _fill_tiles(dx, dy, winner, window.kernel)
        return dx
    for number, out, where in _positions(window, size):
        dx[where] += dy[out] * (winner[out] == number)
    return dx


def _fill_tiles(dx, dy, winner, kernel):
    """Windows side by side: each position of the window takes dy where it has won, else 0."""
    (kernel_h, kernel_w), (out_h, out_w) = kernel, dy.shape[2:]

    def fill(rows: slice) -> None:
        g, won = dy[:, :, rows], winner[:, :, rows]
        for k in range(kernel_h):
            image_rows = slice(rows.start * kernel_h + k, rows.stop * kernel_h, kernel_h)
            for m in range(kernel_w):
                target = dx[:, :, image_rows, m : out_w * kernel_w : kernel_w]
                numpy.multiply(g, won == k * kernel_w + m, out=target)

    in_blocks(fill, out_h, dx.size, 2)
