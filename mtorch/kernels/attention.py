"""Scaled dot-product attention. N batch, H heads, L queries, S keys, d entries a head; all arrays are (N, H, ., .)."""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy

from mtorch.arrays import Array
from mtorch.kernels.memory import empty_on


def forbidden(dtype: numpy.dtype) -> float:
    """What is added to the score of a pair that may not meet: exp of it is 0, yet differences of it stay finite."""
    return -1e30 if dtype.itemsize > 2 else -3e4


@lru_cache(maxsize=16)
def causal_bias(xp: ModuleType, queries: int, keys: int, dtype: numpy.dtype) -> Array:
    """(L, S): 0 for keys up to the query's own place, forbidden for those after it. In memory as `pairs` has them."""
    return xp.tril(xp.full((keys, queries), forbidden(dtype), dtype=dtype), -1).T


def pairs(xp: ModuleType, a: Array, b: Array) -> Array:
    """a b^T / sqrt(d) of every head: (N, H, L, d), (N, H, S, d) -> (N, H, L, S).

    In memory the order is N, S, H, L: a pass that reduces over S then takes H L neighbours at once. And a is turned
    first, as BLAS multiplies faster so.
    """
    n, heads, length, size = a.shape
    turned = empty_on(xp, (n, heads, size, length), a.dtype)
    room = empty_on(xp, (n, b.shape[2], heads, length), a.dtype).swapaxes(1, 2)
    xp.multiply(a.swapaxes(-1, -2), size**-0.5, out=turned)
    return xp.matmul(b, turned, out=room).swapaxes(-1, -2)


def attention(xp: ModuleType, q: Array, k: Array, bias: Array | None) -> Array:
    """P = softmax(q k^T / sqrt(d) + bias) over the keys: (N, H, L, S). A query that may meet no key has a row of 0."""
    p = pairs(xp, q, k)
    low = forbidden(p.dtype) / 2
    if bias is not None:
        p += bias
    p -= xp.maximum(p.max(axis=-1, keepdims=True), low)
    xp.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    total += total == 0
    p /= total
    return p


def attention_grad(
    xp: ModuleType, q: Array, k: Array, p: Array, dp: Array, c: Array, dc: Array, dq: Array, dk: Array
) -> None:
    """Writes dq = dS k / sqrt(d) and dk = dS^T q / sqrt(d) with dS = P (dP - dc . c); dp is dP / sqrt(d), used up."""
    size = c.shape[-1]
    dp -= xp.matmul(dc * c, xp.full(size, size**-0.5, c.dtype))[..., None]
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
