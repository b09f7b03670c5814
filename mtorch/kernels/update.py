"""The rules of the optimizers, as straight lines of passes over arrays of one shape.

`rule(xp, out, lr, g, *slots, *constants)` writes lr * direction into `out`, renews the slots and only reads g.
`arrays.follow` calls it with blocks that stay in cache; small arrays and those on a device it takes as a whole.

A running average a := beta a + (1 - beta) g is kept without its factor, as the sum s = a / (1 - beta): s := beta s + g
takes one pass less, and the factor joins constants that multiply anyway: lr comes with it, eps divided by it.
"""

import math
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy


def plain(xp: ModuleType, out: Array, lr: Any, g: Array) -> None:
    """d = g."""
    xp.multiply(g, lr, out)


def momentum(xp: ModuleType, out: Array, lr: Any, g: Array, velocity: Array, mu: Any) -> None:
    """v := mu v + g and d = v."""
    _gather(xp, velocity, mu, g)
    xp.multiply(velocity, lr, out)


def nesterov(xp: ModuleType, out: Array, lr: Any, g: Array, velocity: Array, mu: Any) -> None:
    """v := mu v + g and d = g + mu v."""
    _gather(xp, velocity, mu, g)
    xp.multiply(velocity, mu, out)
    xp.add(out, g, out)
    xp.multiply(out, lr, out)


def adagrad(xp: ModuleType, out: Array, lr: Any, g: Array, square: Array, eps: Any) -> None:
    """s := s + g^2 and d = g / (sqrt(s) + eps)."""
    xp.multiply(g, g, out)
    xp.add(square, out, square)
    xp.sqrt(square, out)
    _quotient(xp, out, lr, g, eps)


def rmsprop(xp: ModuleType, out: Array, lr: Any, g: Array, square: Array, *rest: Any) -> None:
    """s := alpha s + g^2 and d = g / (sqrt(s) + eps); with a slot for it v := mu v + d in its place."""
    *velocity, alpha, eps, mu = rest
    _gather_square(xp, square, alpha, g, out)
    xp.sqrt(square, out)
    _quotient_with_momentum(xp, out, lr, g, eps, velocity, mu)


def rmsprop_centered(xp: ModuleType, out: Array, lr: Any, g: Array, square: Array, mean: Array, *rest: Any) -> None:
    """As rmsprop, with m := alpha m + g and the variance s - (1 - alpha) m^2 under the root."""
    *velocity, alpha, eps, mu = rest
    _gather_square(xp, square, alpha, g, out)
    _gather(xp, mean, alpha, g)
    xp.multiply(mean, 1 - alpha, out)
    xp.multiply(out, mean, out)
    xp.minimum(out, xp.finfo(out.dtype).max, out=out)  # inf - inf would be NaN
    xp.subtract(square, out, out)
    xp.maximum(out, 0.0, out=out)  # rounding may leave less
    xp.sqrt(out, out)
    _quotient_with_momentum(xp, out, lr, g, eps, velocity, mu)


def adadelta(xp: ModuleType, out: Array, lr: Any, g: Array, square: Array, moves: Array, rho: Any, eps: Any) -> None:
    """s := rho s + g^2, d = g sqrt((u + eps) / (s + eps)), then u := rho u + d^2."""
    _gather_square(xp, square, rho, g, out)
    xp.add(square, eps, out)
    xp.divide(moves + eps, out, out)
    xp.sqrt(out, out)
    xp.multiply(out, g, out)
    _gather_square(xp, moves, rho, out, xp.empty_like(out))
    xp.multiply(out, lr, out)


def adam(
    xp: ModuleType, out: Array, lr: Any, g: Array, mean: Array, square: Array, beta1: Any, beta2: Any, eps: Any
) -> None:
    """m := beta1 m + g, s := beta2 s + g^2 and d = m / (sqrt(s) + eps).

    Adam divides the averages by 1 - beta^t. With c = sqrt((1 - beta2) / (1 - beta2^t)) its direction
    (1 - beta1) m / (1 - beta1^t) / (c sqrt(s) + eps) is the one above, but for eps / c in place of eps, and for the
    factor (1 - beta1) / (1 - beta1^t) / c.
    """
    _gather(xp, mean, beta1, g)
    _gather_square(xp, square, beta2, g, out)
    xp.sqrt(square, out)
    _quotient(xp, out, lr, mean, eps)


def _gather(xp: ModuleType, total: Array, beta: Any, g: Array) -> None:
    xp.multiply(total, beta, total)
    xp.add(total, g, total)


def _gather_square(xp: ModuleType, total: Array, beta: Any, g: Array, scratch: Array) -> None:
    xp.multiply(g, g, scratch)
    xp.multiply(total, beta, total)
    xp.add(total, scratch, total)


def _quotient(xp: ModuleType, root: Array, lr: Any, g: Array, eps: Any) -> None:
    """root := lr g / (root + eps)."""
    xp.add(root, eps, root)
    xp.divide(g, root, root)
    xp.multiply(root, lr, root)


def _quotient_with_momentum(
    xp: ModuleType, root: Array, lr: Any, g: Array, eps: Any, velocity: list[Array], mu: Any
) -> None:
    if not velocity:
        _quotient(xp, root, lr, g, eps)
        return
    xp.add(root, eps, root)
    xp.divide(g, root, root)
    _gather(xp, velocity[0], mu, root)
    xp.multiply(velocity[0], lr, root)


def clipped(xp: ModuleType, g: Array, bound: float) -> Array:
    """The entries of g within [-bound, bound], as a new array; NaN stays."""
    g = xp.minimum(g, bound)
    return xp.maximum(g, -bound, out=g)


def shrinkage(xp: ModuleType, grads: list[Array], norm: float) -> Any:
    """min(1, norm / (|g| + 1e-6)) over all arrays together: a number on NumPy, a 0-d float64 array on a device.

    Squares of float32 may overflow, so they are added up in a wider type: on NumPy only if that has happened.
    """
    if not is_numpy(xp):
        flat = [g.reshape(-1).astype(xp.float64) for g in grads]
        total = xp.sqrt(sum(g.dot(g) for g in flat))
        return xp.minimum(norm / (total + 1e-6), 1.0)
    flat = [g.reshape(-1) for g in grads]
    with numpy.errstate(over="ignore"):
        total = math.sqrt(sum(float(g.dot(g)) for g in flat))
    if not math.isfinite(total):
        total = float(numpy.sqrt(sum(numpy.square(g, dtype=numpy.longdouble).sum() for g in flat)))
    factor = norm / (total + 1e-6)
    return 1.0 if factor >= 1 else factor
