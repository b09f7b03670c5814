"""A loss on distances: what belongs together is to lie closer than what does not."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, quiet
from mtorch.checks import check_flag, check_number
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.losses.several import SeveralLoss


class TripletMarginLoss(SeveralLoss):
    """L = max(d(a, p) - d(a, n) + margin, 0) of an anchor a, a positive p and a negative n, averaged over all triplets.

    d(x, y) = (sum_i |v_i|^P)^(1/P) with v = x - y + eps is the distance in the P-norm, P = `p`. With swap=True
    min(d(a, n), d(p, n)) takes the place of d(a, n).

    Shapes: (a, p, n), each (..., D); there is no target. `reduction="none"` gives (...,).

    Backward: dd/dx_i = sign(v_i) (|v_i| / d)^(P-1), 0 where d = 0, and dd/dy = -dd/dx. Where L > 0, with D_xy for the
    first of them, dL/da = D_ap - D_an, dL/dp = -D_ap, dL/dn = D_an.

    Schroff, Kalenichenko & Philbin, "FaceNet", 2015, arXiv:1503.03832; Balntas, Riba, Ponsa & Mikolajczyk, "Learning
    Local Feature Descriptors with Triplets and Shallow Convolutional Neural Networks", 2016 (swap).
    """

    parts = 3
    has_target = False

    def __init__(
        self,
        backward_func: Any = None,
        *,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(backward_func, reduction=reduction)
        name = type(self).__name__
        self.margin = check_number(name, "margin", margin, above=0)
        self.p = check_number(name, "p", p, least=1)
        self.eps = check_number(name, "eps", eps, least=0)
        self.swap = check_flag(name, "swap", swap)

    @quiet
    def terms(self, xp: ModuleType, prediction: Any, target: Any) -> tuple[Array, tuple[Array, ...]]:
        a, p, n = prediction
        near, slope = self._distance(xp, a, p)
        far, slope_n = self._distance(xp, a, n)
        da, dp, dn = slope - slope_n, -slope, slope_n
        if self.swap:
            other, slope_pn = self._distance(xp, p, n)
            swapped = other < far
            far = xp.where(swapped, other, far)
            da, dp, dn = (
                xp.where(swapped, new, old)
                for new, old in ((slope, da), (-slope - slope_pn, dp), (slope_pn, dn))
            )  # fmt: skip
        terms = near - far + self.margin
        wrong = ~(terms < 0)  # NaN as well
        return xp.maximum(terms, 0)[..., 0], tuple(xp.where(wrong, grad, 0) for grad in (da, dp, dn))

    def _distance(self, xp: ModuleType, x: Array, y: Array) -> tuple[Array, Array]:
        """d(x, y) (..., 1) and its derivative with respect to x. Powers are those of entries divided by the largest."""
        v = x - y + self.eps
        size = xp.abs(v)
        largest = size.max(axis=-1, keepdims=True)
        size = size / xp.where(largest == 0, 1, largest)
        norm = (size**self.p).sum(axis=-1, keepdims=True) ** (1 / self.p)
        return largest * norm, xp.sign(v) * (size / xp.where(norm == 0, 1, norm)) ** (self.p - 1)

    def details(self) -> Iterator[str]:
        for name, usual in (("margin", 1), ("p", 2), ("eps", 1e-6), ("swap", False)):
            if getattr(self, name) != usual:
                yield f"{name}={getattr(self, name)}"
        yield from super().details()

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        def triplets(xp, rng):
            return tuple(xp.asarray(rng.standard_normal((4, 3))) for _ in range(3)), None

        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), triplets
            yield cls(p=3, margin=2, swap=True, reduction=reduction), triplets
        yield cls(p=1, eps=0.01, margin=0.5), triplets
        yield cls(), lambda xp, rng: (tuple(xp.asarray(rng.standard_normal((2, 2, 3))) for _ in range(3)), None)
