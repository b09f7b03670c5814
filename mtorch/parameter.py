"""Parameters, which training moves, and buffers, which layers keep and training does not."""

import math
from collections.abc import Callable
from typing import Any

from mtorch.arrays import (
    LINE,
    Array,
    Direction,
    array_module,
    descend,
    follow,
    is_array,
    on_cache_line,
    zeros_on_cache_line,
)
from mtorch.checks import check_flag
from mtorch.errors import ShapeMismatchError


class Parameter:
    """An array that training moves, and the gradient it has collected since the last step.

    `grad` has the shape and dtype of `value`; it reads as zeros when nothing was contributed. The first contribution
    after a step is written, later ones are added, so that accumulation costs no pass for zeroing. `direction` is what
    an optimizer wants followed instead of the gradient, for one step: an array or a `Direction`. With
    `trainable = False` the value stays. Layers that train one array together share the Parameter: its array may move.
    """

    __slots__ = ("value", "trainable", "has_grad", "direction", "_grad")

    def __init__(self, value: Array, *, trainable: bool = True):
        if not (is_array(value) and value.dtype.kind == "f"):
            got = f"dtype {value.dtype}" if is_array(value) else repr(value)
            raise TypeError(f"Parameter expected an array of floats, got {got}")
        self.value = on_cache_line(value)
        self.trainable = check_flag("Parameter", "trainable", trainable)
        self.has_grad = False
        self.direction: Array | Direction | None = None
        self._grad: Array | None = None

    @property
    def grad(self) -> Array:
        if not self.has_grad:
            self._workspace()[...] = 0
        return self._grad

    def _workspace(self) -> Array:
        value, grad = self.value, self._grad
        if grad is None or grad.shape != value.shape or grad.dtype != value.dtype:
            grad = self._grad = on_cache_line(value)
        return grad

    def collect_in(self, grad: Array) -> None:
        """Collects gradients in that array from now on; it has the shape and the dtype of the value."""
        if self.has_grad:
            grad[...] = self._grad
        self._grad = grad

    def accumulate(self, contribution: Array) -> None:
        """grad += contribution, for an array that already exists (it is read, not kept). Nothing is broadcast."""
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
        else:
            function(*args, out=self._grad if self._grad is not None else self._workspace())
            self.has_grad = True

    def accumulate_product(self, a: Array, b: Array) -> None:
        """grad += a.dot(b), the first contribution computed in place."""
        if self.has_grad:
            self._grad += a.dot(b)
        else:
            a.dot(b, self._grad if self._grad is not None else self._workspace())
            self.has_grad = True

    def step(self, lr: float) -> None:
        """value -= lr * (direction, or else grad); the gradient then counts as zero. ValueError for a bad rate."""
        check_rate(self, lr)
        if self.has_grad:
            if self.trainable:
                if self.direction is None:
                    descend(self.value, self._grad, lr)
                else:
                    follow(self.value, self.direction, lr)
            self.has_grad, self.direction = False, None

    def zero_grad(self) -> None:
        """Discards the gradient without moving."""
        self.has_grad = False
        self.direction = None

    def forget(self) -> None:
        """Drops the gradient and its memory, for a value that comes to another dtype or device."""
        self.zero_grad()
        self._grad = None

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        return None, {name: getattr(self, name) for name in self.__slots__ if self.has_grad or name != "_grad"}

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        self._grad = None
        for name, value in state[1].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"Parameter({self.value.shape}, {self.value.dtype}{frozen})"


def check_rate(who: object, lr: float) -> None:
    """TypeError for what is no number, ValueError for what is no learning rate."""
    try:
        fits = 0 <= lr < math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{who!r} expected a number as learning rate, got lr={lr!r}") from None
    if not fits:
        raise ValueError(f"{who!r} expected a finite learning rate >= 0, got lr={lr!r}")


class Strip:
    """A weight and its bias side by side in memory, values and gradients, so that one pass moves both."""

    __slots__ = ("value", "grad", "places")

    def __init__(self, weight: Parameter, bias: Parameter):
        xp, dtype = array_module(weight.value), weight.value.dtype
        start = -(-weight.value.nbytes // LINE) * LINE // dtype.itemsize
        self.value, self.grad = (zeros_on_cache_line(xp, start + bias.value.size, dtype) for _ in range(2))
        for parameter, first in ((weight, 0), (bias, start)):
            part, shape = slice(first, first + parameter.value.size), parameter.value.shape
            value = self.value[part].reshape(shape)
            value[...] = parameter.value
            parameter.value = value
            parameter.collect_in(self.grad[part].reshape(shape))
        self.places = weight.value, bias.value, weight._grad, bias._grad

    def step(self, weight: Parameter, bias: Parameter | None, lr: float) -> bool:
        """The step of both, together where both have nothing but gradients to follow. False, and no step, where it is
        not these two that lie here.
        """
        places = self.places
        if (
            bias is None or weight.value is not places[0] or bias.value is not places[1]
            or weight._grad is not places[2] or bias._grad is not places[3]
        ):  # fmt: skip
            return False
        if (
            weight.has_grad and bias.has_grad and weight.direction is bias.direction is None
            and weight.trainable and bias.trainable
        ):  # fmt: skip
            check_rate(weight, lr)
            descend(self.value, self.grad, lr)
            weight.has_grad = bias.has_grad = False
        else:
            weight.step(lr)
            bias.step(lr)
        return True

    def __reduce__(self):
        return type(None), ()  # what is copied lies where the copies lie


class Buffer:
    """An array that belongs to a layer's state but is not trained (running statistics, a fixed table).

    Forward replaces `value`, never writes into it, so that a pass that fails can put the old one back.
    """

    __slots__ = ("value", "persistent")

    def __init__(self, value: Array, *, persistent: bool = True):
        self.value = value
        self.persistent = persistent

    def __repr__(self) -> str:
        return f"Buffer({self.value.shape}, {self.value.dtype})"
