"""Functions of expressions: `Graph.of(log((x - 7.0) ** 2 + 10.0))`.

On expressions, and on Parameters, they return an expression and compute nothing. On arrays, numbers and lists they are
that layer's forward, in the array's own module and dtype (float32 where there are no floats), and keep nothing.

`abs`, `sum`, `max` and `min` shadow Python's own, so `from mtorch import *` leaves them out: say `mtorch.sum`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy

from mtorch import arrays, layers
from mtorch.arrays import Value
from mtorch.checks import shown
from mtorch.graph.expression import Expression
from mtorch.graph.table import leaves
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter


def _apply(kind: type[Layer], x: Any, *args: Any, **options: Any) -> Any:
    """The layer `kind(*args, **options)` on x: an expression of an expression, computed for data."""
    parts = list(leaves(x))
    if any(isinstance(part, Expression | Parameter | Buffer) for part in parts):
        return Expression(kind(*args, **options), x, by_operator=True)
    modules = [arrays.array_module(part, kind.__name__) for part in parts]
    home = next((module for module in modules if module is not None), numpy)
    kinds = [part.dtype for part in parts if arrays.array_module(part) is not None and part.dtype.kind == "f"]
    return kind(*args, xp=home, dtype=kinds[0] if kinds else "float32", **options)(x)


def _named(function: Callable, kind: type[Layer], text: str) -> Any:
    function.__name__ = function.__qualname__ = kind.__name__.lower()
    function.__doc__ = text
    return function


def _of_one(kind: type[Layer], text: str) -> Callable[[Any], Value]:
    return _named(lambda x: _apply(kind, x), kind, text)


def _of_two(kind: type[Layer], text: str) -> Callable[[Any, Any], Value]:
    return _named(lambda a, b: _apply(kind, (a, b)), kind, text)


def _over_axes(kind: type[Layer], text: str) -> Callable[..., Value]:
    return _named(lambda x, axis=None, keepdims=False: _apply(kind, x, axis, keepdims), kind, text)


add = _of_two(layers.Add, "a + b; shapes broadcast.")
subtract = _of_two(layers.Subtract, "a - b; shapes broadcast.")
multiply = _of_two(layers.Multiply, "a b, entry by entry; shapes broadcast.")
divide = _of_two(layers.Divide, "a / b; shapes broadcast.")
maximum = _of_two(layers.Maximum, "The larger of both, entry by entry; shapes broadcast.")
minimum = _of_two(layers.Minimum, "The smaller of both, entry by entry; shapes broadcast.")
matmul = _of_two(layers.MatMul, "The matrix product over the last two axes; leading axes broadcast.")

exp = _of_one(layers.Exp, "e^x.")
log = _of_one(layers.Log, "The natural logarithm.")
sqrt = _of_one(layers.Sqrt, "The square root.")
square = _of_one(layers.Square, "x^2.")
sin = _of_one(layers.Sin, "The sine; x in radians.")
cos = _of_one(layers.Cos, "The cosine; x in radians.")
abs = _of_one(layers.Abs, "|x|.")
negative = _of_one(layers.Negative, "-x.")
relu = _of_one(layers.ReLU, "max(x, 0).")
silu = _of_one(layers.SiLU, "x sigmoid(x).")
sigmoid = _of_one(layers.Sigmoid, "1 / (1 + e^-x).")
tanh = _of_one(layers.Tanh, "The hyperbolic tangent.")

sum = _over_axes(layers.Sum, "The sum over all axes, or over those given.")
mean = _over_axes(layers.Mean, "The mean over all axes, or over those given.")
max = _over_axes(
    layers.Max, "The largest entry over all axes, or over those given; at a tie the first takes the gradient."
)
min = _over_axes(
    layers.Min, "The smallest entry over all axes, or over those given; at a tie the first takes the gradient."
)


def power(x: Any, exponent: Any) -> Value:
    """x^exponent; the exponent is a number, an array or an expression."""
    if isinstance(exponent, int | float):
        return _apply(layers.Power, x, exponent)
    return _apply(layers.Pow, (x, exponent))


def clip(x: Any, min: float | None = None, max: float | None = None) -> Value:
    """x within [min, max], else the nearer bound; None is no bound."""
    return _apply(layers.Clip, x, min, max)


def where(condition: Any, a: Any, b: Any) -> Value:
    """a where the condition, an array of booleans, holds, b elsewhere; shapes broadcast."""
    return _apply(layers.Where, (condition, a, b))


def take(x: Any, ids: Any) -> Value:
    """From each row of x (..., K) the entry that its integer id names: `take(q, action)` is q[n, action[n]]."""
    return _apply(layers.Take, (x, ids))


def concat(parts: Any, axis: int) -> Value:
    """The arrays of a tuple or list, one after the other along an axis."""
    if not isinstance(parts, Iterable) or isinstance(parts, range) or getattr(parts, "ndim", 1) == 0:
        raise TypeError(f"concat expected a tuple or list of arrays, got {shown(parts)}")
    return _apply(layers.Concat, tuple(parts), axis)


def split(x: Any, sections: int, axis: int) -> Value:
    """Equal parts along an axis: `a, b = split(x, 2, axis=-1)`."""
    return _apply(layers.Split, x, sections, axis)


def reshape(x: Any, shape: int | tuple[int, ...]) -> Value:
    """The entries of each sample in another shape; the batch axis stays."""
    return _apply(layers.Reshape, x, shape)


def flatten(x: Any, start_dim: int = 1, end_dim: int = -1) -> Value:
    """Each sample as one row; the axes from start_dim to end_dim, both included, as one."""
    return _apply(layers.Flatten, x, start_dim, end_dim)


def transpose(x: Any, axes: tuple[int, ...] | None = None) -> Value:
    """All axes, the batch included, in another order; without one, in reverse."""
    return _apply(layers.Transpose, x, axes)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Value:
    """x where it is positive, else negative_slope x."""
    return _apply(layers.LeakyReLU, x, negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where it is positive, else alpha (e^x - 1)."""
    return _apply(layers.ELU, x, alpha)


def gelu(x: Any, approximate: str = "none") -> Value:
    """x Phi(x) with the normal distribution Phi."""
    return _apply(layers.GELU, x, approximate)


def softplus(x: Any, beta: float = 1.0, threshold: float | None = None) -> Value:
    """log(1 + e^(beta x)) / beta; x where beta x is above a threshold that was given."""
    return _apply(layers.Softplus, x, beta, threshold)


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    """x within [min_val, max_val], else the nearer bound."""
    return _apply(layers.Hardtanh, x, min_val, max_val)


def softmax(x: Any, axis: int = -1, *, dim: int | None = None) -> Value:
    """Positive entries that sum to 1 along an axis, which torch calls dim."""
    return _apply(layers.Softmax, x, axis if dim is None else dim)


def log_softmax(x: Any, axis: int = -1, *, dim: int | None = None) -> Value:
    """The logarithm of softmax."""
    return _apply(layers.LogSoftmax, x, axis if dim is None else dim)


_BUILTINS = {"abs", "max", "min", "sum"}
__all__ = [
    name
    for name, item in globals().items()
    if callable(item) and getattr(item, "__module__", "") == __name__ and name[0] != "_" and name not in _BUILTINS
]
