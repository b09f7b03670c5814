"""The rules of the optimizers, as straight lines of passes over arrays of one shape.

`rule(xp, out, lr, g, *slots, *constants)` writes lr * direction into `out`, renews the slots and only reads g.
`arrays.descend` calls it with blocks that stay in cache; small arrays and those on a device it takes as a whole.

A running average a := beta a + (1 - beta) g is kept without its factor, as the sum s = a / (1 - beta): s := beta s + g
takes one pass less, and the factor joins constants that multiply anyway.
"""

import math
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy


def scaled(xp: ModuleType, out: Array, lr: float, g: Array) -> None:
    """d = g."""
    xp.multiply(g, lr, out)


def momentum(xp: ModuleType, out: Array, lr: float, g: Array, velocity: Array, mu: float, nesterov: bool) -> None:
    """v := mu v + g and d = v, or with Nesterov d = g + mu v."""
    _gather(xp, velocity, mu, g)
    if nesterov:
        xp.multiply(velocity, mu, out)
        xp.add(out, g, out)
        xp.multiply(out, lr, out)
    else:
        xp.multiply(velocity, lr, out)


def adagrad(
    xp: ModuleType, out: Array, lr: float, g: Array, square: Array, eps: float, factor: float
) -> None:
    """s := s + g^2 and d = factor g / (sqrt(s) + eps)."""
    xp.multiply(g, g, out)
    xp.add(square, out, square)
    xp.sqrt(square, out)
    xp.add(out, eps, out)
    xp.divide(g, out, out)
    xp.multiply(out, lr * factor, out)


def rmsprop(xp: ModuleType, out: Array, lr: float, g: Array, square: Array, *more: Any) -> None:
    """s := alpha s + g^2 and d = factor g / (sqrt(s) + eps), with momentum v := mu v + d and v in its place.

    Centered, m := alpha m + g and s - (1 - alpha) m^2 is under the root: the variance in place of the square.
    With c = sqrt(1 - alpha) eps comes divided by c, and factor is 1 / c.
    """
    *slots, alpha, eps, factor, mu, centered = more
    _gather_square(xp, square, alpha, g, out)
    if centered:
        _gather(xp, slots[0], alpha, g)
        xp.multiply(slots[0], slots[0], out)
        xp.multiply(out, 1 - alpha, out)
        xp.subtract(square, out, out)
        xp.maximum(out, 0.0, out=out)  # rounding may leave less
        xp.sqrt(out, out)
    else:
        xp.sqrt(square, out)
    xp.add(out, eps, out)
    xp.divide(g, out, out)
    if mu:
        _gather(xp, slots[-1], mu, out)
    xp.multiply(slots[-1] if mu else out, lr * factor, out)


def adadelta(
    xp: ModuleType, out: Array, lr: float, g: Array, square: Array, moves: Array, rho: float, eps: float
) -> None:
    """s := rho s + g^2, d = g sqrt((u + eps) / (s + eps)), then u := rho u + d^2. eps comes divided by 1 - rho."""
    _gather_square(xp, square, rho, g, out)
    xp.add(square, eps, out)
    xp.divide(moves + eps, out, out)
    xp.sqrt(out, out)
    xp.multiply(out, g, out)
    _gather_square(xp, moves, rho, out, xp.empty_like(out))
    xp.multiply(out, lr, out)


def adam(
    xp: ModuleType, out: Array, lr: float, g: Array, mean: Array, square: Array,
    beta1: float, beta2: float, eps: float, factor: float,
) -> None:  # fmt: skip
    """m := beta1 m + g, s := beta2 s + g^2 and d = factor m / (sqrt(s) + eps); eps comes divided by c.

    Adam divides the averages by 1 - beta^t. With c = sqrt((1 - beta2) / (1 - beta2^t)) its direction
    (1 - beta1) m / (1 - beta1^t) / (c sqrt(s) + eps) is the one above, where factor = (1 - beta1) / (1 - beta1^t) / c.
    """
    _gather(xp, mean, beta1, g)
    _gather_square(xp, square, beta2, g, out)
    xp.sqrt(square, out)
    xp.add(out, eps, out)
    xp.divide(mean, out, out)
    xp.multiply(out, lr * factor, out)


def _gather(xp: ModuleType, total: Array, beta: float, g: Array) -> None:
    xp.multiply(total, beta, total)
    xp.add(total, g, total)


def _gather_square(xp: ModuleType, total: Array, beta: float, g: Array, scratch: Array) -> None:
    xp.multiply(g, g, scratch)
    xp.multiply(total, beta, total)
    xp.add(total, scratch, total)


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
    total = math.sqrt(sum(float(g.dot(g)) for g in flat))
    if not math.isfinite(total):
        total = float(numpy.sqrt(sum(numpy.square(g, dtype=numpy.longdouble).sum() for g in flat)))
    factor = norm / (total + 1e-6)
    return 1.0 if factor >= 1 else factor
