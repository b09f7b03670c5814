"""Mean squared error."""

from typing import Any

from mtorch.arrays import Array, array_module
from mtorch.kernels.memory import empty_like
from mtorch.losses.base import Loss, LossFunction


class MSELoss(LossFunction):
    """L = (p - t)^2, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: dL/dp = 2 (p - t).
    """

    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.admit(prediction)
        xp = array_module(prediction)
        target = self.admit_target(xp, prediction, target)
        d = xp.subtract(prediction, target, out=empty_like(xp, prediction))
        if self.reduction == "none":
            return self.outcome(xp, d * d, 2 * d)
        share = 1 / self.number(d.size, d) if self.reduction == "mean" else 1.0
        value = xp.vdot(d, d)
        d *= 2 * share
        return self.outcome(xp, value, d, share)
