"""Parameters, which training updates, and buffers, which belong to a layer and are not trained."""

from collections.abc import Callable
from math import inf
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, array_module, as_numeric, is_array, refuse_masked
from mtorch.checks import check_flag, check_rate, shown
from mtorch.errors import ShapeMismatchError
from mtorch.operators import Stored


class Parameter(Stored):
    """An array that training updates, and the gradient collected since the last step. The constructor copies `value`.

    `grad` has the shape and dtype of `value` and reads as zeros while `has_grad` is False. The first contribution after
    a step overwrites the array and later ones are added to it: it is never filled with zeros first. An optimizer sets
    `direction`, which the next step follows instead of the gradient. Layers that share a weight share its Parameter. In
    a formula it is an operand: `x @ w.T`.

    With `trainable = False` it is frozen: this drops its gradient, none is collected, and no step changes `value`.
    """

    __slots__ = ("value", "_trainable", "has_grad", "direction", "_grad")

    def __init__(self, value: Array, *, trainable: bool = True):
        if not (is_array(value, "Parameter") and value.dtype.kind == "f"):
            got = f"dtype {value.dtype}" if is_array(value) else shown(value)
            raise TypeError(f"Parameter expected an array of floats, got {got}")
        home: Any = array_module(value)
        self.value = as_numeric(home, value, "Parameter").copy()  # of no subclass such as numpy.matrix
        self._trainable, self.has_grad = check_flag("Parameter", "trainable", trainable), False
        self.direction: Array | None = None
        self._grad: Array | None = None

    @property
    def xp(self) -> Any:
        """The array module of the value."""
        return array_module(self.value)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        before, self._trainable = self._trainable, check_flag("Parameter", "trainable", trainable)
        if not (before and self._trainable):
            self.zero_grad()

    @property
    def grad(self) -> Array:
        if not self.has_grad:
            self._workspace()[...] = 0
        return self._grad

    def _workspace(self) -> Array:
        if (grad := self._grad) is None or grad.shape != self.value.shape or grad.dtype != self.value.dtype:
            self._grad = self.value.copy()  # an array like the value; what stands in it is overwritten
        return self._grad

    def collect_in(self, grad: Array) -> None:
        """Collects gradients, from zero, in that array; it has the shape and the dtype of the value."""
        self._grad, self.has_grad = grad, False

    def accumulate(self, contribution: Array | Callable[[], Array]) -> None:
        """grad += contribution: an array (it is read, not kept; nothing is broadcast), or a function that makes it.

        For a frozen parameter this and the two methods below do nothing, and compute nothing.
        """
        if not self._trainable:
            return
        if callable(contribution):
            contribution = contribution()
        if contribution.shape != self.value.shape:
            raise ShapeMismatchError(self, f"expected a gradient of its shape, got {contribution.shape}")
        if self.has_grad:
            self._grad += contribution
        else:
            self._workspace()[...] = contribution
            self.has_grad = True

    def accumulate_result(self, function: Callable[..., Any], *args: Any) -> None:
        """grad += function(*args), for a function with `out=`: the first contribution is computed in place."""
        if self.has_grad:
            self._grad += function(*args)
        elif self._trainable:
            function(*args, out=self._grad if self._grad is not None else self._workspace())
            self.has_grad = True

    def accumulate_product(self, a: Array, b: Array) -> None:
        """grad += a.dot(b), the first contribution computed in place."""
        if self.has_grad:
            self._grad += a.dot(b)
        elif self._trainable:
            a.dot(b, self._grad if self._grad is not None else self._workspace())
            self.has_grad = True

    @accelerated
    def step(self, lr: float) -> None:
        """value -= lr * (direction, or else grad); then the gradient counts as zero. ValueError for a bad rate.

        An overflow gives inf or NaN and raises nothing: an error would leave a network half updated.
        """
        if lr.__class__ is not float or not 0 <= lr < inf:
            check_rate(self, lr)
        if self.has_grad and self._trainable:
            direction: Any = self._grad if self.direction is None else self.direction
            with numpy.errstate(all="ignore"):
                self.value -= float(lr) * direction
        self.has_grad, self.direction = False, None

    def zero_grad(self) -> None:
        """Discards the gradient; the value stays as it is."""
        self.has_grad, self.direction = False, None

    def forget(self) -> None:
        """Drops the gradient and its array, when the value gets another dtype or device."""
        self.has_grad, self.direction, self._grad = False, None, None

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        state = {name: getattr(self, name) for name in self.__slots__}
        return None, state | ({} if self.has_grad else {"_grad": None})

    def __repr__(self) -> str:
        return f"Parameter({self.value.shape}, {self.value.dtype}{'' if self.trainable else ', trainable=False'})"


class Buffer(Stored):
    """An array that belongs to a layer's state but is not trained (running statistics, a fixed table).

    Forward replaces `value` and never writes into it, so that the old value can be restored when a pass fails.
    """

    __slots__ = ("value", "persistent")

    def __init__(self, value: Array, *, persistent: bool = True):
        refuse_masked(value, "Buffer")
        self.value = value
        self.persistent = persistent

    def __repr__(self) -> str:
        return f"Buffer({self.value.shape}, {self.value.dtype})"
