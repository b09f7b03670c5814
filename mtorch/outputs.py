"""Which arrays a forward returned, so that a loss finds the output that its prediction is."""

from functools import reduce
from typing import Any
from weakref import ref

from mtorch.arrays import Array, Value, add_values


class Outputs:
    """Weak references to the arrays of the tuple that a call returned, in its structure. A copy of them is empty."""

    __slots__ = ("refs",)

    def __init__(self, y: tuple[Value, ...] = ()):
        self.refs = _refs(y)

    def placed(self, prediction: Any, grad: Array) -> Value:
        """The gradient at the place of the array that this reference is to, None at all others; of a tuple of
        references, each at its place.

        None when an array is not among them. One that stands there twice gets the gradient once.
        """
        if prediction.__class__ is not tuple:
            return _placed(self.refs, prediction, [grad])
        found = [_placed(self.refs, part, [g]) for part, g in zip(prediction, grad, strict=True)]
        return None if any(part is None for part in found) else reduce(add_values, found)

    def __reduce__(self) -> tuple:
        return Outputs, ()


def references(prediction: Any) -> Any:
    """Weak references to a tuple of arrays; None to what is the output of no net, such as a list or a number."""
    try:
        return _refs(prediction) if prediction.__class__ is tuple else None
    except TypeError:
        return None


def _refs(y: tuple[Value, ...]) -> tuple:
    return tuple([_refs(part) if part.__class__ is tuple else None if part is None else ref(part) for part in y])


def _placed(refs: Any, prediction: Any, grads: list[Array]) -> Value:
    """`grads` holds the gradient until it is placed. Python has one weak reference to an array, so `is` finds it."""
    if refs.__class__ is tuple:
        parts = tuple([_placed(part, prediction, grads) for part in refs])
        return parts if any(part is not None for part in parts) else None
    return grads.pop() if grads and prediction is not None and refs is prediction else None
