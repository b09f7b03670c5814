"""Functions of expressions: `Graph.of(log((x - 7.0) ** 2 + 10.0))`.

On expressions, and on Parameters, they return an expression and compute nothing. On arrays, numbers and lists they are
that layer's forward, in the array's own module and dtype (float32 where there are no floats), and keep nothing.

`abs`, `sum`, `max` and `min` shadow Python's own, so `from mtorch import *` leaves them out: say `mtorch.sum`.
"""

from collections.abc import Iterable
from typing import Any

import numpy

from mtorch import arrays, layers
from mtorch.arrays import Value
from mtorch.graph.expression import Expression
from mtorch.graph.table import leaves
from mtorch.layer import Layer
from mtorch.layers.reductions import Axes
from mtorch.parameter import Buffer, Parameter

__all__ = [
    "add", "concat", "divide", "elu", "exp", "flatten", "gelu", "hardtanh", "leaky_relu", "log", "log_softmax",
    "matmul", "maximum", "mean", "minimum", "multiply", "negative", "power", "relu", "reshape", "sigmoid", "silu",
    "softmax", "softplus", "split", "sqrt", "square", "subtract", "tanh", "transpose",
]  # fmt: skip


def _apply(kind: type[Layer], x: Any, *args: Any, **options: Any) -> Any:
    """The layer `kind(*args, **options)` on x: an expression of an expression, computed for data."""
    parts = list(leaves(x))
    if any(isinstance(part, Expression | Parameter | Buffer) for part in parts):
        return Expression(kind(*args, **options), x, by_operator=True)
    home = next((module for module in map(arrays.array_module, parts) if module is not None), numpy)
    kinds = [part.dtype for part in parts if arrays.array_module(part) is not None and part.dtype.kind == "f"]
    return kind(*args, xp=home, dtype=kinds[0] if kinds else "float32", **options)(x)


def add(a: Any, b: Any) -> Value:
    """a + b; shapes broadcast."""
    return _apply(layers.Add, (a, b))


def subtract(a: Any, b: Any) -> Value:
    """a - b; shapes broadcast."""
    return _apply(layers.Subtract, (a, b))


def multiply(a: Any, b: Any) -> Value:
    """a b, entry by entry; shapes broadcast."""
    return _apply(layers.Multiply, (a, b))


def divide(a: Any, b: Any) -> Value:
    """a / b; shapes broadcast."""
    return _apply(layers.Divide, (a, b))


def maximum(a: Any, b: Any) -> Value:
    """The larger of both, entry by entry; shapes broadcast."""
    return _apply(layers.Maximum, (a, b))


def minimum(a: Any, b: Any) -> Value:
    """The smaller of both, entry by entry; shapes broadcast."""
    return _apply(layers.Minimum, (a, b))


def matmul(a: Any, b: Any) -> Value:
    """The matrix product over the last two axes; leading axes broadcast."""
    return _apply(layers.MatMul, (a, b))


def power(x: Any, exponent: Any) -> Value:
    """x^exponent; the exponent is a number, an array or an expression."""
    if isinstance(exponent, int | float):
        return _apply(layers.Power, x, exponent)
    return _apply(layers.Pow, (x, exponent))


def exp(x: Any) -> Value:
    """e^x."""
    return _apply(layers.Exp, x)


def log(x: Any) -> Value:
    """The natural logarithm."""
    return _apply(layers.Log, x)


def sqrt(x: Any) -> Value:
    """The square root."""
    return _apply(layers.Sqrt, x)


def square(x: Any) -> Value:
    """x^2."""
    return _apply(layers.Square, x)


def abs(x: Any) -> Value:
    """|x|."""
    return _apply(layers.Abs, x)


def negative(x: Any) -> Value:
    """-x."""
    return _apply(layers.Negative, x)


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The sum over all axes, or over those given."""
    return _apply(layers.Sum, x, axis, keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The mean over all axes, or over those given."""
    return _apply(layers.Mean, x, axis, keepdims)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The largest entry over all axes, or over those given; at a tie the first takes the gradient."""
    return _apply(layers.Max, x, axis, keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The smallest entry over all axes, or over those given; at a tie the first takes the gradient."""
    return _apply(layers.Min, x, axis, keepdims)


def concat(parts: Any, axis: int) -> Value:
    """The arrays of a tuple or list, one after the other along an axis."""
    if not isinstance(parts, Iterable):
        raise TypeError(f"concat expected a tuple or list of arrays, got {parts!r}")
    return _apply(layers.Concat, tuple(parts), axis)


def split(x: Any, sections: int, axis: int) -> Value:
    """Equal parts along an axis: `a, b = split(x, 2, axis=-1)`."""
    return _apply(layers.Split, x, sections, axis)


def reshape(x: Any, shape: int | tuple[int, ...]) -> Value:
    """The entries of each sample in another shape; the batch axis stays."""
    return _apply(layers.Reshape, x, shape)


def flatten(x: Any) -> Value:
    """Each sample as one row."""
    return _apply(layers.Flatten, x)


def transpose(x: Any, axes: tuple[int, ...]) -> Value:
    """All axes, the batch included, in another order."""
    return _apply(layers.Transpose, x, axes)


def relu(x: Any) -> Value:
    """max(x, 0)."""
    return _apply(layers.ReLU, x)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Value:
    """x where it is positive, else negative_slope x."""
    return _apply(layers.LeakyReLU, x, negative_slope=negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where it is positive, else alpha (e^x - 1)."""
    return _apply(layers.ELU, x, alpha=alpha)


def gelu(x: Any, approximate: str = "none") -> Value:
    """x Phi(x) with the normal distribution Phi."""
    return _apply(layers.GELU, x, approximate=approximate)


def silu(x: Any) -> Value:
    """x sigmoid(x)."""
    return _apply(layers.SiLU, x)


def softplus(x: Any) -> Value:
    """log(1 + e^x)."""
    return _apply(layers.Softplus, x)


def hardtanh(x: Any) -> Value:
    """x within [-1, 1], else the nearer bound."""
    return _apply(layers.Hardtanh, x)


def sigmoid(x: Any) -> Value:
    """1 / (1 + e^-x)."""
    return _apply(layers.Sigmoid, x)


def tanh(x: Any) -> Value:
    """The hyperbolic tangent."""
    return _apply(layers.Tanh, x)


def softmax(x: Any, axis: int = -1) -> Value:
    """Positive entries that sum to 1 along an axis."""
    return _apply(layers.Softmax, x, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Value:
    """The logarithm of softmax."""
    return _apply(layers.LogSoftmax, x, axis=axis)
