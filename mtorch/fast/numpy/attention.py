"""Attention with its scores in the memory order N, S, H, L: a sum over the keys then adds H L neighbours at a time.

Everything is written where it is needed: the heads' results side by side, as the output projection takes them, and the
gradients of q, k and v too where one input is all three, so that one product makes them and one takes them back.
"""

from collections.abc import Callable
from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array, Value, flat_rows, ones, widened
from mtorch.container import Tape
from mtorch.fast.product import product
from mtorch.layers.attention import MultiHeadAttention, forbidden


def forward(layer: MultiHeadAttention, x: Value) -> tuple[Array, Any]:
    sources, mask = layer.sources(x)
    q, k, v = projected(layer, sources if isinstance(x, tuple) else (x,))
    k, v, past = layer.with_past(x, k, v)
    p = softmax(pairs(q, k), layer.mask_bias(mask, q, k, past))
    if layer.keep_weights:
        layer.attention_weights = p
    tape = Tape(layer)
    dropped = tape.call(layer.dropout, p)
    context = numpy.empty(sources[0].shape, p.dtype)
    numpy.matmul(dropped, v, out=layer.heads(context))
    y = tape.call(layer.out_proj, context.astype(layer.dtype, copy=False))
    return layer.returns(y), (x, tape, q, k, v, p, dropped)


def backward(layer: MultiHeadAttention, memory: Any, output_grad: Array) -> Value:
    grads, w, e = _projected_grads(layer, output_grad, *memory), layer.in_proj_weight.value, layer.embed_dim
    x = memory[0]
    if not isinstance(x, tuple):
        return product(grads[0], w).reshape(x.shape)
    ws = (w[i * e : (i + 1) * e] for i in range(3))
    found = tuple(product(g, w).reshape(s.shape) for g, w, s in zip(grads, ws, x, strict=False))
    return found if len(x) == 3 else (*found, None)


def backward_parameters(layer: MultiHeadAttention, memory: Any, output_grad: Array) -> None:
    if layer.trains_projection():
        _projected_grads(layer, output_grad, *memory)
    else:
        memory[1].pull_parameters(output_grad)


def projected(layer: MultiHeadAttention, sources: tuple[Array, ...]) -> list[Array]:
    """q, k and v by head, views of (., N, E), from one input or three."""
    w, b, e = layer.in_proj_weight.value, layer.in_proj_bias, layer.embed_dim
    step = 3 * e // len(sources)
    parts = []
    for i, source in enumerate(sources):
        rows = product(flat_rows(source), w[i * step : (i + 1) * step].T)
        if b is not None:
            rows += b.value[i * step : (i + 1) * step]
        rows = widened(rows).reshape(source.shape[:2] + (step,))
        parts += [rows[..., j : j + e] for j in range(0, step, e)]
    return [layer.heads(part) for part in parts]


def _projected_grads(
    layer: MultiHeadAttention, g: Array, x: Value, tape: Tape, q: Array, k: Array, v: Array, p: Array, dropped: Array
) -> tuple[Array, ...]:
    """Adds the gradients of the input projection; returns those of its results, as rows, one array a source."""
    sources, e = x[:3] if isinstance(x, tuple) else (x,), layer.embed_dim
    dc = layer.heads(widened(tape.pull(g)))
    dp = tape.pull(pairs(dc, v))
    if len(sources) == 1:
        found = numpy.empty((*x.shape[:2], 3 * e), p.dtype)
        parts, grads = tuple(found[..., i * e : (i + 1) * e] for i in range(3)), (flat_rows(found),)
    else:
        parts = tuple(numpy.empty(source.shape, p.dtype) for source in sources)
        grads = tuple(map(flat_rows, parts))
    dq, dk, dv = map(layer.heads, parts)
    numpy.matmul(dropped.swapaxes(-1, -2), dc, out=dv)
    ds = softmax_grad(p, dp)
    numpy.matmul(ds, k, out=dq)
    numpy.matmul(ds.swapaxes(-1, -2), q, out=dk)
    grads = tuple(g.astype(layer.dtype, copy=False) for g in grads)
    factors = [(g.T, flat_rows(x)) for g, x in zip(grads, sources, strict=True)]
    layer.in_proj_weight.accumulate_result(stacked, product, factors)
    if layer.in_proj_bias is not None:
        factors = [(ones(numpy, len(g), g.dtype), g) for g in grads]
        layer.in_proj_bias.accumulate_result(stacked, numpy.dot, factors)
    return grads


def pairs(a: Array, b: Array) -> Array:
    """a b^T / sqrt(d) of every head: (N, H, L, d), (N, H, S, d) -> (N, H, L, S), in memory N, S, H, L.

    And a is transposed first, because BLAS is faster that way.
    """
    n, heads, length, size = a.shape
    scaled = numpy.empty((n, heads, size, length), a.dtype)
    scores = numpy.empty((n, b.shape[2], heads, length), a.dtype).swapaxes(1, 2)
    numpy.multiply(a.swapaxes(-1, -2), size**-0.5, out=scaled)
    return numpy.matmul(b, scaled, out=scores).swapaxes(-1, -2)


def softmax(scores: Array, bias: Array | None) -> Array:
    """As the layer's, in place."""
    p = scores
    if bias is not None:
        p += bias
    p -= numpy.maximum(p.max(axis=-1, keepdims=True), forbidden(p.dtype) / 2)
    numpy.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    total += total == 0
    p /= total
    return p


def softmax_grad(p: Array, dp: Array) -> Array:
    """dS = P (dP - sum_S P dP), in place of dP."""
    ds = numpy.multiply(dp, p, out=numpy.empty_like(p))
    dp -= ds.sum(axis=-1, keepdims=True)
    dp *= p
    return dp


def stacked(multiply: Callable[..., Array], factors: list[tuple[Array, Array]], out: Array | None = None) -> Array:
    """The products of these pairs, one below the other."""
    if len(factors) == 1:
        return multiply(*factors[0], out)
    return numpy.concatenate([multiply(*pair) for pair in factors], out=out)


replace(
    MultiHeadAttention,
    numpy,
    forward=forward,
    backward=backward,
    backward_parameters=backward_parameters,
    multithreaded=lambda layer: True,
)
