"""Layer norm of rows (M, D) in pieces that stay in cache; sums along rows are products with a vector, which start no
reduction anew for every row.
"""

import math
from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import BLOCK, Array, ones, quiet
from mtorch.fast.numpy.rows import row_dots, row_squares, row_sums
from mtorch.kernels.memory import empty_like
from mtorch.layers.layernorm import LayerNorm
from mtorch.parameter import Parameter

PIECE = 4 * BLOCK  # elements: with many short passes the calls cost more than a cache that overflows a little


@quiet
def forward(layer: LayerNorm, x: Array) -> tuple[Array, Any]:
    """y = weight z + bias with z = (x - mean) inv."""
    layer.check_shape(x)
    weight, bias = _flat(layer.weight), _flat(layer.bias)
    rows = _rows(layer, x)
    m, d = rows.shape
    z, inv = empty_like(numpy, rows), numpy.empty((m, 1), dtype=x.dtype)
    y = z if weight is None else empty_like(numpy, rows)
    for p in _pieces(m, d):
        zp = z[p]
        numpy.subtract(rows[p], (row_sums(rows[p]) / d)[:, None], out=zp)
        inv[p, 0] = 1 / numpy.sqrt(row_squares(zp) / d + layer.eps)
        zp *= inv[p]
        if weight is not None:
            numpy.multiply(zp, weight, out=y[p])
        if bias is not None:
            y[p] += bias
    return y.reshape(x.shape), (z, inv)


def backward(layer: LayerNorm, memory: Any, output_grad: Array) -> Array:
    """dx = (h - mean(h) - z mean(h z)) inv with h = g weight."""
    z, inv = memory
    weight, g = _flat(layer.weight), _rows(layer, output_grad)
    m, d = g.shape
    w = ones(numpy, d, g.dtype) if weight is None else weight
    dx, dw, db = empty_like(numpy, g), numpy.zeros(d, dtype=g.dtype), numpy.zeros(d, dtype=g.dtype)
    for p in _pieces(m, d):
        gp, zp, h = g[p], z[p], dx[p]
        gz, one = gp * zp, ones(numpy, len(gp), g.dtype)
        dw += one.dot(gz)
        db += one.dot(gp)
        mean_h, mean_hz = (row_dots(each, w)[:, None] / d for each in (gp, gz))
        numpy.multiply(gp, w, out=h)
        h -= mean_h
        h -= numpy.multiply(zp, mean_hz, out=gz)
        h *= inv[p]
    for parameter, grad in ((layer.weight, dw), (layer.bias, db)):
        if parameter is not None:
            parameter.accumulate(grad.reshape(layer.shape))
    return dx.reshape(output_grad.shape)


def _rows(layer: LayerNorm, x: Array) -> Array:
    return x.reshape(math.prod(x.shape[: x.ndim - len(layer.shape)]), math.prod(layer.shape))


def _flat(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.value.reshape(-1)


def _pieces(m: int, d: int) -> list[slice]:
    step = max(1, PIECE // d)
    return [slice(start, start + step) for start in range(0, m, step)]


replace(LayerNorm, numpy, forward=forward, backward=backward)
