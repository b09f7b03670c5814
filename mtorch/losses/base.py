"""What all losses share: the call, the reduction, and the object that drives backward."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any
from weakref import ref

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import check_choice, shown
from mtorch.deferred import LazyValue
from mtorch.errors import ShapeMismatchError
from mtorch.keywords import Keywords
from mtorch.layer import Layer
from mtorch.losses.sums import Sums, placed
from mtorch.outputs import references

REDUCTIONS = ("mean", "sum", "none")


class Loss(Sums):
    """The outcome of one call of a loss function: `.value`, `.grad` and `.backward()`; `(a + 0.5 * b).backward()`.

    `grad` is the derivative of the value with respect to the prediction, with reduction="none" that of each item; it is
    a tuple where the prediction is one. Of the prediction it keeps a weak reference, by which it is found among the
    outputs of a net that returns a tuple.
    """

    def __init__(
        self, value: Any, grad: Array, backward_func: Any, name: str, source: Any = None, prediction: Any = None
    ):
        known = value.__class__ is numpy.float32 or value.__class__ is numpy.float64
        self._value: Any = float(value) if known else value
        self._lazy: Any = None if known else LazyValue(value, source, backward_func)
        self.grad, self._backward_func, self._name = grad, backward_func, name
        try:
            self._prediction: Any = ref(prediction)
        except TypeError:
            self._prediction = references(prediction)

    @property
    def value(self) -> float | numpy.ndarray:
        """The loss as a float (an array with reduction="none"). On a GPU the first read waits for the queue."""
        if self._lazy is not None:
            value = self._lazy.read()
            value = value if value.ndim else value.item() if value.dtype.itemsize <= 8 else value[()]
            self._value, self._lazy = value, None
        return self._value

    @property
    def lazy_value(self) -> Any:
        """The value without waiting for it: a float on the host, a 0-d array that is still being computed on a GPU."""
        return self._value if self._lazy is None else self._lazy.marked

    def backward(self, weights: Any = None) -> Any:
        """Drives the gradient back through the net.

        weights: with reduction="none", factors in the shape of `.value`: the gradient of (weights * value).sum().
        """
        if self._backward_func is None or self.grad is None:
            raise self._refusal()
        plain = weights is None and (self._value.__class__ is float or not self._value.shape)
        grad, net = self.grad if plain else self._weighted(weights), getattr(self._backward_func, "__self__", None)
        if isinstance(net, Layer) and net.core()._outputs is not None:
            grad = placed(self, grad, net.core())
        return self._backward_func(grad)

    def _weighted(self, weights: Any) -> Array:
        shape = getattr(self._value, "shape", ())
        if weights is None or not shape:
            wants = f"weights of the value's shape {shape}" if shape else "no weights: its value is a number"
            raise ValueError(f"{self._name}: backward expected {wants}")
        first = self.grad[0] if self.grad.__class__ is tuple else self.grad
        xp: Any = arrays.array_module(first)
        weights = arrays.as_float(xp, first.dtype, weights, self._name)
        if weights.shape != shape:
            raise ShapeMismatchError(self._name, f"expected weights of shape {shape}, got {weights.shape}")
        factors = weights.reshape(shape + (1,) * (first.ndim - weights.ndim))
        return arrays.map_value(lambda grad: grad * factors, self.grad)

    def __repr__(self) -> str:
        return f"Loss({self.value})"


class LossFunction(Keywords):
    """Base of all losses: `loss_func = SquareLoss(module)`, then `loss = loss_func(prediction, target)`.

    backward_func: a module, or the function that `loss.backward()` calls with the gradient.
    reduction: "mean", "sum" or "none".

    A subclass defines `terms(xp, prediction, target)`, which returns the loss of each item and, as a new array, the
    derivative of each with respect to the prediction. A loss computes in the prediction's array module and dtype, for
    float16 in float32.
    """

    reductions: tuple[str, ...] = REDUCTIONS
    class_axis = False  # whether the last axis of the prediction is that of the classes

    def __init__(self, backward_func: Any = None, *, reduction: str = "mean"):
        check_choice(type(self).__name__, "reduction", reduction, self.reductions)
        backward_func = getattr(backward_func, "backward", backward_func)
        if backward_func is not None and not callable(backward_func):
            wanted = "a module or a function first, and options by keyword"
            raise TypeError(f"{type(self).__name__} expected {wanted}, got {shown(backward_func)}")
        self.backward_func = backward_func
        self.reduction = reduction

    def __call__(self, prediction: Array, target: Any) -> Loss:
        p = self.cast_prediction(prediction)
        xp: Any = arrays.array_module(p)
        return self.reduced(xp, *self.terms(xp, p, self.cast_target(xp, p, target)), prediction=prediction)

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        raise NotImplementedError(f"{type(self).__name__} does not define terms")

    def cast_prediction(self, prediction: Any) -> Array:
        """The prediction as a real floating array. Lists and integers are cast to float32, and so is float16, in which
        a sum of ten thousand squares overflows; the net casts the gradient back.
        """
        native = prediction.__class__ is numpy.ndarray and prediction.dtype.isnative
        if not native or prediction.dtype.char not in "fdg":
            prediction = self._as_float(prediction)
        if self.class_axis and not (prediction.ndim and prediction.shape[-1]):
            raise ShapeMismatchError(self, f"expected a prediction (..., K) with K >= 1, got {prediction.shape}")
        return prediction

    def _as_float(self, prediction: Any) -> Array:
        if isinstance(prediction, tuple):
            raise TypeError(f"{self!r} expected one array as prediction, got a tuple of {len(prediction)}")
        x = arrays.as_numeric(arrays.array_module(prediction, self) or numpy, prediction, self)
        return x.astype(x.dtype.newbyteorder("=") if x.dtype.char in "fdg" else numpy.float32, copy=False)

    def cast_target(self, xp: ModuleType, prediction: Array, target: Any) -> Array:
        """The target in the prediction's module, dtype and shape; nothing broadcasts."""
        if target.__class__ is not prediction.__class__ or target.dtype is not prediction.dtype:
            if isinstance(target, tuple):
                raise TypeError(f"{self!r} expected one array as target, got a tuple of {len(target)}")
            if isinstance(target, numpy.ndarray) and target.dtype.kind in "iub":
                target = xp.asarray(target)
            target = arrays.as_float(xp, prediction.dtype, target, self)
        if target.shape != prediction.shape:
            raise ShapeMismatchError(self, f"expected a target of shape {prediction.shape}, got {target.shape}")
        return target

    def reduced(self, xp: ModuleType, terms: Array, grad: Array, count: Any = None, prediction: Any = None) -> Loss:
        """The Loss of these terms, whose derivative `grad` is rescaled in place. A mean divides by their number, or by
        `count`. prediction: the array that the loss function was called with.
        """
        grad = arrays.as_array(xp, grad)
        value = terms if self.reduction == "none" else xp.add.reduce(terms, None)
        if self.reduction == "mean":
            count = self.number(terms.size, grad) if count is None else count
            value = value / count
            grad /= count
        return self.outcome(xp, value, grad, prediction=prediction)

    def number(self, items: Any, prediction: Array) -> Any:
        """What a mean divides by; ValueError when it is 0."""
        if items == 0:
            raise ValueError(f"{self!r} has nothing to average: no item counts, of shape {prediction.shape}")
        return items

    def outcome(self, xp: ModuleType, value: Any, grad: Array, factor: float = 1.0, prediction: Any = None) -> Loss:
        """The Loss of this call, whose value is `factor * value`."""
        value = value if factor == 1 else factor * value
        return Loss(value, grad, self.backward_func, type(self).__name__, self, prediction)

    def details(self) -> Iterator[str]:
        """The text between the brackets of the repr."""
        if self.reduction != "mean":
            yield f"reduction={self.reduction!r}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.details())})"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple["LossFunction", Any]]:
        """(loss function, (prediction, target)) pairs that cover the options; every shared test runs over them."""
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), ((2, 3, 4), (2, 3, 4))
