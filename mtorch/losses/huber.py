"""Huber's loss."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_number
from mtorch.losses.base import LossFunction


class HuberLoss(LossFunction):
    """L = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), with d = p - t; averaged over all elements.

    Shapes: prediction and target of one shape, any.

    Backward: with c = clip(d, -delta, delta) both branches are L = c (d - c / 2), and dL/dp = c.

    Huber, "Robust Estimation of a Location Parameter", 1964.
    """

    def __init__(self, backward_func: Any = None, *, delta: float = 1, reduction: str = "mean"):
        super().__init__(backward_func, reduction=reduction)
        self.delta = check_number(type(self).__name__, "delta", delta, above=0)

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        d = prediction - target
        c = d.clip(-self.delta, self.delta)
        return c * (d - 0.5 * c), c

    def details(self) -> Iterator[str]:
        if self.delta != 1:
            yield f"delta={self.delta}"
        yield from super().details()

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        yield from super().examples(xp=xp, dtype=dtype, rng=rng)
        yield cls(delta=0.5), ((4, 3), (4, 3))
