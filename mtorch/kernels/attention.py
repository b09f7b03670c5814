"""Scaled dot-product attention. N batch, H heads, L queries, S keys, d entries a head; all arrays are (N, H, ., .)."""

import math
from functools import lru_cache
from types import ModuleType

import numpy

from mtorch.arrays import Array
from mtorch.kernels.rows import max_along, sum_along


def forbidden(dtype: numpy.dtype) -> float:
    """What is added to the score of a pair that may not meet: exp of it is 0, yet differences of it stay finite."""
    return -1e30 if dtype.itemsize > 2 else -3e4


@lru_cache(maxsize=16)
def causal_bias(xp: ModuleType, queries: int, keys: int, dtype: numpy.dtype) -> Array:
    """(L, S): 0 for keys up to the query's own place, forbidden for those after it."""
    return xp.triu(xp.full((queries, keys), forbidden(dtype), dtype=dtype), 1)


def attention(xp: ModuleType, q: Array, k: Array, bias: Array | None) -> Array:
    """P = softmax(q k^T / sqrt(d) + bias) over the keys: (N, H, L, S). A query that may meet no key has a row of 0."""
    p = (q * (1 / math.sqrt(q.shape[-1]))) @ k.swapaxes(-1, -2)
    low = forbidden(p.dtype) / 2
    if bias is not None:
        p += bias
    top = max_along(xp, p, -1)
    p -= xp.maximum(top, low)
    xp.exp(p, out=p)
    total = sum_along(xp, p, -1)
    total += total == 0
    p /= total
    return p


def attention_grad(xp: ModuleType, q: Array, k: Array, p: Array, dp: Array) -> tuple[Array, Array]:
    """(dq, dk) from dP: through the softmax dS = P (dP - sum_S dP P); dq = dS k / sqrt(d), dk = dS^T q / sqrt(d)."""
    ds = dp * p
    row = sum_along(xp, ds, -1)
    xp.subtract(dp, row, out=ds)
    ds *= p
    ds *= 1 / math.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q
