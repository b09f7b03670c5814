"""Attention and positions."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.interop.onnx.writers.norms import linear
from mtorch.layers.attention import forbidden


def attention(b: Builder, layer: layers.MultiHeadAttention, x: Any) -> Any:
    """Attention is written as products and a softmax."""
    given = x if type(x) is tuple else (x, x, x)
    mask = given[3] if len(given) == 4 else None
    thirds = b.node("Split", b.parameter(layer.in_proj_weight), outputs=3, axis=0, num_outputs=3)
    biases: Any = (None,) * 3
    if layer.in_proj_bias is not None:
        biases = b.node("Split", b.parameter(layer.in_proj_bias), outputs=3, axis=0, num_outputs=3)
    heads = []
    for source, weight, bias, perm in zip(
        given[:3], thirds, biases, ((1, 2, 0, 3), (1, 2, 3, 0), (1, 2, 0, 3)), strict=True
    ):
        y = b.node("MatMul", source.name, b.node("Transpose", weight, perm=(1, 0)))
        y = y if bias is None else b.node("Add", y, bias)
        y = b.node("Reshape", y, b.ints(0, 0, layer.num_heads, layer.head_dim))
        heads.append(b.node("Transpose", y, perm=perm))
    q, k, v = heads
    scores = b.node("MatMul", b.node("Mul", q, b.constant(layer.head_dim**-0.5)), k)
    biases = [_causal(b, given[0], given[1])] if layer.causal else []
    if mask is not None:
        biases.append(_mask(b, layer, mask, given[0].shape[1], len(given[0].example), len(given[1].example)))
    for bias in biases:
        scores = b.node("Add", scores, bias)
    p = _masked_softmax(b, scores) if biases else b.node("Softmax", scores, axis=-1)
    c = b.node("Transpose", b.node("MatMul", p, v), perm=(2, 0, 1, 3))
    joined = b.node("Reshape", c, b.ints(0, 0, layer.embed_dim))
    return linear(b, layer.out_proj, Symbol(joined, given[0].example))


def _causal(b: Builder, query: Symbol, key: Symbol) -> str:
    """The causal mask (L, S), made at run time for the sizes that query and key have then."""
    sizes = [b.node("Shape", each.name, start=0, end=1) for each in (query, key)]
    low = b.constant(numpy.asarray(forbidden(b.net.dtype)))
    full = b.node("Expand", low, b.node("Concat", *sizes, axis=0))
    return b.node("Trilu", full, b.constant(1, "int64"), upper=1)


def _mask(b: Builder, layer: layers.MultiHeadAttention, mask: Symbol, n: int, length: int, size: int) -> str:
    """The mask as numbers that are added to the scores (N, num_heads, L, S)."""
    name, low = mask.name, b.constant(forbidden(b.net.dtype))
    if mask.example.dtype.kind == "b":
        name = b.node("Where", name, low, b.constant(0.0))
    else:
        if mask.example.dtype != b.net.dtype:
            raise b.refuse(layer, f"its mask is {mask.example.dtype}, the net {b.net.dtype}")
        name = b.node("Max", name, low)
    if mask.shape == (n * layer.num_heads, length, size):
        return b.node("Reshape", name, b.ints(-1, layer.num_heads, length, size))
    return name if mask.rank == 2 else b.node("Unsqueeze", name, b.ints(1))


def _masked_softmax(b: Builder, scores: str) -> str:
    """A query that may see no key has a row of 0: its exponentials are 0, and so is their sum, which else is >= 1."""
    axis, half = b.ints(-1), b.constant(forbidden(b.net.dtype) / 2)
    top = b.node("Max", b.node("ReduceMax", scores, axis, keepdims=1), half)
    e = b.node("Exp", b.node("Sub", scores, top))
    return b.node("Div", e, b.node("Max", b.node("ReduceSum", e, axis, keepdims=1), b.constant(1.0)))


def positions(b: Builder, layer: layers.PositionalEmbedding, x: Symbol) -> str:
    """Adds as many rows of the table as there are steps at run time."""
    steps = b.node("Shape", x.name, start=0, end=1)
    rows = b.node("Slice", b.parameter(layer.weight), b.ints(0), steps, b.ints(0))
    return b.node("Add", x.name, b.node("Unsqueeze", rows, b.ints(1)))


WRITERS = {layers.MultiHeadAttention: attention, layers.PositionalEmbedding: positions}
