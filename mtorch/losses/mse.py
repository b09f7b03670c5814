"""Mean squared error."""

from typing import Any

from mtorch.arrays import Array, array_module, as_array, constant
from mtorch.kernels.rows import sum_squares
from mtorch.losses.base import Loss, LossFunction


class MSELoss(LossFunction):
    """L = (p - t)^2, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: dL/dp = 2 (p - t).
    """

    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.cast_prediction(prediction)
        xp = array_module(prediction)
        d = as_array(xp, prediction - self.cast_target(xp, prediction, target))
        if self.reduction == "none":
            squares = as_array(xp, d * d)
            d *= 2
            return self.outcome(xp, squares, d)
        share = 1 / self.number(d.size, d) if self.reduction == "mean" else 1.0
        value = sum_squares(xp, d)
        d *= constant(xp, 2 * share, d.dtype)
        return self.outcome(xp, value, d, share)
