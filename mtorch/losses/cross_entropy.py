"""Cross-entropy on logits."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array, array_module, flat_rows
from mtorch.checks import check_number
from mtorch.kernels.rows import max_along, quiet, sum_along
from mtorch.losses.base import REDUCTIONS, Loss, LossFunction
from mtorch.losses.labels import LabelLoss, as_labels, class_axis


class CrossEntropyLoss(LabelLoss):
    """L = -sum_k q_k w_k log softmax(x)_k, class axis last.

    Shapes: prediction (..., K), logits; target: integer labels (...,) or (..., 1), or class probabilities (..., K) as
    floats, one-hot or soft.

    With labels q is one-hot; label smoothing s makes it (1 - s) q + s / K; w is `weight`, else 1. A mean divides by the
    weights of the labels that are not ignored, with class probabilities by the number of items.

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
        check_number(type(self).__name__, "label_smoothing", label_smoothing, least=0, most=1)
        self.label_smoothing = label_smoothing

    @quiet
    def __call__(self, prediction: Array, target: Any) -> Loss:
        prediction = self.cast_prediction(prediction)
        xp, (lead, classes) = array_module(prediction), class_axis(self, prediction)
        x = prediction if prediction.ndim == 2 and prediction.flags.c_contiguous else \
            xp.ascontiguousarray(flat_rows(prediction))  # fmt: skip
        q = self._probabilities(xp, prediction, target)
        if q is None:
            labels = as_labels(self, xp, target, lead, classes, self.ignore_index)
            losses, grad = self._on_labels(xp, x, labels.reshape(-1))
        else:
            losses, grad = self._on_probabilities(xp, x, flat_rows(q))
        losses = losses.reshape(lead) if self.reduction == "none" else xp.add.reduce(losses)
        return self.outcome(xp, losses, grad if prediction.ndim == 2 else grad.reshape(prediction.shape))

    def _probabilities(self, xp: ModuleType, prediction: Array, target: Any) -> Array | None:
        """The target as class probabilities; None when it is meant as labels."""
        if not arrays.is_array(target):
            target = arrays.host_array(target, self)
        if target.dtype.kind != "f" or target.shape != prediction.shape:
            return None
        if self.ignore_index is not None and self.ignore_index >= 0:
            raise ValueError(f"{self!r} cannot ignore a label when the target is class probabilities")
        return self.cast_target(xp, prediction, target)

    def _on_labels(self, xp: ModuleType, x: Array, labels: Array) -> tuple[Array, Array]:
        """With a the weight of an item's own label and b what smoothing gives to each class:
        L = a (log S - z_own) + b sum_k w_k (log S - z_k).
        """
        (rows, classes), s = x.shape, self.label_smoothing
        labels, a, kept, count = self.counted(xp, labels, classes, x.dtype)
        a = arrays.constant(xp, (1 - s) / count, x.dtype) if a is None else a * ((1 - s) / count)
        own = xp.arange(0, rows * classes, classes)
        own += labels
        z, e, total = _exponentials(xp, x if kept is None else xp.where(kept[:, None] > 0, x, 0.0))
        logarithm = xp.log(total)
        losses = (logarithm - z.reshape(-1).take(own)) * a
        share = a
        if s:
            w = self.class_weights(xp, classes, x.dtype)
            b = (arrays.ones(xp, rows, x.dtype) if kept is None else kept) * (s / classes / count)
            losses += b * (w.sum() * logarithm - z.dot(w))
            share = a + b * w.sum()
        e *= (share / total)[:, None]
        if s:
            e -= b[:, None] * w
        e.reshape(-1)[own] -= a
        return losses, e

    def _on_probabilities(self, xp: ModuleType, x: Array, q: Array) -> tuple[Array, Array]:
        (rows, classes), s = x.shape, self.label_smoothing
        if s:
            q = q * (1 - s) + s / classes
        if self.weight is not None:
            q = q * self.class_weights(xp, classes, x.dtype)
        if self.reduction == "mean":
            q = q / self.number(rows, x)
        z, e, total = _exponentials(xp, x)
        share = q.sum(axis=1)
        losses = share * xp.log(total) - (q * xp.where(q == 0, 0.0, z)).sum(axis=1)  # 0 log 0 = 0
        e *= (share / total)[:, None]
        e -= q
        return losses, e

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


def _exponentials(xp: ModuleType, x: Array) -> tuple[Array, Array, Array]:
    """z, exp(z) and S of each row. The largest z is 0, so that nothing overflows."""
    z = x - max_along(xp, x, -1)
    e = xp.exp(z)
    return z, e, sum_along(xp, e, -1).reshape(-1)
