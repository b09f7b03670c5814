"""Mean squared error."""

from types import ModuleType

from mtorch.arrays import Array
from mtorch.losses.base import LossFunction


class MSELoss(LossFunction):
    """L = (p - t)^2, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: d/dp of (p - t)^2 is 2 (p - t); the mean divides it by the number of elements.
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        d = prediction - target
        return d * d, 2 * d
