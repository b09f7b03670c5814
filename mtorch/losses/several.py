"""What losses of several predictions share."""

from types import ModuleType
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.errors import ShapeMismatchError
from mtorch.losses.base import Loss, LossFunction


class SeveralLoss(LossFunction):
    """Base of losses whose prediction is a tuple of `parts` arrays (..., D), as a net with that many outputs returns
    it: `loss_func(module(x, y), target)`, or as in torch `loss_func(a, b, target)`.

    The gradient is a tuple too, which `loss.backward()` drives through the net. A subclass defines `terms`, which gets
    the tuple, and returns the loss of each item (...,) and, as new arrays, the tuple of its derivatives.
    """

    class_axis = True
    parts: int
    has_target = True

    def __call__(self, prediction: Any, target: Any = None, *more: Any) -> Loss:
        given = (*(prediction if isinstance(prediction, tuple) else (prediction,)), target, *more)
        given = given[:-1] if not self.has_target and given[-1] is None else given
        if len(given) != self.parts + self.has_target or any(part is None for part in given):
            wanted = f"{self.parts} arrays{' and a target' if self.has_target else ''}"
            raise TypeError(f"{self!r} expected {wanted}, got {sum(part is not None for part in given)} arguments")
        first = self.cast_prediction(given[0])
        xp: Any = arrays.array_module(first)
        predictions = [first]
        for part in given[1 : self.parts]:
            part = arrays.as_float(xp, first.dtype, self.cast_prediction(part), self)
            if part.shape != first.shape:
                raise ShapeMismatchError(self, f"expected predictions of one shape, got {first.shape} and {part.shape}")
            predictions.append(part)
        labels = self.cast_target(xp, first, given[-1]) if self.has_target else None
        terms, grads = self.terms(xp, tuple(predictions), labels)
        value = terms if self.reduction == "none" else terms.sum()
        if self.reduction == "mean":
            count = self.number(terms.size, first)
            value, grads = value / count, tuple(grad / count for grad in grads)
        return self.outcome(xp, value, grads, prediction=given[: self.parts])

    def terms(self, xp: ModuleType, prediction: Any, target: Any) -> tuple[Array, tuple[Array, ...]]:
        raise NotImplementedError(f"{type(self).__name__} does not define terms")
