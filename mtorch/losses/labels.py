"""Class labels as losses take them: their shape, their range, and their one-hot rows. The class axis is the last."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, on_device
from mtorch.deferred import defer_error
from mtorch.errors import ShapeMismatchError

UNSIGNED = {n: numpy.dtype(f"u{n}") for n in (1, 2, 4, 8)}
FEW = 64  # classes up to which a table of one-hot rows is kept


def as_labels(loss: object, xp: ModuleType, prediction: Array, target: Any, ignored: int | None = None) -> Array:
    """Integer labels (...,) or (..., 1) for a prediction (..., K), as an array (...,) of `xp`.

    ValueError if a label is neither in [0, K) nor the ignored one. Labels that are on a device already come back
    within the range, and the next read on the host raises.
    """
    lead, classes = prediction.shape[:-1], prediction.shape[-1]
    labels, home = target, numpy if target.__class__ is numpy.ndarray else arrays.array_module(target, loss)
    if target.__class__ is not numpy.ndarray and home in (None, numpy):
        labels = arrays.host_array(target, loss)
    dtype = labels.dtype
    if dtype.kind not in "iu":
        raise TypeError(f"{loss!r} expected integer labels, got dtype {dtype}")
    if labels.shape != lead:
        if labels.shape != (*lead, 1):
            raise ShapeMismatchError(loss, f"expected labels of shape {lead} or {(*lead, 1)}, got {labels.shape}")
        labels = labels.reshape(lead)
    if home is not numpy and home is not None:
        return _within_range(loss, xp, labels, classes, ignored)
    if not dtype.isnative:
        labels = labels.astype(dtype.newbyteorder("="))
    unsigned = labels.view(UNSIGNED[dtype.itemsize])  # negative labels become huge
    if labels.size and unsigned.item(unsigned.argmax()) >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)]
        wrong = wrong if ignored is None else wrong[wrong != ignored]
        if wrong.size:
            raise ValueError(f"{loss!r} expected labels in [0, {classes}), got {wrong[0]}")
    return labels if xp is numpy and dtype.char not in "QL" else xp.asarray(labels.astype("int64"))


def _within_range(loss: object, xp: ModuleType, labels: Array, classes: int, ignored: int | None) -> Array:
    labels = arrays.as_numeric(xp, labels, loss).astype("int64")
    inside = labels.clip(0, classes - 1)
    if ignored is not None:
        inside = xp.where(labels == ignored, labels, inside)
    defer_error(loss, f"{loss!r} expected labels in [0, {classes}), got others", (inside != labels).any())
    return inside


def one_hot(xp: ModuleType, labels: Array, classes: int, dtype: Any) -> Array:
    """(...,) -> (..., K) with a 1 at each label."""
    if classes <= FEW:
        return _identity(xp, classes, dtype, getattr(labels.device, "id", "cpu")).take(labels, 0)
    return (labels[..., None] == xp.arange(classes)).astype(dtype)


@lru_cache(maxsize=16)
def _identity(xp: ModuleType, classes: int, dtype: Any, device: Any) -> Array:
    with on_device(xp, device):
        return xp.eye(classes, dtype=dtype)
