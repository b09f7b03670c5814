"""Binary cross-entropy of probabilities."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.losses.base import REDUCTIONS, Loss, LossFunction

_LOWEST, _NARROWEST = -100.0, 1e-12


class BCELoss(LossFunction):
    """L = -t log p - (1 - t) log(1 - p), averaged over all elements; each logarithm is held above -100.

    Shapes: prediction, probabilities in [0, 1], and target in [0, 1] of one shape, any.

    Backward: dL/dp = -t / p + (1 - t) / (1 - p) = (p - t) / (p (1 - p)). As in torch the denominator is held above
    1e-12, so that the gradient is finite at p = 0 and p = 1 too.
    """

    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.cast_prediction(prediction)
        xp = arrays.array_module(prediction)
        target = self.cast_target(xp, prediction, target)
        self._check(xp, prediction, "predictions")
        self._check(xp, target, "targets")
        return self.reduced(xp, *self.terms(xp, prediction, target))

    def _check(self, xp: ModuleType, x: Array, what: str) -> None:
        outside = ~((x >= 0) & (x <= 1)).all()
        text = f"{self!r} expected {what} in [0, 1]"
        if not arrays.is_numpy(xp):
            arrays.defer_error(f"{text}, got others", outside)
        elif outside:
            raise ValueError(f"{text}, got {x[~((x >= 0) & (x <= 1))].reshape(-1)[0]}")

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        p = prediction.clip(0.0, 1.0)
        above, below = p > 0, p < 1
        log_p = xp.where(above, xp.log(xp.where(above, p, 1.0)), _LOWEST)
        log_q = xp.where(below, xp.log1p(xp.where(below, -p, 0.0)), _LOWEST)
        terms = (target - 1) * xp.maximum(log_q, _LOWEST) - target * xp.maximum(log_p, _LOWEST)
        return terms, (p - target) / xp.maximum((1 - p) * p, _NARROWEST)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.uniform(0.3, 0.7, (4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
