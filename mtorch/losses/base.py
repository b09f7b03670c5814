"""What all losses share: the call, the reduction, and the object that drives backward."""

from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.errors import BackwardError, ShapeMismatchError

REDUCTIONS = ("mean", "sum", "none")


class Loss:
    """The outcome of one call of a loss function: `.value`, `.grad` and `.backward()`."""

    def __init__(self, value: Array, grad: Array, backward_func: Callable[[Array], Any] | None, name: str):
        self._value, self._backward_func, self._name = value, backward_func, name
        self.grad = grad

    @cached_property
    def value(self) -> float | numpy.ndarray:
        """The loss as a float (an array with reduction="none"). On a GPU this read waits for the queue."""
        value = arrays.as_numpy(self._value)
        return value.item() if value.ndim == 0 and value.dtype.itemsize <= 8 else value[()]

    def backward(self, weights: Any = None) -> Any:
        """Drives the gradient back through the net.

        weights: with reduction="none", the cotangent of `.value`, of its shape.
        """
        if self._backward_func is None:
            raise BackwardError(f"{self._name} has no net to drive: make it as {self._name}(module), then call backward")
        return self._backward_func(self.grad if weights is None and self._value.ndim == 0 else self._weighted(weights))

    def _weighted(self, weights: Any) -> Array:
        shape = self._value.shape
        if weights is None or not shape:
            wants = f'weights of shape {shape} (reduction="none")' if shape else 'no weights (they need reduction="none")'
            raise ValueError(f"{self._name}.backward expected {wants}, got {'none' if weights is None else 'some'}")
        xp = arrays.array_module(self.grad)
        weights = arrays.admit_real(xp, self.grad.dtype, weights, self._name)
        if weights.shape != shape:
            raise ShapeMismatchError(self._name, f"expected weights of shape {shape}, got {weights.shape}")
        return self.grad * weights.reshape(shape + (1,) * (self.grad.ndim - weights.ndim))

    def __repr__(self) -> str:
        return f"Loss({self.value})"


class LossFunction:
    """Base of all losses: `loss_func = SquareLoss(module)`, then `loss = loss_func(prediction, target)`.

    backward_func: a module, or the function that `loss.backward()` calls with the gradient.
    reduction: "mean", "sum" or "none".

    A subclass defines `terms(xp, prediction, target)`, which returns the loss of each item and, as a new array, the
    derivative of each with respect to the prediction. A loss computes in the prediction's array module and dtype.
    """

    def __init__(self, backward_func: Any = None, *, reduction: str = "mean"):
        if reduction not in REDUCTIONS:
            raise ValueError(f"{type(self).__name__} expected reduction in {REDUCTIONS}, got {reduction!r}")
        backward_func = getattr(backward_func, "backward", backward_func)
        if backward_func is not None and not callable(backward_func):
            raise TypeError(f"{type(self).__name__} expected a module or a function, got {backward_func!r}")
        self.backward_func = backward_func
        self.reduction = reduction

    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.admit(prediction)
        xp = arrays.array_module(prediction)
        return self.reduced(*self.terms(xp, prediction, self.admit_target(xp, prediction, target)))

    def admit(self, prediction: Any) -> Array:
        """The prediction as a real floating array (lists and integers are cast to float32)."""
        if getattr(getattr(prediction, "dtype", None), "kind", "") == "f" and arrays.array_module(prediction):
            return prediction
        if arrays.array_module(prediction) not in (None, numpy):
            raise TypeError(f"{self!r} expected a floating prediction, got dtype {prediction.dtype}")
        host = arrays.host_array(prediction, self)
        return host if host.dtype.kind == "f" else host.astype(numpy.float32)

    def admit_target(self, xp: ModuleType, prediction: Array, target: Any) -> Array:
        """The target in the prediction's module, dtype and shape; nothing broadcasts."""
        if target.__class__ is not prediction.__class__ or target.dtype is not prediction.dtype:
            if xp is not numpy and isinstance(target, numpy.ndarray) and target.dtype.kind in "iu":
                target = xp.asarray(target)
            target = arrays.admit_real(xp, prediction.dtype, target, self)
        if target.shape != prediction.shape:
            raise ShapeMismatchError(self, f"expected a target of shape {prediction.shape}, got {target.shape}")
        return target

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        raise NotImplementedError(f"{type(self).__name__} does not define terms")

    def reduced(self, terms: Array, grad: Array, count: Any = None) -> Loss:
        """The Loss of these terms; `count` is what a mean divides by, when that is not their number."""
        if self.reduction == "none":
            return Loss(terms, grad, self.backward_func, type(self).__name__)
        value = terms.sum()
        if self.reduction == "mean":
            if count is None:
                count = terms.size
                if count == 0:
                    raise ValueError(f"{self!r} has nothing to average: the prediction has shape {grad.shape}")
            value = value / count
            grad /= count
        return Loss(value, grad, self.backward_func, type(self).__name__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.reduction == 'mean' else repr(self.reduction)})"


def admit_labels(xp: ModuleType, who: object, prediction: Array, labels: Any) -> Array:
    """Labels of shape (N...,) or (N..., 1) for a prediction (N..., K) as integers of shape (N...,), checked on the host."""
    labels = arrays.admit_ids(xp, labels, who, "integer labels")
    lead = prediction.shape[:-1]
    if labels.shape == lead + (1,):
        labels = labels.reshape(lead)
    if labels.shape != lead:
        raise ShapeMismatchError(who, f"expected labels of shape {lead}, got {labels.shape}")
    return labels


def check_range(who: object, labels: Array, classes: int, ignored: int | None = None) -> None:
    """ValueError when a label lies outside [0, classes) and is not the ignored one (host arrays only)."""
    if arrays.array_module(labels) is not numpy or labels.size == 0:
        return
    low, high = labels.min(), labels.max()
    if 0 <= low and high < classes:
        return
    wrong = labels[((labels < 0) | (labels >= classes)) & (True if ignored is None else labels != ignored)]
    if wrong.size:
        raise ValueError(f"{who!r} expected labels in [0, {classes}), got {wrong[0]}")
