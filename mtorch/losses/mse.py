"""Mean squared error."""

from types import ModuleType

from mtorch.arrays import Array
from mtorch.kernels.memory import empty_like
from mtorch.losses.base import LossFunction


class MSELoss(LossFunction):
    """L = (p - t)^2, averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: dL/dp = 2 (p - t).
    """

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        d = prediction - target
        terms = xp.multiply(d, d, out=empty_like(xp, d))
        d *= 2
        return terms, d
