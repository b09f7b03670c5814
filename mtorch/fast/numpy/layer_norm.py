"""Layer norm of rows (M, D): sums along rows are products, which start no reduction anew for every row."""

import math
from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array, ones, quiet, widened
from mtorch.fast.numpy.rows import row_dots, row_squares, row_sums
from mtorch.layers.layernorm import LayerNorm
from mtorch.parameter import Parameter


@quiet
def layer_norm(layer: LayerNorm, x: Array) -> tuple[Array, Any]:
    """y = weight z + bias with z = (x - mean) inv."""
    layer.check_shape(x)
    rows, weight, bias = _rows(layer, x), _vector(layer.weight), _vector(layer.bias)
    z = rows - (row_sums(rows) / rows.shape[1])[:, None]
    inv = 1 / numpy.sqrt(row_squares(z) / rows.shape[1] + layer.eps)[:, None]
    z *= inv
    y = z.copy() if weight is None else z * weight
    if bias is not None:
        y += bias
    return y.reshape(x.shape).astype(layer.dtype, copy=False), (z, inv)


def layer_norm_grad(layer: LayerNorm, memory: Any, output_grad: Array) -> Array:
    """dx = (h - mean(h) - z mean(h z)) inv with h = g weight."""
    z, inv = memory
    g, weight = _rows(layer, output_grad), _vector(layer.weight)
    (m, d), gz = g.shape, g * z
    one, w = ones(numpy, m, g.dtype), ones(numpy, d, g.dtype) if weight is None else weight
    for parameter, terms in ((layer.weight, gz), (layer.bias, g)):
        if parameter is not None and parameter.trainable:
            parameter.accumulate(one.dot(terms).reshape(layer.shape))
    mean_h, mean_hz = (row_dots(terms, w)[:, None] / d for terms in (g, gz))
    dx = g * w
    dx -= mean_h
    dx -= numpy.multiply(z, mean_hz, out=gz)
    dx *= inv
    return dx.reshape(output_grad.shape).astype(layer.dtype, copy=False)


def _rows(layer: LayerNorm, x: Array) -> Array:
    return widened(x).reshape(math.prod(x.shape[: x.ndim - len(layer.shape)]), math.prod(layer.shape))


def _vector(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.value.reshape(-1)


replace(LayerNorm, numpy, forward=layer_norm, backward=layer_norm_grad)
