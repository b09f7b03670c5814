"""What losses on class labels share: how labels come in, which of them count, and for how much."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import check_integer
from mtorch.errors import ShapeMismatchError
from mtorch.losses.base import LossFunction
from mtorch.losses.one_hot import first_beyond


def class_axis(loss: LossFunction, prediction: Array) -> tuple[tuple[int, ...], int]:
    """The leading shape and the number of classes of a prediction (..., K)."""
    shape = prediction.shape
    if not shape or not shape[-1]:
        raise ShapeMismatchError(loss, f"expected a prediction of shape (..., K) with K >= 1, got {shape}")
    return shape[:-1], shape[-1]


def as_labels(
    loss: LossFunction, xp: ModuleType, target: Any, lead: tuple[int, ...], classes: int, ignored: int | None = None
) -> Array:
    """Integer labels of shape `lead` or `lead + (1,)` as ones of shape `lead` on the prediction's array module.

    Host labels are checked, then moved. Whether labels that are already on a device are in range is known there only:
    they come back within the range, and the next read on the host raises.
    """
    home = arrays.array_module(target)
    labels = arrays.host_array(target, loss) if home is None else target
    dtype = labels.dtype
    if dtype.kind not in "iu":
        raise TypeError(f"{loss!r} expected integer labels, got dtype {dtype}")
    if labels.shape != lead:
        if labels.shape != (*lead, 1):
            raise ShapeMismatchError(loss, f"expected labels of shape {lead} or {(*lead, 1)}, got {labels.shape}")
        labels = labels.reshape(lead)
    if home is numpy or home is None:
        if not dtype.isnative:
            labels = labels.astype(dtype.newbyteorder("="))
        wrong = first_beyond(labels, classes, ignored)
        if wrong is not None:
            raise ValueError(f"{loss!r} expected labels in [0, {classes}), got {wrong}")
        if dtype.char in "QL":  # unsigned 64 bits do not index
            labels = labels.astype("int64")
        return labels if xp is numpy else xp.asarray(labels.astype("int64"))
    labels = arrays.as_numeric(xp, labels, loss).astype("int64")
    inside = labels.clip(0, classes - 1)
    if ignored is not None:
        inside = xp.where(labels == ignored, labels, inside)
    arrays.defer_error(f"{loss!r} expected labels in [0, {classes}), got others", (inside != labels).any())
    return inside


class LabelLoss(LossFunction):
    """Base of the losses that compare a prediction (..., K) with labels, class axis last.

    weight: a weight for each class, (K,). A mean then divides by the sum of the weights of the labels.
    ignore_index: the label of items that count for nothing, neither in the sum nor in what a mean divides by.
    """

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
        self._moved: dict[tuple[str, str], Array] = {}

    def class_weights(self, xp: ModuleType, classes: int, dtype: numpy.dtype) -> Array:
        """The weights of the classes in the prediction's array module and dtype; ones where none were given."""
        if self.weight is None:
            return arrays.ones(xp, classes, dtype)
        if self.weight.shape != (classes,):
            raise ShapeMismatchError(self, f"expected a weight of shape ({classes},), got {self.weight.shape}")
        key = xp.__name__, dtype.str
        if key not in self._moved:
            self._moved[key] = xp.asarray(self.weight.astype(dtype))
        return self._moved[key]

    def counted(
        self, xp: ModuleType, labels: Array, classes: int, dtype: numpy.dtype
    ) -> tuple[Array, Array | None, Array | None, Any]:
        """labels within [0, K), the weight of each item, 1 or 0 for each item, what a mean divides by.

        The weights are None where each is 1, the ones and zeros where nothing is ignored.
        """
        kept = None
        if self.ignore_index is not None:
            kept = labels != self.ignore_index
            labels = labels * kept
            kept = kept.astype(dtype)
        if self.weight is not None:
            weights = self.class_weights(xp, classes, dtype).take(labels)
            weights = weights if kept is None else weights * kept
        elif kept is None:
            return labels, None, None, self.number(labels.size, labels) if self.reduction == "mean" else 1
        else:
            weights = kept
        count = 1
        if self.reduction == "mean":
            count = xp.add.reduce(weights)
            text = f"{self!r} has nothing to average: the labels' weights are all 0, or all labels are ignored"
            if xp is not numpy:
                arrays.defer_error(text, count == 0)
                count = xp.where(count == 0, 1.0, count)
            elif not count:
                raise ValueError(text)
        return labels, weights, kept, count

    def details(self) -> Iterator[str]:
        if self.weight is not None:
            yield f"weight={self.weight.tolist() if self.weight.size <= 10 else '...'}"
        if self.ignore_index is not None:
            yield f"ignore_index={self.ignore_index}"
        yield from super().details()
