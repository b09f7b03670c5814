"""Batch norm on x (A, C, B), over the axes A and B, in pieces that stay in cache.

Images whose memory runs N, C, H, W are (N, C, HW) here, those whose memory runs H, C, W, N or C, H, W, N (as
convolutions and poolings leave them) are (H, C, WN) and (1, C, HWN), and no entry is moved. The passes go over some of
the A where there are several, else over some of the C.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import BLOCK, Array, ones, quiet, widened
from mtorch.fast import aligned
from mtorch.fast.numpy.rows import row_sums
from mtorch.layers.batchnorm import BatchNorm

LONG = 4096  # entries of a loop beside which its start costs nothing
PIECE = 4 * BLOCK  # elements: with many short passes the calls cost more than a cache that overflows a little


@quiet
def forward(layer: BatchNorm, x: Array) -> tuple[Array, Any]:
    layer.check_shape(x)
    order = memory_order(x)
    channels = as_channels(widened(x), order)
    weight, bias = _affine(layer)
    if layer.training:
        n = layer.values_per_channel(x)
        y, d, mean, var, inv = normalise(channels, layer.eps, weight, bias)
        layer.track(mean, var, n)
    else:
        mean, var = widened(layer.running_mean.value), widened(layer.running_var.value)
        inv = 1 / numpy.sqrt(var + layer.eps)
        d = channels - mean[:, None]
        y = d * spread(inv if weight is None else inv * weight, d)
        if bias is not None:
            y += spread(bias, d)
    return from_channels(y.astype(layer.dtype, copy=False), x.shape, order), (d, inv, order, layer.training)


def backward(layer: BatchNorm, memory: Any, output_grad: Array) -> Array:
    d, inv, order, batch_statistics = memory
    weight, bias = layer.weight, layer.bias
    g = as_channels(widened(output_grad), order)
    sums = batch_statistics or layer.trains()
    dx, dweight, dbias = normalise_grad(g, d, inv, None if weight is None else weight.value, batch_statistics, sums)
    if weight is not None and bias is not None:
        weight.accumulate(dweight)
        bias.accumulate(dbias)
    return from_channels(dx.astype(layer.dtype, copy=False), output_grad.shape, order)


def _affine(layer: BatchNorm) -> tuple[Array | None, Array | None]:
    if layer.weight is None or layer.bias is None:
        return None, None
    return layer.weight.value, layer.bias.value


# ---------------------------------------------------------------------- memory order


def memory_order(x: Array) -> tuple[int, ...]:
    """The axes of x in the order in which its memory runs, slowest first; as they come where it has gaps."""
    natural = tuple(range(x.ndim))
    if x.flags.c_contiguous:
        return natural
    order = tuple(sorted(natural, key=lambda axis: -x.strides[axis]))
    return order if x.transpose(order).flags.c_contiguous else natural


def as_channels(x: Array, order: tuple[int, ...]) -> Array:
    """x (N, C, ...) as (A, C, B): what `order` has before axis 1 and after it; copied only if memory runs otherwise."""
    x, channels = x.transpose(order), order.index(1)
    return x.reshape(prod(x.shape[:channels]), x.shape[channels], prod(x.shape[channels + 1 :]))


def from_channels(x: Array, shape: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """The inverse of `as_channels`."""
    x = x.reshape(tuple(shape[axis] for axis in order))
    return x.transpose(tuple(order.index(axis) for axis in range(len(shape))))


# ---------------------------------------------------------------------- the passes


def normalise(
    x: Array, eps: float, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array, Array, Array]:
    """(y, d, mean, var, inv) with y = weight inv d + bias, d = x - mean, inv = 1 / sqrt(var + eps)."""
    n = x.shape[0] * x.shape[2]
    y, d = numpy.empty_like(x), numpy.empty_like(x)
    mean, var, inv = (numpy.empty(x.shape[1], dtype=x.dtype) for _ in range(3))
    for c in _channel_groups(x):
        xc, yc, dc, pieces = x[:, c], y[:, c], d[:, c], _pieces(x[:, c])
        mean[c] = channel_sums(xc) / n
        m, total = spread(mean[c], x), 0
        for p in pieces:
            numpy.subtract(xc[p], m, out=dc[p])
            total = total + channel_products(dc[p], dc[p])
        var[c] = total / n
        inv[c] = 1 / numpy.sqrt(var[c] + eps)
        scale = spread(inv[c] if weight is None else inv[c] * weight[c], x)
        shift = None if bias is None else spread(bias[c], x)
        for p in pieces:
            numpy.multiply(dc[p], scale, out=yc[p])
            if shift is not None:
                yc[p] += shift
    return y, d, mean, var, inv


def normalise_grad(
    g: Array, d: Array, inv: Array, weight: Array | None, batch_statistics: bool, sums: bool = True
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias): dbias = sum(g), dweight = inv sum(g d), dx = weight inv (g - (dbias + inv d dweight) / n).

    d is x - mean. Where the statistics are not those of the batch, dx = weight inv g; without `sums` that is all.
    """
    n = g.shape[0] * g.shape[2]
    dx, dw, db = aligned.empty_like(g), numpy.empty_like(inv), numpy.empty_like(inv)
    for c in _channel_groups(g):
        gc, dc, dxc, pieces = g[:, c], d[:, c], dx[:, c], _pieces(g[:, c])
        if sums:
            db[c], total = channel_sums(gc), 0
            for p in pieces:
                total = total + channel_products(gc[p], dc[p])
            dw[c] = inv[c] * total
        scale = spread(inv[c] if weight is None else inv[c] * weight[c], g)
        if batch_statistics:
            mean_g, slope = spread(db[c] / n, g), spread(inv[c] * dw[c] / n, g)
        for p in pieces:
            part = dxc[p]
            if batch_statistics:
                numpy.multiply(dc[p], slope, out=part)
                part += mean_g
                numpy.subtract(gc[p], part, out=part)
                part *= scale
            else:
                numpy.multiply(gc[p], scale, out=part)
    return dx, dw, db


def channel_sums(x: Array) -> Array:
    """x (A, C, B) -> (C,)."""
    a, c, b = x.shape
    if b == 1:
        return ones(numpy, a, x.dtype).dot(x[:, :, 0])
    rows = row_sums(x.reshape(a * c, b))
    return rows if a == 1 else rows.reshape(a, c).sum(axis=0)


def channel_products(x: Array, y: Array) -> Array:
    """The sums of x y: (A, C, B), (A, C, B) -> (C,)."""
    return channel_sums(x * y) if x.shape[2] == 1 else numpy.vecdot(x, y).sum(axis=0)


def spread(v: Array, x: Array) -> Array:
    """v (C,) so that it broadcasts over x (A, C, B): (C, 1), or repeated, (C, B), so that one loop takes all."""
    a, _, b = x.shape
    return numpy.repeat(v, b).reshape(-1, b) if a > 1 and 1 < b < LONG else v[:, None]


def _channel_groups(x: Array) -> Iterator[slice]:
    """All channels at once, or, where one row of A holds everything, as many as stay in cache."""
    a, c, b = x.shape
    step = max(1, PIECE // max(b, 1)) if a == 1 else c
    return (slice(start, start + step) for start in range(0, c, step))


def _pieces(x: Array) -> list[slice]:
    """Slices of A."""
    a, c, b = x.shape
    step = max(1, PIECE // max(c * b, 1))
    return [slice(start, start + step) for start in range(0, a, step)]


replace(BatchNorm, numpy, forward=forward, backward=backward)
