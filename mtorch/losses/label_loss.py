"""What losses on class labels share: the weights of the classes, the label to ignore, and what a mean divides by."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, quiet
from mtorch.checks import check_integer
from mtorch.deferred import defer_error
from mtorch.errors import ShapeMismatchError
from mtorch.losses.base import Loss, LossFunction
from mtorch.losses.labels import as_labels


class LabelLoss(LossFunction):
    """Base of the losses that compare a prediction (..., K) with labels, class axis last.

    weight: a weight for each class, (K,). A mean then divides by the sum of the weights of the labels.
    ignore_index: the label of items that count for nothing, neither in the sum nor in what a mean divides by.
    """

    class_axis = True

    def __init__(
        self,
        backward_func: Any = None,
        *,
        weight: Any = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ):
        super().__init__(backward_func, reduction=reduction)
        name = type(self).__name__
        if ignore_index is not None:
            ignore_index = check_integer(name, "ignore_index", ignore_index)
        if weight is not None:
            weight = arrays.host_array(weight, f"{name} weight").astype("float64")
            if weight.ndim != 1 or not weight.size or not all(0 <= w < math.inf for w in weight.tolist()):
                raise ValueError(f"{name} expected weight to be finite numbers >= 0 of shape (K,), got {weight}")
        self.weight, self.ignore_index = weight, ignore_index
        self._converted: dict[tuple[str, str, Any], Array] = {}

    @quiet
    def __call__(self, prediction: Array, target: Any) -> Loss:
        p = self.cast_prediction(prediction)
        xp: Any = arrays.array_module(p)
        target = self.cast_target(xp, p, target)
        count = self.count(xp, p, target) if self.reduction == "mean" else None
        return self.reduced(xp, *self.terms(xp, p, target), count, prediction)

    def cast_target(self, xp: ModuleType, prediction: Array, target: Any) -> Array:
        """Labels (...,), each in [0, K) or the ignored one."""
        return as_labels(self, xp, prediction, target, self.ignore_index)

    def weigh(self, xp: ModuleType, prediction: Array, labels: Array) -> tuple[Array, Array]:
        """(y, w): the labels, with 0 for the ignored ones; the weight of each, which is 0 for the ignored ones."""
        y = labels if self.ignore_index is None else xp.where(labels == self.ignore_index, 0, labels)
        w = self.class_weights(xp, prediction).take(y)
        return y, w if self.ignore_index is None else w * (labels != self.ignore_index)

    def count(self, xp: ModuleType, prediction: Array, target: Array) -> Any:
        """What a mean divides by: the sum of the weights."""
        if self.weight is None and self.ignore_index is None:
            return self.number(target.size, prediction)
        total = self.weigh(xp, prediction, target)[1].sum()
        if xp is numpy:
            return self.number(total, prediction)
        defer_error(self, f"{self!r} has nothing to average: no item counts", total == 0)
        return total

    def class_weights(self, xp: ModuleType, prediction: Array) -> Array:
        """The weights of the classes (K,) in the prediction's array module and dtype."""
        classes, dtype, device = prediction.shape[-1], prediction.dtype, arrays.device_of(prediction)
        if self.weight is None:
            return arrays.ones(xp, classes, dtype, device)
        if self.weight.shape != (classes,):
            raise ShapeMismatchError(self, f"expected a weight of shape ({classes},), got {self.weight.shape}")
        key = xp.__name__, dtype.str, device
        if key not in self._converted:
            self._converted[key] = xp.asarray(self.weight.astype(dtype))
        return self._converted[key]

    def details(self) -> Iterator[str]:
        if self.weight is not None:
            yield f"weight={self.weight.tolist() if self.weight.size <= 10 else '...'}"
        if self.ignore_index is not None:
            yield f"ignore_index={self.ignore_index}"
        yield from super().details()


def flat_index(xp: ModuleType, labels: Array, classes: int) -> Array:
    """(...,) -> (N,): where the entries of the labels lie in a C-ordered array (..., K) read as one vector."""
    return xp.arange(labels.size) * classes + labels.reshape(-1)
