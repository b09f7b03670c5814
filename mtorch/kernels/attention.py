"""Scaled dot-product attention. N batch, H heads, L queries, S keys, d entries a head; all arrays are (N, H, ., .)."""

import math
from functools import lru_cache
from types import ModuleType

import numpy

from mtorch.arrays import Array
from mtorch.kernels.memory import empty_like, empty_on


def forbidden(dtype: numpy.dtype) -> float:
    """What is added to the score of a pair that may not meet: exp of it is 0, yet differences of it stay finite."""
    return -1e30 if dtype.itemsize > 2 else -3e4


@lru_cache(maxsize=16)
def causal_bias(xp: ModuleType, queries: int, keys: int, dtype: numpy.dtype) -> Array:
    """(L, S): 0 for keys up to the query's own place, forbidden for those after it."""
    return xp.triu(xp.full((queries, keys), forbidden(dtype), dtype=dtype), 1)


def pairs(xp: ModuleType, a: Array, b: Array, scale: float = 1.0) -> Array:
    """scale a b^T of every head: (., L, d), (., S, d) -> (., L, S).

    In memory S stands before L, as NumPy reduces faster so; and a is turned first, as BLAS multiplies faster so.
    """
    n, heads, length, size = a.shape
    turned, room = (empty_on(xp, (n, heads, rows, length), a.dtype) for rows in (size, b.shape[2]))
    xp.multiply(a.swapaxes(-1, -2), scale, out=turned)
    return xp.matmul(b, turned, out=room).swapaxes(-1, -2)


def attention(xp: ModuleType, q: Array, k: Array, bias: Array | None) -> Array:
    """P = softmax(q k^T / sqrt(d) + bias) over the keys: (N, H, L, S). A query that may meet no key has a row of 0."""
    p = pairs(xp, q, k, 1 / math.sqrt(q.shape[-1]))
    low = forbidden(p.dtype) / 2
    if bias is not None:
        p += bias
    p -= xp.maximum(p.max(axis=-1, keepdims=True), low)
    xp.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    total += total == 0
    p /= total
    return p


def attention_grad(xp: ModuleType, q: Array, k: Array, p: Array, dp: Array, dq: Array, dk: Array) -> None:
    """Writes dq = dS k / sqrt(d) and dk = dS^T q / sqrt(d); through the softmax dS = P (dP - sum_S dP P)."""
    ds = xp.multiply(dp, p, out=empty_like(xp, p))
    row = ds.sum(axis=-1, keepdims=True)
    xp.subtract(dp, row, out=ds)
    ds *= p
    ds *= 1 / math.sqrt(q.shape[-1])
    xp.matmul(ds, k, out=dq)
    xp.matmul(ds.swapaxes(-1, -2), q, out=dk)
