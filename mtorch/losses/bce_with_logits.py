"""Binary cross-entropy of logits."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array, quiet
from mtorch.errors import ShapeMismatchError
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.math.logistic import sigmoid


class BCEWithLogitsLoss(LossFunction):
    """L = -w t log s(x) - (1 - t) log(1 - s(x)) with the logistic function s, averaged over all elements.

    pos_weight: w, the weight of the positive class: a number or an array that broadcasts to the prediction, such as one
        for each of the classes in the last axis; 1 without it.

    Shapes: prediction, logits, and target of one shape, any.

    As log s(x) = -log(1 + exp(-x)) and log(1 - s(x)) = log s(x) - x, L = ([x > 0] - t) x + log(1 + exp(-|x|)), which
    no x overflows; w adds (w - 1) t times -log s(x) = [x < 0] |x| + log(1 + exp(-|x|)). An infinite x that agrees with
    its target has L = 0, one that does not has L = inf.

    Backward: log s(x) has the derivative 1 - s(x) and log(1 - s(x)) has -s(x), so
        dL/dx = -w t (1 - s(x)) + (1 - t) s(x) = s(x) - t + (w - 1) t (s(x) - 1).
    """

    def __init__(self, backward_func: Any = None, *, pos_weight: Any = None, reduction: str = "mean"):
        super().__init__(backward_func, reduction=reduction)
        name = type(self).__name__
        if pos_weight is not None:
            pos_weight = arrays.host_array(pos_weight, f"{name} pos_weight").astype("float64")
            if not all(0 <= w < math.inf for w in pos_weight.reshape(-1).tolist()):
                raise ValueError(f"{name} expected pos_weight to be finite numbers >= 0, got {pos_weight}")
        self.pos_weight = pos_weight
        self._converted: dict[tuple[str, str, Any], Array] = {}

    @quiet
    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        x, t = prediction, target
        linear = xp.asarray(((x > 0) - t) * x)
        xp.copyto(linear, 0, where=linear != linear)  # 0 times infinity; the other term has the NaN of x
        terms = linear + xp.log1p(xp.exp(-xp.abs(x)))
        if self.pos_weight is None:
            return terms, sigmoid(xp, x) - t
        more = (self._weight(xp, x) - 1) * t
        far = xp.maximum(-x, 0) + xp.log1p(xp.exp(-xp.abs(x)))  # -log s(x), which may be infinite where t = 0
        terms = terms + xp.where(more == 0, 0, more * far)
        return terms, sigmoid(xp, x) - t - more * sigmoid(xp, -x)

    def _weight(self, xp: ModuleType, x: Array) -> Array:
        """pos_weight in the prediction's array module and dtype."""
        shape = self.pos_weight.shape
        fits = len(shape) <= x.ndim and all(n in (1, m) for n, m in zip(shape[::-1], x.shape[::-1], strict=False))
        if not fits:
            raise ShapeMismatchError(self, f"expected a pos_weight that broadcasts to {x.shape}, got {shape}")
        key = xp.__name__, x.dtype.str, arrays.device_of(x)
        if key not in self._converted:
            self._converted[key] = xp.asarray(self.pos_weight.astype(x.dtype))
        return self._converted[key]

    def details(self) -> Iterator[str]:
        if self.pos_weight is not None:
            yield f"pos_weight={self.pos_weight.tolist() if self.pos_weight.size <= 10 else '...'}"
        yield from super().details()

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.standard_normal((4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
            yield cls(pos_weight=[0.5, 3, 0], reduction=reduction), lambda xp, rng: (
                xp.asarray(rng.standard_normal((4, 3))), xp.asarray(rng.random((4, 3))),
            )  # fmt: skip
