"""A loss on angles: similar things are to point in one direction."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array, quiet
from mtorch.checks import check_number
from mtorch.deferred import defer_error
from mtorch.errors import ShapeMismatchError
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.losses.several import SeveralLoss

EPS = 1e-12  # torch's: added to both squared norms


class CosineEmbeddingLoss(SeveralLoss):
    """L = 1 - c for a similar pair (target 1), max(c - margin, 0) for another (target -1), averaged over all pairs.

    c is the cosine of the angle between x and y: with u = x / |x| and w = y / |y|, c = sum_i u_i w_i, where |x|^2 is
    the sum of squares + 1e-12.

    Shapes: (x, y), each (..., D), and target (...,) of 1 and -1. `reduction="none"` gives (...,).

    Backward: dc/dx = (w - c u) / |x| and dc/dy = (u - c w) / |y|; dL/dc is -1 for a similar pair, for another 1 where
    c >= margin and else 0.

    Errors: ValueError for a target that is neither 1 nor -1.
    """

    parts = 2

    def __init__(self, backward_func: Any = None, *, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(backward_func, reduction=reduction)
        self.margin = check_number(type(self).__name__, "margin", margin)

    def cast_target(self, xp: ModuleType, prediction: Array, target: Any) -> Array:
        if arrays.array_module(target, self) is not xp:
            target = xp.asarray(arrays.host_array(target, self))
        target = arrays.as_numeric(xp, target, self)
        if target.shape != prediction.shape[:-1]:
            raise ShapeMismatchError(self, f"expected a target of shape {prediction.shape[:-1]}, got {target.shape}")
        wrong = (target != 1) & (target != -1)
        if not arrays.is_numpy(xp):
            defer_error(self, f"{self!r} expected targets of 1 and -1, got others", wrong.any())
        elif wrong.any():
            raise ValueError(f"{self!r} expected targets of 1 and -1, got {target[wrong].reshape(-1)[0]}")
        return target

    @quiet
    def terms(self, xp: ModuleType, prediction: Any, target: Any) -> tuple[Array, tuple[Array, ...]]:
        (u, x_norm), (w, y_norm) = (self._direction(xp, each) for each in prediction)
        c = (u * w).sum(axis=-1, keepdims=True)
        similar = target[..., None] > 0
        terms = xp.where(similar, 1 - c, xp.maximum(c - self.margin, 0))
        slope = xp.where(similar, -1, c >= self.margin).astype(c.dtype)
        return terms[..., 0], (slope * (w - c * u) / x_norm, slope * (u - c * w) / y_norm)

    def _direction(self, xp: ModuleType, x: Array) -> tuple[Array, Array]:
        """x / |x| and |x|, computed of x divided by its largest entry, so that no square overflows."""
        scale = xp.maximum(xp.abs(x).max(axis=-1, keepdims=True), 1)
        small = x / scale
        norm = scale * xp.sqrt((small * small).sum(axis=-1, keepdims=True) + EPS / scale / scale)
        return x / norm, norm

    def details(self) -> Iterator[str]:
        if self.margin:
            yield f"margin={self.margin}"
        yield from super().details()

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        def pairs(*shape):
            return lambda xp, rng: (
                tuple(xp.asarray(rng.standard_normal(shape)) for _ in range(2)),
                xp.asarray(rng.choice([-1, 1], shape[:-1])),
            )

        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), pairs(6, 3)
            yield cls(margin=0.25, reduction=reduction), pairs(2, 3, 4)
