"""Max pooling by windows of 2 x 2 side by side: two comparisons along the rows, one between them."""

from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.fast import aligned
from mtorch.fast.threads import in_threads
from mtorch.layers import pooling as reference
from mtorch.layers.geometry import as_image, like_input
from mtorch.layers.pooling import MaxPool
from mtorch.math.windows import Window

FOURS = Window((2, 2), (2, 2))
FORWARD, BACKWARD = 32, 16  # operations of a product that take as long as an entry of the image


def max_pool(layer: MaxPool, x: Array) -> tuple[Array, Any]:
    image, window = layer.check_input(x), layer.window
    if _fours(window) and not layer.predicting:
        y, winner = _max_of_fours(image)
        return y, (winner, image.shape[2:])
    y = reference.max_pool(numpy, image, window)
    return like_input(y, layer.rank), (image, y)


def max_pool_grad(layer: MaxPool, memory: Any, output_grad: Array) -> Array:
    if not _fours(layer.window):
        image, y = memory
        dx = reference.max_pool_grad(numpy, image, y, as_image(output_grad), layer.window)
        return like_input(dx, layer.rank)
    g, (winner, size) = output_grad, memory
    if _batch_last(winner) and not _batch_last(g):
        g = numpy.ascontiguousarray(g.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    dx = aligned.empty_like(winner, g.dtype, shape=(*g.shape[:2], *size))
    if size[0] % 2 or size[1] % 2:
        dx[...] = 0
    _fill_fours(dx, g, winner)
    return dx


def _fours(window):
    return window == FOURS


def _batch_last(image: Array) -> bool:
    return image.strides[0] == image.itemsize and image.shape[0] > 1


def _new(shape, like):
    """Uninitialised; where the batch of `like` is last in memory, as (C, H, W, N), which Flatten need not copy."""
    n, *rest = shape
    last = _batch_last(like)
    return numpy.empty((*rest, n), like.dtype).transpose(3, 0, 1, 2) if last else numpy.empty(shape, like.dtype)


def _max_of_fours(x):
    """2 x 2 windows side by side: the winner of each row of two, then of the two rows."""
    n, c, h, w = x.shape
    y = _new((n, c, h // 2, w // 2), x)
    winner = numpy.empty_like(x, "uint8", shape=y.shape)

    def make(part: range) -> None:
        pairs, rows = slice(2 * part.start, 2 * part.stop), slice(part.start, part.stop)
        left, right = x[:, :, pairs, 0 : w - 1 : 2], x[:, :, pairs, 1:w:2]
        best, second = numpy.maximum(left, right), numpy.greater(right, left)
        top, bottom = best[:, :, 0::2], best[:, :, 1::2]
        numpy.maximum(top, bottom, out=y[:, :, rows])
        lower = numpy.greater(bottom, top)
        if numpy.isnan(y[:, :, rows].max(initial=0)):  # the last NaN wins
            second |= numpy.isnan(right)
            lower |= numpy.isnan(bottom)
        # winner = 2 * lower + second in the row that won
        won = second[:, :, 0::2] ^ second[:, :, 1::2]
        won &= lower
        won ^= second[:, :, 0::2]
        won, lower = won.view("uint8"), lower.view("uint8")
        won += lower
        numpy.add(won, lower, out=winner[:, :, rows])

    in_threads(make, h // 2, FORWARD * x.size)
    return y, winner


def _fill_fours(dx, dy, winner):
    """Each position of the window takes dy where it has won, else 0."""
    out_h, out_w = dy.shape[2:]

    def fill(rows: range) -> None:
        g, won = (a[:, :, rows.start : rows.stop] for a in (dy, winner))
        for k in range(2):
            image_rows = slice(2 * rows.start + k, 2 * rows.stop, 2)
            for m in range(2):
                numpy.multiply(g, won == 2 * k + m, out=dx[:, :, image_rows, m : 2 * out_w : 2])

    in_threads(fill, out_h, BACKWARD * dx.size)


replace(MaxPool, numpy, forward=max_pool, backward=max_pool_grad, multithreaded=lambda layer: _fours(layer.window))
