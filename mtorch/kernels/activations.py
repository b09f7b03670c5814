"""The smooth activations with their slopes: each function returns (y, dy/dx), which share their costly parts.

The bodies hold x where exp would overflow, which changes no result by more than rounding, and work in place on pieces
that stay in cache. `_LOGARITHM` is the minimax fit of log(1 + u) / z in z^2 with z = u / (2 + u), for u in [0, 1] and
float32: log(1 + u) = 2 artanh(z), and NumPy's log1p costs eight times as much there.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mtorch.arrays import BLOCK, Array, is_numpy
from mtorch.kernels.memory import empty
from mtorch.math.erf import normal_tail, table_for

INF = math.inf
PIECE = 4 * BLOCK  # with thirty passes the calls cost more than a cache that overflows a little
_LIMIT = {2: 11.0, 4: 88.0}  # exp(limit) is finite; 709 for wider types
_TANH_LIMIT = {2: 4.0, 4: 10.0}  # the same for the exponent in gelu_tanh; 21 for wider types
_LOGARITHM = (2.00000001, 0.666663147, 0.400249118, 0.279605776, 0.281784657)
_C0, _C1 = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715


def gelu(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    """x Phi(x) and Phi(x) + x phi(x)."""
    return _in_pieces(xp, _gelu, x)


def _gelu(xp: ModuleType, x: Array, y: Array, slope: Array) -> None:
    """With a = |x| and q = Phi(-a): y = max(x, 0) - a q. With z = q - a phi(a): slope z left of 0, 1 - z right."""
    a, e, q = normal_tail(xp, x)
    xp.multiply(a, q, out=y)
    xp.subtract(x.clip(0.0, INF), y, out=y)
    e *= table_for(x.dtype).density
    e *= a
    q -= e
    xp.subtract(0.5, q, out=q)  # 1/2 - z is positive
    xp.copysign(q, x, out=slope)
    slope += 0.5


def gelu_tanh(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    """x s and s + x s (1 - s) w' with s = 1 / (1 + exp(-w)) and w = sqrt(8/pi) (x + 0.044715 x^3)."""
    return _in_pieces(xp, _gelu_tanh, x)


def _gelu_tanh(xp: ModuleType, x: Array, y: Array, slope: Array) -> None:
    limit = _TANH_LIMIT.get(x.dtype.itemsize, 21.0)
    c = x.clip(-limit, limit)
    square = c * c
    s = square * -_C1
    s -= _C0
    s *= c
    _sigmoid_of_negated(xp, s)
    xp.maximum(x, c, out=y)
    y *= s
    square *= 3 * _C1
    square += _C0
    square *= c
    _weighted(xp, s, square, slope)


def silu(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    """x s and s + x s (1 - s) with s = 1 / (1 + exp(-x))."""
    return _in_pieces(xp, _silu, x)


def _silu(xp: ModuleType, x: Array, y: Array, slope: Array) -> None:
    limit = _LIMIT.get(x.dtype.itemsize, 709.0)
    c = x.clip(-limit, limit)
    s = -c
    _sigmoid_of_negated(xp, s)
    xp.maximum(x, c, out=y)
    y *= s
    _weighted(xp, s, c, slope)


def _sigmoid_of_negated(xp: ModuleType, w: Array) -> None:
    """w <- 1 / (1 + exp(w))."""
    xp.exp(w, out=w)
    w += 1
    xp.reciprocal(w, out=w)


def _weighted(xp: ModuleType, s: Array, c: Array, out: Array) -> None:
    """out <- s (1 + c (1 - s))."""
    xp.subtract(1, s, out=out)
    out *= c
    out += 1
    out *= s


def softplus(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    """log(1 + exp(x)) and 1 / (1 + exp(-x))."""
    return _in_pieces(xp, _softplus, x)


def _softplus(xp: ModuleType, x: Array, y: Array, slope: Array) -> None:
    """With e = exp(-|x|): y = max(x, 0) + log(1 + e); the slope is 1 / (1 + e) right of 0, e / (1 + e) left."""
    limit = _LIMIT.get(x.dtype.itemsize, 11356.0)
    e = x.clip(-limit, limit)
    xp.absolute(e, out=e)
    xp.negative(e, out=e)
    xp.exp(e, out=e)
    _log1p(xp, e, y)
    y += x.clip(0.0, INF)
    xp.greater_equal(x, 0.0, out=slope)
    xp.maximum(slope, e, out=slope)
    e += 1
    slope /= e


def _log1p(xp: ModuleType, u: Array, out: Array) -> None:
    """out <- log(1 + u) for 0 <= u <= 1."""
    if not is_numpy(xp) or u.dtype.itemsize > 4:
        xp.log1p(u, out=out)
        return
    z = u / (u + 2)
    square = z * z
    xp.multiply(square, _LOGARITHM[-1], out=out)
    for c in _LOGARITHM[-2:0:-1]:
        out += c
        out *= square
    out += _LOGARITHM[0]
    out *= z


def elu(xp: ModuleType, x: Array, alpha: float) -> Array:
    """x right of 0, alpha (exp(x) - 1) left of it."""
    return _in_pieces(xp, _elu, x, alpha, outputs=1)[0]


def _elu(xp: ModuleType, x: Array, y: Array, alpha: float) -> None:
    """exp(n) - 1 = 2 t / (1 - t) with t = tanh(n / 2), which cancels nowhere for n <= 0."""
    t = x.clip(-INF, 0.0)
    t *= 0.5
    xp.tanh(t, out=t)
    xp.subtract(1, t, out=y)
    xp.divide(t, y, out=y)
    y *= 2 * alpha
    y += x.clip(0.0, INF)


def _in_pieces(
    xp: ModuleType, body: Callable[..., None], x: Array, *options: Any, outputs: int = 2
) -> tuple[Array, ...]:
    """body(xp, x, *results, *options) over the whole array, on NumPy piece by piece and in the order of x's memory."""
    if not is_numpy(xp):
        whole = tuple(xp.empty_like(x) for _ in range(outputs))
        body(xp, x, *whole, *options)
        return whole
    order = range(x.ndim) if x.flags.c_contiguous else sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    ordered = x.transpose(order)
    flat = ordered.reshape(-1)
    results = tuple(empty(flat.shape, x.dtype) for _ in range(outputs))
    for start in range(0, flat.size, PIECE):
        piece = slice(start, start + PIECE)
        body(xp, flat[piece], *(result[piece] for result in results), *options)
    back = sorted(range(x.ndim), key=order.__getitem__)
    return tuple(result.reshape(ordered.shape).transpose(back) for result in results)
