"""Binary cross-entropy of probabilities."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.deferred import defer_error
from mtorch.losses.base import REDUCTIONS, LossFunction

LOWEST, NARROWEST = -100.0, 1e-12


class BCELoss(LossFunction):
    """L = -t log p - (1 - t) log(1 - p), averaged over all elements; each logarithm is at least -100.

    Shapes: prediction, probabilities in [0, 1], and target in [0, 1] of one shape, any.

    Backward: dL/dp = -t / p + (1 - t) / (1 - p) = (p - t) / (p (1 - p)). As in torch the denominator is at least
    1e-12, so that the gradient is finite at p = 0 and p = 1 too.
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        self._check(xp, prediction, "predictions")
        self._check(xp, target, "targets")
        p, t = prediction.clip(0.0, 1.0), target
        log_p = xp.where(p > 0, xp.log(xp.where(p > 0, p, 1.0)), LOWEST)
        log_q = xp.where(p < 1, xp.log1p(xp.where(p < 1, -p, 0.0)), LOWEST)
        terms = -t * xp.maximum(log_p, LOWEST) - (1 - t) * xp.maximum(log_q, LOWEST)
        grad = (p - t) / xp.maximum(p * (1 - p), NARROWEST)
        return terms, grad

    def _check(self, xp: ModuleType, x: Array, what: str) -> None:
        inside = (x >= 0) & (x <= 1)
        text = f"{self!r} expected {what} in [0, 1]"
        if not arrays.is_numpy(xp):
            defer_error(self, f"{text}, got others", ~inside.all())
        elif not inside.all():
            raise ValueError(f"{text}, got {x[~inside].reshape(-1)[0]}")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.uniform(0.3, 0.7, (4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
