"""Normalisation of x (A, C, B) over the axes A and B, with its derivative: what batch and group norm are made of.

Images whose memory runs N, C, H, W are (N, C, HW) here, those whose memory runs H, C, W, N or C, H, W, N (as
convolutions and poolings leave them on NumPy) are (H, C, WN) and (1, C, HWN), and no entry is moved. On NumPy the
passes go over pieces that stay in cache: some of the A where there are several, else some of the C.
"""

from collections.abc import Iterator
from math import prod
from types import ModuleType

from mtorch.arrays import BLOCK, Array, is_numpy, ones
from mtorch.kernels.memory import empty_like
from mtorch.kernels.rows import quiet, row_sums

PIECE = 4 * BLOCK  # elements: with many short passes the calls cost more than a cache that overflows a little


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


@quiet
def normalise(
    xp: ModuleType, x: Array, eps: float, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array, Array, Array]:
    """y = weight inv d + bias with d = x - mean and inv = 1 / sqrt(var + eps): (y, d, mean, var, inv).

    weight, bias, mean, var (biased) and inv have shape (C,). The variance is the mean of d^2, which loses nothing when
    the mean is large; where squares overflow it is inf, and d inv is 0.
    """
    n = x.shape[0] * x.shape[2]
    y, d = empty_like(xp, x), empty_like(xp, x)
    mean, var, inv = (xp.empty(x.shape[1], dtype=x.dtype) for _ in range(3))
    for c in _channel_groups(xp, x):
        xc, yc, dc, pieces = x[:, c], y[:, c], d[:, c], _pieces(xp, x[:, c])
        mean[c] = channel_sums(xp, xc) / n
        m, total = spread(xp, mean[c], x), 0
        for p in pieces:
            xp.subtract(xc[p], m, out=dc[p])
            total = total + channel_products(xp, dc[p], dc[p])
        var[c] = total / n
        inv[c] = 1 / xp.sqrt(var[c] + eps)
        scale = spread(xp, inv[c] if weight is None else inv[c] * weight[c], x)
        shift = None if bias is None else spread(xp, bias[c], x)
        for p in pieces:
            xp.multiply(dc[p], scale, out=yc[p])
            if shift is not None:
                yc[p] += shift
    return y, d, mean, var, inv


def normalise_grad(
    xp: ModuleType, g: Array, d: Array, inv: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias): dbias = sum(g), dweight = inv sum(g d), dx = weight inv (g - (dbias + inv d dweight) / n).

    d is x - mean.
    """
    n = g.shape[0] * g.shape[2]
    dx, dw, db = empty_like(xp, g), xp.empty_like(inv), xp.empty_like(inv)
    for c in _channel_groups(xp, g):
        gc, dc, dxc, pieces = g[:, c], d[:, c], dx[:, c], _pieces(xp, g[:, c])
        db[c], total = channel_sums(xp, gc), 0
        for p in pieces:
            total = total + channel_products(xp, gc[p], dc[p])
        dw[c] = inv[c] * total
        mean_g, slope = spread(xp, db[c] / n, g), spread(xp, inv[c] * dw[c] / n, g)
        scale = spread(xp, inv[c] if weight is None else inv[c] * weight[c], g)
        for p in pieces:
            part = dxc[p]
            xp.multiply(dc[p], slope, out=part)
            part += mean_g
            xp.subtract(gc[p], part, out=part)
            part *= scale
    return dx, dw, db


def apply_statistics(
    xp: ModuleType, x: Array, mean: Array, scale: Array, bias: Array | None
) -> Array:
    """(x - mean) scale + bias for given statistics."""
    y = empty_like(xp, x)
    for c in _channel_groups(xp, x):
        xc, yc = x[:, c], y[:, c]
        m, s, b = (None if v is None else spread(xp, v[c], x) for v in (mean, scale, bias))
        for p in _pieces(xp, xc):
            xp.subtract(xc[p], m, out=yc[p])
            yc[p] *= s
            if b is not None:
                yc[p] += b
    return y


def channel_sums(xp: ModuleType, x: Array) -> Array:
    """x (A, C, B) -> (C,)."""
    a, c, b = x.shape
    if not is_numpy(xp):
        return x.sum(axis=(0, 2))
    if b == 1:
        return ones(xp, a, x.dtype).dot(x[:, :, 0])
    rows = row_sums(xp, x.reshape(a * c, b))
    return rows if a == 1 else rows.reshape(a, c).sum(axis=0)


def channel_products(xp: ModuleType, a: Array, b: Array) -> Array:
    """The sums of a b: (A, C, B), (A, C, B) -> (C,)."""
    if not is_numpy(xp):
        return (a * b).sum(axis=(0, 2))
    return xp.vecdot(a, b).sum(axis=0)


def spread(xp: ModuleType, v: Array, x: Array) -> Array:
    """v (C,) so that it broadcasts over x (A, C, B): (C, 1), or (C, B) where B is too short for a loop of its own."""
    a, _, b = x.shape
    return xp.repeat(v, b).reshape(-1, b) if a > 1 and 1 < b < 64 else v[:, None]


def _channel_groups(xp: ModuleType, x: Array) -> Iterator[slice]:
    """All channels at once, or on NumPy, where one row of A holds everything, as many as stay in cache."""
    a, c, b = x.shape
    step = max(1, PIECE // max(b, 1)) if a == 1 and is_numpy(xp) else c
    return (slice(start, start + step) for start in range(0, c, step))


def _pieces(xp: ModuleType, x: Array) -> list[slice]:
    """Slices of A."""
    a, c, b = x.shape
    step = max(1, PIECE // max(c * b, 1)) if is_numpy(xp) else max(a, 1)
    return [slice(start, start + step) for start in range(0, a, step)]
