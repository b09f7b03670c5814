"""The Kullback-Leibler divergence."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, as_array, quiet
from mtorch.checks import check_flag
from mtorch.losses.base import REDUCTIONS, Loss, LossFunction


class KLDivLoss(LossFunction):
    """L = t (log t - x) of log-probabilities x and probabilities t, averaged over all elements; 0 where t = 0.

    Summed over the classes, L is the divergence of the distribution exp(x) from t; reduction="batchmean" is the sum
    divided by the size of the first axis, which is the mean divergence of a batch.

    log_target: whether the target is log t.

    Shapes: prediction, as `LogSoftmax` gives it, and target of one shape, any.

    Backward: only -t x depends on the prediction, so dL/dx = -t; the mean divides it by the number of elements.

    Kullback & Leibler, "On Information and Sufficiency", 1951.
    """

    reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, backward_func: Any = None, *, log_target: bool = False, reduction: str = "mean"):
        super().__init__(backward_func, reduction=reduction)
        self.log_target = check_flag("KLDivLoss", "log_target", log_target)

    @quiet
    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        t = xp.exp(target) if self.log_target else target
        there = t != 0
        log_t = target if self.log_target else xp.log(xp.where(there, t, 1))
        return xp.where(there, t * (log_t - prediction), 0), -t

    def reduced(self, xp: ModuleType, terms: Array, grad: Array, *more: Any, **options: Any) -> Loss:
        if self.reduction != "batchmean":
            return super().reduced(xp, terms, grad, *more, **options)
        rows = self.number(len(terms) if terms.ndim else 1, grad)
        return self.outcome(xp, terms.sum() / rows, as_array(xp, grad / rows), **options)

    def details(self) -> Iterator[str]:
        if self.log_target:
            yield "log_target=True"
        yield from super().details()

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in cls.reductions:
            yield cls(reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.standard_normal((4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
            yield cls(log_target=True, reduction=reduction), ((2, 3), (2, 3))
