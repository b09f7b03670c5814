"""Class labels: are they in range, and their one-hot rows."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy

_UNSIGNED = {n: numpy.dtype(f"u{n}") for n in (1, 2, 4, 8)}
_SMALL = 64  # classes for which a table of one-hot rows is kept


def first_beyond(labels: numpy.ndarray, classes: int, ignored: int | None = None) -> Any:
    """The first host label that is neither in [0, classes) nor the ignored one; None when all are."""
    if labels.size == 0:
        return None
    unsigned = labels.view(_UNSIGNED[labels.itemsize])  # negative labels become huge
    if unsigned.item(unsigned.argmax()) < classes:
        return None
    wrong = labels[(labels < 0) | (labels >= classes)]
    wrong = wrong if ignored is None else wrong[wrong != ignored]
    return wrong[0] if wrong.size else None


def one_hot(xp: ModuleType, labels: Array, classes: int, dtype: numpy.dtype) -> Array:
    """(...,) -> (..., classes) with a 1 at each label."""
    if is_numpy(xp) and classes <= _SMALL:
        return _identity(classes, dtype).take(labels, 0)
    return (labels[..., None] == xp.arange(classes)).astype(dtype)


@lru_cache(maxsize=16)
def _identity(classes: int, dtype: numpy.dtype) -> numpy.ndarray:
    return numpy.eye(classes, dtype=dtype)
