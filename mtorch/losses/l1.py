"""Mean absolute error."""

from types import ModuleType

from mtorch.arrays import Array
from mtorch.losses.base import LossFunction


class L1Loss(LossFunction):
    """L = |p - t|, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: L is p - t above the target and t - p below it, so dL/dp = sign(p - t), 0 where p = t; the mean divides it
    by the number of elements.
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        d = prediction - target
        return xp.abs(d), xp.sign(d)
