"""Binary cross-entropy of logits."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, quiet
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.math.logistic import sigmoid


class BCEWithLogitsLoss(LossFunction):
    """L = -t log s(x) - (1 - t) log(1 - s(x)) with the logistic function s, averaged over all elements.

    Shapes: prediction, logits, and target of one shape, any.

    As log s(x) = -log(1 + exp(-x)) and log(1 - s(x)) = log s(x) - x, L = ([x > 0] - t) x + log(1 + exp(-|x|)), which
    no x overflows. An infinite x that agrees with its target has L = 0, one that does not has L = inf.

    Backward: dL/dx = s(x) - t.
    """

    @quiet
    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        x, t = prediction, target
        linear = xp.asarray(((x > 0) - t) * x)
        xp.copyto(linear, 0, where=linear != linear)  # 0 times infinity; the other term has the NaN of x
        return linear + xp.log1p(xp.exp(-xp.abs(x))), sigmoid(xp, x) - t

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.standard_normal((4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
