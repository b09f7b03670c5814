"""Cross-entropy on logits."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import check_number
from mtorch.losses.base import REDUCTIONS, LossFunction
from mtorch.losses.label_loss import LabelLoss, flat_index
from mtorch.losses.labels import one_hot


class CrossEntropyLoss(LabelLoss):
    """L = -sum_k q_k w_k log softmax(x)_k, class axis last.

    Shapes: prediction (..., K), logits; target: integer labels (...,) or (..., 1), or class probabilities (..., K) as
    floats, one-hot or soft.

    With labels q is one-hot; label smoothing s makes it (1 - s) q + s / K; w is `weight`, else 1. A mean divides by
    the sum of the weights of the labels that are not ignored; with class probabilities, by the number of items.

    Backward: with z = x - max(x) and S = sum_j exp(z_j), log softmax(x)_k = z_k - log S, whose derivative with respect
    to x_j is [j = k] - exp(z_j) / S. So dL/dx_j = (sum_k q_k w_k) exp(z_j) / S - q_j w_j.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015, arXiv:1512.00567 (smoothing).
    """

    def __init__(
        self,
        backward_func: Any = None,
        *,
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0,
        reduction: str = "mean",
    ):
        super().__init__(backward_func, weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = check_number(type(self).__name__, "label_smoothing", label_smoothing, least=0, most=1)

    def cast_target(self, xp: ModuleType, prediction: Array, target: Any) -> Array:
        target = target if arrays.is_array(target, self) else arrays.host_array(target, self)
        if target.dtype.kind != "f" or target.shape != prediction.shape:
            return super().cast_target(xp, prediction, target)
        if self.ignore_index is not None and self.ignore_index >= 0:
            raise ValueError(f"{self!r} cannot ignore a label when the target is class probabilities")
        return LossFunction.cast_target(self, xp, prediction, target)

    def count(self, xp: ModuleType, prediction: Array, target: Array) -> Any:
        if target.dtype.kind == "f":
            return self.number(target.size // target.shape[-1], prediction)
        return super().count(xp, prediction, target)

    def terms(self, xp: ModuleType, prediction: Array, target: Array) -> tuple[Array, Array]:
        x, K, s = xp.ascontiguousarray(prediction), prediction.shape[-1], self.label_smoothing
        on_labels, kept = target.dtype.kind != "f", 1
        if on_labels and self.ignore_index is not None:
            kept = (target != self.ignore_index)[..., None]
            x = xp.where(kept, x, 0.0)  # an ignored item may be NaN

        z = x - x.max(axis=-1, keepdims=True)  # the largest is 0, so that exp does not overflow
        e = xp.exp(z)
        S = e.sum(axis=-1, keepdims=True)

        if on_labels and not s:  # L = w_y (log S - z_y)
            y, w = self.weigh(xp, prediction, target)
            at = flat_index(xp, y, K)
            terms = w * (xp.log(S[..., 0]) - z.reshape(-1).take(at).reshape(y.shape))
            grad = w[..., None] / S * e
            grad.reshape(-1)[at] -= w.reshape(-1)
            return terms, grad

        q = one_hot(xp, self.weigh(xp, prediction, target)[0], K, x.dtype) if on_labels else target
        if s:
            q = (1 - s) * q + s / K
        qw = q * self.class_weights(xp, prediction) * kept
        share = qw.sum(axis=-1, keepdims=True)
        terms = (qw * xp.where(qw == 0, 0.0, xp.log(S) - z)).sum(axis=-1)  # 0 log 0 = 0
        grad = share / S * e - qw
        return terms, grad

    def details(self) -> Iterator[str]:
        yield from super().details()
        if self.label_smoothing:
            yield f"label_smoothing={self.label_smoothing}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[LossFunction, Any]]:
        def labels(shape):
            return lambda xp, rng: (xp.asarray(rng.standard_normal((*shape, 3))), xp.asarray(rng.integers(0, 3, shape)))

        def probabilities(xp, rng):
            q = rng.random((4, 3))
            return xp.asarray(rng.standard_normal((4, 3))), xp.asarray(q / q.sum(axis=1, keepdims=True))

        weight = [0.5, 1.0, 2.0]
        for reduction in REDUCTIONS:
            yield cls(reduction=reduction), labels((5,))
            yield cls(reduction=reduction, weight=weight, label_smoothing=0.1), probabilities
            yield cls(reduction=reduction, weight=weight, label_smoothing=0.1, ignore_index=1), labels((2, 4))
        yield cls(label_smoothing=0.2), labels((3, 1))
        yield cls(ignore_index=0), labels((6,))
