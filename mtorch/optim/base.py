"""What all optimizers share: how a gradient becomes a direction, then `module.step(lr)`."""

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import check_flag, check_number, shown
from mtorch.layer import Layer
from mtorch.optim.clip import clip
from mtorch.optim.state import State, of_this_format, read_state
from mtorch.parameter import Parameter

Rate = float | Callable[[int], float]


class Optimizer:
    """Adds `-lr * direction` to a module's parameters.

    The direction is made from the gradient g of each trainable parameter that has one:
        g := clip(g)                        clip_value entry by entry, then clip_norm over all parameters together
        g := -g                             where maximize=True
        g := g + weight_decay * value       L2
        d := rule(g)                        the subclass
        d := d + weight_decay * value       instead of L2, where the decay is decoupled
    Then `module.step(lr)` does value := value - lr * d.

    lr: a number >= 0, or a schedule: the k-th `step()` uses `lr(k - 1)`.
    weight_decay: one number, or numbers by dotted-name pattern, such as {"*": 0.01, "*.bias": 0}; the last pattern that
    matches decides, and a parameter that none matches has no decay.
    scale: factors on the rate by dotted-name pattern, such as {"0.*": 0.1}, in the same way.
    error_if_nonfinite: whether a gradient with NaN or infinity is a FloatingPointError that names its parameters and
    leaves everything as it is; on a GPU every step then waits for the device.
    last_norm: the norm over all gradients that the last step with `clip_norm` measured, before it clipped them.

    The learning rate never enters the state, which is keyed by dotted parameter name. A parameter without a gradient
    keeps its state and its own step count.

    **To write an optimizer**, name the arrays that it keeps for each parameter in `slots`; they begin as zeros. Then
    write the rule of the paper:

        class Lion(Optimizer):
            slots = ("exp_avg",)

            def rule(self, xp, g, state, t):
                d = xp.sign(0.9 * state.exp_avg + 0.1 * g)
                state.exp_avg = 0.99 * state.exp_avg + 0.01 * g
                return d
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter
    decoupled = False  # whether weight decay stays out of the rule
    has_rule = True  # False where the rule returns the gradient itself

    def __init__(
        self,
        module: Layer,
        lr: Rate,
        *,
        weight_decay: float | dict[str, float] = 0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: dict[str, float] | None = None,
        maximize: bool = False,
        error_if_nonfinite: bool = False,
        **unknown: Any,
    ):
        name = type(self).__name__
        if unknown:
            inits = [vars(cls).get("__init__") for cls in type(self).__mro__]
            known = {name: None for init in inits for name in getattr(init, "__kwdefaults__", None) or ()}
            raise TypeError(f"{name} has no option {', '.join(unknown)}: there are {', '.join(known)}")
        if not isinstance(module, Layer):
            raise TypeError(f"{name} expected a module or layer, got {shown(module)}")
        self.module, self.lr, self.steps = module, lr, 0
        self.smallest = max(float(numpy.nextafter(0, 1, dtype=module.dtype)), 5e-324)  # above 0 in that dtype
        self.rate  # noqa: B018  a bad rate is refused here already
        read = self.patterns if isinstance(weight_decay, dict) else self.number
        self.weight_decay: Any = read("weight_decay", weight_decay)
        self.clip_norm = None if clip_norm is None else self.number("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else self.number("clip_value", clip_value)
        self.scale = self.patterns("scale", {} if scale is None else scale)
        self.maximize = check_flag(name, "maximize", maximize)
        self.error_if_nonfinite = check_flag(name, "error_if_nonfinite", error_if_nonfinite)
        self._norm: Any = None
        self.state: dict[str, State] = {}

    def number(self, option: str, number: Any, below: float = math.inf, least: float = 0) -> float:
        """The option as a float; TypeError when it is not a number, ValueError outside [least, below)."""
        return check_number(type(self).__name__, option, number, least=least, below=below)

    def patterns(self, option: str, numbers: Any) -> dict[str, float]:
        """The option as numbers by dotted-name pattern; an error where one is none, or fits no parameter."""
        name = type(self).__name__
        if not isinstance(numbers, dict) or not all(isinstance(pattern, str) for pattern in numbers):
            wanted = 'name patterns with numbers such as {"0.*": 0.1}'
            raise TypeError(f"{name} expected {option} to be {wanted}, got {shown(numbers)}")
        for pattern in numbers:
            if not any(fnmatchcase(path, pattern) for path in self.named):
                wanted = f"{option} to name parameters, but none fits {pattern!r}: there are {', '.join(self.named)}"
                raise ValueError(f"{name} expected {wanted}")
        return {pattern: self.number(f"{option}[{pattern!r}]", number) for pattern, number in numbers.items()}

    @property
    def rate(self) -> float:
        """The learning rate of the coming step."""
        lr = self.lr
        if callable(lr):
            try:
                lr = lr(self.steps)
            except TypeError as error:
                wanted = "a number or a schedule, which takes the number of a step, as lr"
                raise TypeError(f"{type(self).__name__} expected {wanted}, got {shown(lr)}: {error}") from error
        return lr if lr.__class__ is float and 0 <= lr < math.inf else self.number("a learning rate lr", lr)

    def safe_eps(self, eps: float, weight: float = 1) -> float:
        """eps, or the largest gradient whose weighted square underflows: with eps = 0 a gradient of 0 gives 0 / 0."""
        return max(self.number("eps", eps), math.sqrt(self.smallest / weight))

    root_eps = property(lambda self: self.eps, doc="The old name of `eps`.")

    @property
    def named(self) -> dict[str, Parameter]:
        """The parameters that the module has now, by dotted name."""
        return self.module.parameters()

    @property
    def factors(self) -> dict[str, float]:
        """What `scale` multiplies the rate with, by the dotted name of each parameter that a pattern fits."""
        return self.matched(self.scale)

    def matched(self, patterns: dict[str, float]) -> dict[str, float]:
        """The number of each parameter that a pattern fits, by dotted name."""
        named = self.named if patterns else {}
        return {path: number for pattern, number in patterns.items() for path in named if fnmatchcase(path, pattern)}

    @property
    def last_norm(self) -> float | None:
        """The norm over all gradients that the last step with `clip_norm` measured; None before the first."""
        return None if self._norm is None else float(self._norm)

    # ------------------------------------------------------------------ the step

    def step(self) -> None:
        """Updates all parameters that have a gradient. An overflow gives inf or NaN."""
        rate = self.rate
        if self.rewrites():
            self._direct()
        self.module.step(rate)
        self.steps += 1

    def rewrites(self) -> bool:
        """False when the direction is the gradient itself."""
        clips = self.clip_value is not None or self.clip_norm is not None
        changes = self.has_rule or clips or self.maximize or self.weight_decay or self.scale
        return bool(changes or self.error_if_nonfinite)

    @numpy.errstate(over="ignore", invalid="ignore")  # an error here would leave half of the states renewed
    def _direct(self) -> None:
        """Sets the direction of each trainable parameter that has a gradient."""
        live = {path: p for path, p in self.named.items() if p.has_grad and p.trainable}
        factors, xp = self.factors, self.module.xp
        given = self.weight_decay
        decays = self.matched(given) if isinstance(given, dict) else dict.fromkeys(live, given)
        if self.error_if_nonfinite:
            self._refuse_nonfinite(xp, live)
        grads = [p.grad for p in live.values()]
        if self.clip_value is not None or self.clip_norm is not None:
            grads, self._norm = clip(xp, grads, self.clip_value, self.clip_norm)
        found = []
        for (path, p), g in zip(live.items(), grads, strict=True):
            g = -g if self.maximize else g
            decay = decays.get(path, 0)
            if decay and not self.decoupled:
                g = g + decay * p.value
            _, steps, state = self._state_of(path, p)
            d = self.rule(xp, g, state, steps + 1)
            if getattr(d, "shape", None) != p.value.shape:
                raise ValueError(f"{self!r}.rule must return a direction of shape {p.value.shape}, got {shown(d)}")
            if decay and self.decoupled:
                d = d + decay * p.value
            self.state[path] = State(p, steps + 1, state)
            found.append(factors[path] * d if path in factors else d)
        for p, d in zip(live.values(), found, strict=True):
            p.direction = d

    def _refuse_nonfinite(self, xp: ModuleType, live: dict[str, Parameter]) -> None:
        wrong = [path for path, p in live.items() if not xp.isfinite(p.grad).all()]
        if wrong:
            names = ", ".join(wrong)
            raise FloatingPointError(f"{self!r} expected finite gradients, got NaN or infinity in {names}")

    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        """The direction at a parameter's step t, counted from 1. It renews the arrays of `state` and only reads g."""
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def _state_of(self, path: str, parameter: Parameter) -> State:
        state = self.state.get(path)
        if state is None or state.parameter is not parameter:
            return State(parameter, 0, self.fresh(parameter))
        return state

    def fresh(self, parameter: Parameter) -> SimpleNamespace:
        """The arrays of a parameter before its first step."""
        zeros, value = self.module.xp.zeros, parameter.value
        return SimpleNamespace(**{slot: zeros(value.shape, value.dtype) for slot in self.slots})

    def zero_grad(self) -> None:
        """Discards the module's gradients."""
        self.module.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The step count, and by dotted name each parameter's own step count and host copies of its arrays."""
        found: dict[str, Any] = {"steps": self.steps}
        for path, parameter in self.named.items() if self.slots else ():
            _, steps, state = self._state_of(path, parameter)
            found[f"{path}.steps"] = steps
            for slot in self.slots if steps else ():
                found[f"{path}.{slot}"] = numpy.array(arrays.as_numpy(getattr(state, slot)))
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`; a ValueError lists all that does not fit, and then nothing is changed."""
        if not isinstance(state, Mapping):
            raise TypeError(f"{type(self).__name__} expected a state dict, got {shown(state)}")
        state = of_this_format(self, state)
        self.steps, self.state = read_state(self, state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr!r})"

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        """Options to construct the optimizer with; every shared test runs over them."""
        yield {"lr": 0.01}
