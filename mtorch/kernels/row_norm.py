"""Normalisation of the rows of x (M, D), with its derivative: what layer norm and RMS norm are made of.

On NumPy the passes go over pieces of rows that stay in cache, and sums along rows are products with a vector, which
start no reduction anew for every row.
"""

from types import ModuleType

from mtorch.arrays import BLOCK, Array, is_numpy, ones
from mtorch.kernels.memory import empty_like
from mtorch.kernels.rows import quiet, row_dots, row_squares, row_sums

PIECE = 4 * BLOCK  # elements: with many short passes the calls cost more than a cache that overflows a little


@quiet
def normalise_rows(
    xp: ModuleType, x: Array, eps: float, weight: Array | None, bias: Array | None, centred: bool
) -> tuple[Array, Array, Array]:
    """y = weight z + bias with z = (x - mean) inv, inv = 1 / sqrt(mean((x - mean)^2) + eps): (y, z, inv (M, 1)).

    With centred=False the mean counts as 0. weight and bias have shape (D,). Where squares overflow, inv and z are 0.
    """
    m, d = x.shape
    z, inv = empty_like(xp, x), xp.empty((m, 1), dtype=x.dtype)
    y = z if weight is None else empty_like(xp, x)
    for p in _pieces(xp, x):
        c = x[p]
        if centred:
            c = xp.subtract(c, (row_sums(xp, c) / d)[:, None], out=z[p])
        inv[p, 0] = 1 / xp.sqrt(row_squares(xp, c) / d + eps)
        xp.multiply(c, inv[p], out=z[p])
        if weight is not None:
            xp.multiply(z[p], weight, out=y[p])
        if bias is not None:
            y[p] += bias
    return y, z, inv


def normalise_rows_grad(
    xp: ModuleType, g: Array, z: Array, inv: Array, weight: Array | None, centred: bool
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias): with h = g weight, dx = (h - mean(h) - z mean(h z)) inv; mean(h) counts if centred."""
    m, d = g.shape
    w = ones(xp, d, g.dtype) if weight is None else weight
    dx, dw, db = empty_like(xp, g), xp.zeros(d, dtype=g.dtype), xp.zeros(d, dtype=g.dtype)
    for p in _pieces(xp, g):
        gp, zp, h = g[p], z[p], dx[p]
        gz, one = gp * zp, ones(xp, len(gp), g.dtype)
        dw += one.dot(gz)
        db += one.dot(gp)
        mean_hz = (row_dots(xp, gz, w) / d)[:, None]
        xp.multiply(gp, w, out=h)
        if centred:
            h -= (row_dots(xp, gp, w) / d)[:, None]
        h -= xp.multiply(zp, mean_hz, out=gz)
        h *= inv[p]
    return dx, dw, db


def _pieces(xp: ModuleType, x: Array) -> list[slice]:
    m, d = x.shape
    step = max(1, PIECE // d) if is_numpy(xp) else max(m, 1)
    return [slice(start, start + step) for start in range(0, m, step)]
