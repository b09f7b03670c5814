"""What losses are as numbers: they add, and they are scaled by numbers."""

from collections.abc import Callable
from numbers import Real
from typing import Any, Self

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value, add_values, map_value
from mtorch.checks import check_number
from mtorch.deferred import LazyValue
from mtorch.errors import BackwardError
from mtorch.layer import Layer


class Sums:
    """The arithmetic of a `Loss`: a + b, a - b, -a, 0.5 * a, a / 2, sum([a, b]), float(a), f"{a:.3f}".

        scores, place = module(x)
        (cross_entropy(scores, labels) + 0.5 * square(place, where)).backward()

    The value of a sum is the sum of the values; on a GPU nothing waits for it. Losses of one prediction have one
    gradient, the sum. Where a net returns a tuple, the prediction of each loss is one of its arrays, found by identity;
    the gradient is then a tuple, and outputs without a loss get zeros.

    Losses of two nets do not add. Losses of two forwards, or of a part or a copy of an output, add up to a value, which
    a report may want, but `backward` of the sum is a ValueError.
    """

    __array_ufunc__ = None  # so that NumPy leaves `numpy.float64(0.5) * loss` to the loss

    _value: Any
    value: Any
    lazy_value: Any
    grad: Any
    _lazy: Any
    _prediction: Any  # a weak reference to the prediction, or the `Outputs` of a net
    _backward_func: Callable[[Any], Any] | None
    _name: str
    _weighted: Callable[[Any], Array]

    def __add__(self, other: Any) -> Self:
        if isinstance(other, Sums):
            return _sum(self, other)
        if not _is_number(other):
            return NotImplemented
        return self._with(self._number() + check_number(self._name, "term of a sum", other), self.grad)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        return self + -1 * other if isinstance(other, Sums) or _is_number(other) else NotImplemented

    def __rsub__(self, other: Any) -> Self:
        return -1 * self + other

    def __mul__(self, factor: Any) -> Self:
        if not _is_number(factor):
            return NotImplemented
        factor = check_number(self._name, "factor", factor)
        return self._with(factor * self._number(), map_value(lambda g: factor * g, self.grad))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Self:
        return self * (1 / divisor) if _is_number(divisor) else NotImplemented

    def __neg__(self) -> Self:
        return self * -1

    def __pos__(self) -> Self:
        return self

    def __float__(self) -> float:
        self._number()
        return float(self.value)

    def __format__(self, form: str) -> str:
        return format(float(self), form) if form else str(self)

    def weighted(self, weights: Any) -> Self:
        """The loss (weights * value).sum() of one with reduction="none"; the weights have the shape of its value."""
        grad = self._weighted(weights)
        first = grad[0] if grad.__class__ is tuple else grad
        xp: Any = arrays.array_module(first)
        value = (arrays.as_float(xp, first.dtype, weights, self._name) * self.lazy_value).sum()
        return self._with(float(value) if xp is numpy else value, grad)

    def _number(self) -> Any:
        """The value, not waited for; ValueError when there is one for each item."""
        if getattr(self._value, "shape", ()):
            fix = 'weigh them first, loss.weighted(weights), or take reduction="mean" or "sum"'
            raise ValueError(f"{self._name} has a value for each item, of shape {self._value.shape}: {fix}")
        return self.lazy_value

    def _with(self, value: Any, grad: Value, *others: Any, **more: Any) -> Self:
        """This loss with another value and gradient; reading it raises what is wrong with this one or the others."""
        twin: Any = object.__new__(type(self))
        vars(twin).update(vars(self), _value=value, _lazy=None, grad=grad, **more)
        if value.__class__ is not float:
            lazy = twin._lazy = LazyValue(value, None, self._backward_func)
            for each in (self, *others):
                lazy.include(each._lazy)
        return twin

    def _refusal(self) -> Exception:
        """Why there is no backward."""
        if self._backward_func is None:
            return BackwardError(f"{self._name} has no net to drive: make it as {self._name}(module) to call backward")
        return ValueError(_apart(self._name, _net_of(self)))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_prediction": None}


def placed(loss: Sums, grad: Value, net: Layer) -> Value:
    """The gradient of a loss in the structure of what a net returned that once returned a tuple."""
    outputs = _outputs_of(net)
    if outputs is None:
        return grad
    found = grad if loss._prediction is outputs else outputs.placed(loss._prediction, grad)
    if found is None and (grad.__class__ is tuple or net._returned.__class__ is list):
        raise ValueError(_apart(loss._name, net))
    return grad if found is None else found


def _sum(a: Any, b: Any) -> Any:
    value, name, net = a._number() + b._number(), f"{a._name} + {b._name}", _net_of(a)
    if net != _net_of(b):
        raise ValueError(f"{name} drive different nets: call backward of each, and add the numbers float(loss)")
    prediction, grad = a._prediction, None
    if a.grad is not None and b.grad is not None:
        if prediction is None or not _same(prediction, b._prediction):
            prediction = _outputs_of(net)
        if prediction is not None:
            grads = [
                x.grad if _same(x._prediction, prediction) else prediction.placed(x._prediction, x.grad) for x in (a, b)
            ]
            grad = None if any(g is None for g in grads) else add_values(*grads)
    return a._with(value, grad, b, _prediction=prediction, _name=name)


def _outputs_of(net: Any) -> Any:
    """The `Outputs` of a net whose last forward returned a tuple."""
    one_array = not isinstance(net, Layer) or net._returned.__class__ is tuple
    return None if one_array else net._outputs


def _net_of(loss: Any) -> Any:
    """The net that a loss drives, whose `Module` is the same; else the function that it calls."""
    net = getattr(loss._backward_func, "__self__", None)
    return net.core() if isinstance(net, Layer) else loss._backward_func


def _apart(name: str, net: Any) -> str:
    return (
        f"{name}: backward expected each prediction to be an array that the last forward of {net!r} returned, the "
        "array itself and not a part or a copy of it, and no forward between that one and backward"
    )


def _is_number(x: Any) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool)


def _same(a: Any, b: Any) -> bool:
    """Whether both stand for the same prediction, which may be a tuple of arrays."""
    if a.__class__ is tuple and b.__class__ is tuple:
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b
