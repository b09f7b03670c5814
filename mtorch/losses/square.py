"""Half the squared distance."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, array_module
from mtorch.losses.base import Loss, LossFunction, admit_labels, check_range


class SquareLoss(LossFunction):
    """L = 1/2 ||p - t||^2, summed over the last axis and averaged over all leading ones.

    Shapes: prediction (..., K), target (..., K); with `transform=True` integer labels (...,) or (..., 1), one-hot here.

    Backward: d/dp_k of 1/2 sum_j (p_j - t_j)^2 is p_k - t_k; the mean divides it by the number of rows.
    """

    def __call__(self, prediction: Array, target: Any, *, transform: bool = False) -> Loss:
        prediction = self.admit(prediction)
        if not transform:
            return super().__call__(prediction, target)
        xp = array_module(prediction)
        labels = admit_labels(xp, self, prediction, target)
        check_range(self, labels, prediction.shape[-1])
        target = (labels[..., None] == xp.arange(prediction.shape[-1])).astype(prediction.dtype)
        return self.reduced(*self.terms(xp, prediction, target))

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        difference = prediction - target
        return 0.5 * (difference * difference).sum(axis=-1), difference



    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in ("mean", "sum", "none"):
            yield cls(reduction=reduction), ((4, 3), (4, 3))
