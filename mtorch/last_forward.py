"""Attributes in which a layer leaves what its last forward computed, for those who look."""

import threading
from typing import Any
from weakref import WeakSet

from mtorch.guards import in_predict, passes


class _OfThread(threading.local):
    """What this thread ran last."""

    def __init__(self) -> None:
        self.predicted: WeakSet[Any] = WeakSet()  # the layers whose last pass in this thread was a predict


_of_thread = _OfThread()


class OfLastForward:
    """An attribute that forward assigns: `weights = OfLastForward()` in the class, `self.weights = p` in forward.

    fix: what to do instead of reading it after a predict.

    It is None at first. Within predict, which changes nothing, an assignment keeps nothing; read after that, in the
    same thread, the attribute is a RuntimeError, because what it holds is of another input.
    """

    def __init__(self, fix: str = "call the net itself (in eval mode: net.eval())"):
        self.fix = fix

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.slot = name, f"_{name}"

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        if layer in _of_thread.predicted:
            raise RuntimeError(
                f"the last pass of {layer!r} in this thread was a predict, which leaves {self.name} as it was: "
                f"{self.fix}, or read {self.name} before you predict"
            )
        return vars(layer).get(self.slot)

    def __set__(self, layer: Any, value: Any) -> None:
        if passes and in_predict():
            _of_thread.predicted.add(layer)
        else:
            _of_thread.predicted.discard(layer)
            vars(layer)[self.slot] = value
