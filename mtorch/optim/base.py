"""What all optimizers share: a chain of rewrites from gradient to direction, then `module.step(lr)`."""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.layer import Layer, check_rate
from mtorch.parameter import Parameter


class Optimizer:
    """Moves a module's parameters by `-lr * direction`.

    The direction is made from the gradient g of each trainable parameter that has a contribution:
        g := clip(g)                        clip_norm over all parameters together, or clip_value entry by entry
        g := g + weight_decay * value       L2
        d := rule(g)                        the subclass
    and `module.step(lr)` moves the parameters. With no rewrite to do, that is all there is.

    lr: a number >= 0, or a schedule: the k-th `step()` uses `lr(k - 1)`.
    scale: factors on the rate by dotted-name pattern, such as {"0.*": 0.1}.

    State is keyed by dotted parameter name; the learning rate never enters it. A parameter without a contribution
    keeps its state and its own step count.
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter

    def __init__(
        self,
        module: Layer,
        lr: float | Callable[[int], float],
        *,
        weight_decay: float = 0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: dict[str, float] | None = None,
    ):
        name = type(self).__name__
        if not isinstance(module, Layer):
            raise TypeError(f"{name} expected a module or layer, got {module!r}")
        check_rate(lr(0) if callable(lr) else lr, self)
        for option, number in (("weight_decay", weight_decay), ("clip_norm", clip_norm), ("clip_value", clip_value)):
            self.check(number is None or 0 <= number < math.inf, option, "a finite number >= 0", number)
        self.module, self.lr, self.weight_decay = module, lr, weight_decay
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.scale = dict(scale or {})
        self.steps = 0
        self.state: dict[str, dict[str, Any]] = {}
        self.named = tuple(module.parameters().items())
        self.factors = {path: self._factor(path) for path, _ in self.named} if scale else {}

    def check(self, fits: bool, option: str, expected: str, got: Any) -> None:
        """ValueError that names class, option, expected and got."""
        if not fits:
            raise ValueError(f"{type(self).__name__} expected {option} to be {expected}, got {got!r}")

    def _factor(self, path: str) -> float:
        factor = 1.0
        for pattern, number in self.scale.items():
            if fnmatchcase(path, pattern):
                check_rate(number, self)
                factor = number
        return factor

    @property
    def rate(self) -> float:
        """The learning rate of the coming step."""
        return self.lr(self.steps) if callable(self.lr) else self.lr

    def step(self) -> None:
        """One move of all parameters that have a gradient."""
        rate = self.rate
        if self.rewrites():
            live = [(path, p) for path, p in self.named if p.contributed and p.trainable]
            self._clip(live)
            for path, parameter in live:
                self._direct(path, parameter)
        self.module.step(rate)
        self.steps += 1

    def rewrites(self) -> bool:
        """False when the direction is the gradient itself."""
        return True

    def rule(self, parameter: Parameter, grad: Array, state: dict[str, Any]) -> Array:
        """The direction; `grad` may be written into, the arrays of `state` are kept for the next step."""
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def _direct(self, path: str, parameter: Parameter) -> None:
        state = self.state.get(path)
        if state is None:
            state = self.state[path] = {"steps": 0} | {slot: parameter.value * 0 for slot in self.slots}
        state["steps"] += 1
        grad = parameter.grad
        if self.weight_decay:
            grad += self.weight_decay * parameter.value
        direction = self.rule(parameter, grad, state)
        factor = self.factors.get(path, 1.0)
        parameter.direction = direction if factor == 1.0 else direction * factor

    def _clip(self, live: list[tuple[str, Parameter]]) -> None:
        if self.clip_value is not None:
            for _, parameter in live:
                grad = parameter.grad
                grad.clip(-self.clip_value, self.clip_value, out=grad)
        if self.clip_norm is not None and live:
            xp = arrays.array_module(live[0][1].value)
            total = sum((p.grad * p.grad).sum() for _, p in live)
            factor = xp.minimum(1.0, self.clip_norm / (xp.sqrt(total) + 1e-6))
            for _, parameter in live:
                grad = parameter.grad
                grad *= factor.astype(grad.dtype)

    def zero_grad(self) -> None:
        """Discards the module's gradients."""
        self.module.zero_grad()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr!r})"
