"""Mean absolute error."""

from types import ModuleType

from mtorch.arrays import Array
from mtorch.losses.base import LossFunction


class L1Loss(LossFunction):
    """L = |p - t|, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: dL/dp = sign(p - t), and 0 where p = t.
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        d = prediction - target
        return xp.abs(d), xp.sign(d)
