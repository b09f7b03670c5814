"""Negative log-likelihood."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, array_module
from mtorch.kernels.rows import quiet
from mtorch.losses.base import REDUCTIONS, Loss, LossFunction
from mtorch.losses.labels import LabelLoss, as_labels, class_axis


class NLLLoss(LabelLoss):
    """L = -w_y x_y: what `LogSoftmax` followed by this loss gives is `CrossEntropyLoss`.

    Shapes: prediction (..., K), log-probabilities, class axis last; target: integer labels (...,) or (..., 1).
    A mean divides by the weights of the labels that are not ignored.

    Backward: dL/dx_j = -w_y [j = y].
    """

    @quiet
    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.cast_prediction(prediction)
        xp, (lead, classes) = array_module(prediction), class_axis(self, prediction)
        labels = as_labels(self, xp, target, lead, classes, self.ignore_index)
        labels, weights, kept, count = self.counted(xp, labels.reshape(-1), classes, prediction.dtype)
        a = 1 / count if weights is None else weights / count
        own = xp.arange(0, prediction.size, classes)
        own += labels
        found = prediction.reshape(-1).take(own)
        losses = (found if kept is None else xp.where(kept > 0, found, 0.0)) * -a
        grad = xp.zeros(prediction.shape, dtype=prediction.dtype)
        grad.reshape(-1)[own] = -a
        value = losses.reshape(lead) if self.reduction == "none" else xp.add.reduce(losses)
        return self.outcome(xp, value, grad)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        def labels(shape):
            return lambda xp, rng: (xp.asarray(rng.standard_normal((*shape, 3))), xp.asarray(rng.integers(0, 3, shape)))

        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), labels((5,))
            yield cls(reduction=reduction, weight=[0.5, 1.0, 2.0], ignore_index=1), labels((2, 4))
