"""Negative log-likelihood."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.losses.label_loss import LabelLoss, flat_index


class NLLLoss(LabelLoss):
    """L = -w_y x_y: `LogSoftmax` followed by this loss is `CrossEntropyLoss`.

    Shapes: prediction (..., K), log-probabilities, class axis last; target: integer labels (...,) or (..., 1).
    A mean divides by the sum of the weights of the labels that are not ignored.

    Backward: of the classes only the label y is read, so dL/dx_j = -w_y [j = y]; the mean divides it, too.
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        y, w = self.weigh(xp, prediction, target)
        at = flat_index(xp, y, prediction.shape[-1])
        x_y = prediction.reshape(-1).take(at).reshape(y.shape)
        terms = -w * xp.where(w == 0, 0.0, x_y)  # an ignored item may be NaN
        grad = xp.zeros(prediction.shape, prediction.dtype)
        grad.reshape(-1)[at] = -w.reshape(-1)
        return terms, grad

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        def labels(shape):
            return lambda xp, rng: (xp.asarray(rng.standard_normal((*shape, 3))), xp.asarray(rng.integers(0, 3, shape)))

        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), labels((5,))
            yield cls(reduction=reduction, weight=[0.5, 1.0, 2.0], ignore_index=1), labels((2, 4))
