"""Scaled dot-product attention. N batch, H heads, L queries, S keys, d entries a head; all arrays are (N, H, ., .)."""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy

from mtorch.arrays import Array
from mtorch.kernels.memory import empty_like, empty_on


def forbidden(dtype: numpy.dtype) -> float:
    """What is added to the score of a key that a query must not see: exp of it is 0, yet differences stay finite."""
    return -1e30 if dtype.itemsize > 2 else -3e4


@lru_cache(maxsize=16)
def causal_bias(xp: ModuleType, queries: int, keys: int, dtype: numpy.dtype) -> Array:
    """(L, S): 0 for keys up to the query's own place, forbidden for those after it; in the memory order of `pairs`."""
    return xp.tril(xp.full((keys, queries), forbidden(dtype), dtype=dtype), -1).T


def pairs(xp: ModuleType, a: Array, b: Array) -> Array:
    """a b^T / sqrt(d) of every head: (N, H, L, d), (N, H, S, d) -> (N, H, L, S).

    In memory the order is N, S, H, L: a sum over S then adds H L neighbours at a time. And a is transposed first,
    because BLAS is faster that way.
    """
    n, heads, length, size = a.shape
    scaled = empty_on(xp, (n, heads, size, length), a.dtype)
    scores = empty_on(xp, (n, b.shape[2], heads, length), a.dtype).swapaxes(1, 2)
    xp.multiply(a.swapaxes(-1, -2), size**-0.5, out=scaled)
    return xp.matmul(b, scaled, out=scores).swapaxes(-1, -2)


def attention(xp: ModuleType, q: Array, k: Array, bias: Array | None) -> Array:
    """P = softmax(q k^T / sqrt(d) + bias) over the keys: (N, H, L, S). A query that sees no key has a row of 0."""
    p = pairs(xp, q, k)
    low = forbidden(p.dtype) / 2
    if bias is not None:
        p += bias
    p -= xp.maximum(p.max(axis=-1, keepdims=True), low)
    xp.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    total += total == 0  # 0 / 1 and not 0 / 0 for a query that sees nothing
    p /= total
    return p


def attention_grad(xp: ModuleType, q: Array, k: Array, p: Array, dp: Array, dq: Array, dk: Array) -> None:
    """Writes dq = dS k / sqrt(d) and dk = dS^T q / sqrt(d) with dS = P (dP - sum_S P dP).

    dp is dP / sqrt(d), and is overwritten. Where P is certain, dS is 0 and not what roundings leave.
    """
    ds = xp.multiply(dp, p, out=empty_like(xp, p))
    dp -= ds.sum(axis=-1, keepdims=True)
    dp *= p
    xp.matmul(dp, k, out=dq)
    xp.matmul(dp.swapaxes(-1, -2), q, out=dk)


def stacked(
    xp: ModuleType, multiply: Callable[..., Array], factors: list[tuple[Array, Array]], out: Array | None = None
) -> Array:
    """The products of these pairs, one below the other."""
    if len(factors) == 1:
        return multiply(*factors[0], out)
    return xp.concatenate([multiply(*pair) for pair in factors], out=out)
