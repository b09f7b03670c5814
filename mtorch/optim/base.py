"""What all optimizers share: a chain of rewrites from gradient to direction, then `module.step(lr)`."""

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Direction
from mtorch.kernels import update
from mtorch.layer import Layer
from mtorch.parameter import Parameter

Rate = float | Callable[[int], float]


class State:
    """What an optimizer keeps for one parameter: how many directions it has made of it, and the arrays of the rule."""

    __slots__ = ("steps", "arrays")

    def __init__(self, steps: int, arrays: tuple[Array, ...]):
        self.steps, self.arrays = steps, arrays


class Optimizer:
    """Moves a module's parameters by `-lr * direction`.

    The direction is made from the gradient g of each trainable parameter that has a contribution:
        g := clip(g)                        clip_value entry by entry, then clip_norm over all parameters together
        g := g + weight_decay * value       L2
        d := rule(g)                        the subclass
        d := d + weight_decay * value       instead of L2, where the decay is decoupled
    and `module.step(lr)` moves the parameters. With no rewrite to do, that is all there is.

    lr: a number >= 0, or a schedule: the k-th `step()` uses `lr(k - 1)`.
    scale: factors on the rate by dotted-name pattern, such as {"0.*": 0.1}; the last pattern that fits counts.

    The learning rate never enters the state, which is keyed by dotted parameter name. A parameter without a
    contribution keeps its state and its own step count.
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter
    decoupled = False  # whether weight decay stays out of the rule

    def __init__(
        self,
        module: Layer,
        lr: Rate,
        *,
        weight_decay: float = 0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: dict[str, float] | None = None,
        **unknown: Any,
    ):
        if unknown:
            inits = [vars(cls).get("__init__") for cls in type(self).__mro__]
            known = {name: None for init in inits for name in getattr(init, "__kwdefaults__", None) or ()}
            text = f"{type(self).__name__} has no option {', '.join(unknown)}"
            raise TypeError(f"{text}: there are {', '.join(known)}")
        if not isinstance(module, Layer):
            raise TypeError(f"{type(self).__name__} expected a module or layer, got {module!r}")
        self.module, self.lr, self.steps = module, lr, 0
        self.smallest = max(float(numpy.nextafter(0, 1, dtype=module.dtype)), 5e-324)  # number above 0 in that dtype
        self.rate  # noqa: B018  a bad rate is refused here already
        self.weight_decay = self.number("weight_decay", weight_decay)
        self.clip_norm = None if clip_norm is None else self.number("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else self.number("clip_value", clip_value)
        self.named, self._listed = module.parameters(), Layer.rebuilt
        if not isinstance(scale, dict | None) or not all(isinstance(pattern, str) for pattern in scale or ()):
            wanted = 'name patterns with factors such as {"0.*": 0.1}'
            raise TypeError(f"{type(self).__name__} expected scale to be {wanted}, got {scale!r}")
        self.scale = dict(scale or {})
        self.factors = self._factors()
        self.state: dict[str, State] = {}

    # ------------------------------------------------------------------ options

    def number(self, option: str, number: Any, below: float = math.inf, least: float = 0) -> float:
        """The option as a float; TypeError when it is no number, ValueError outside [least, below)."""
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{type(self).__name__} expected a number as {option}, got {number!r}")
        if not least <= number < below:
            bounds = f"in [{least}, {below})" if below < math.inf else f"finite and >= {least}"
            raise ValueError(f"{type(self).__name__} expected {option} {bounds}, got {number!r}")
        return float(number)

    @property
    def root_eps(self) -> float:
        """eps, held above the gradients whose squares vanish: with 0 in its place a gradient of 0 would give 0 / 0."""
        return max(self.eps, math.sqrt(self.smallest))

    def _factors(self) -> dict[str, float]:
        factors = {}
        for pattern, number in self.scale.items():
            factor = self.number(f"scale[{pattern!r}]", number)
            found = [path for path in self.named if fnmatchcase(path, pattern)]
            if not found:
                raise ValueError(
                    f"{type(self).__name__} expected scale to name parameters, but none fits {pattern!r}: "
                    f"there are {', '.join(self.named)}"
                )
            factors.update(dict.fromkeys(found, factor))
        return factors

    @property
    def rate(self) -> float:
        """The learning rate of the coming step."""
        lr = self.lr
        if lr.__class__ is float and 0 <= lr < math.inf:
            return lr
        if callable(lr):
            try:
                lr = lr(self.steps)
            except TypeError as error:
                wanted = "a number or a schedule, which takes the number of a step, as lr"
                raise TypeError(f"{type(self).__name__} expected {wanted}, got {lr!r}: {error}") from error
        return self.number("a learning rate lr", lr)

    # ------------------------------------------------------------------ the step

    def step(self) -> None:
        """One move of all parameters that have a gradient. Where a number is too large, the result is inf or NaN."""
        rate = self.rate
        if self._listed != Layer.rebuilt:
            self._list_again()
        if self.rewrites():
            self._step_by_rule(rate)
        else:
            self.module.step(rate)
        self.steps += 1

    @numpy.errstate(over="ignore", invalid="ignore")  # an error here would leave half of the parameters moved
    def _step_by_rule(self, rate: float) -> None:
        live = [(path, p) for path, p in self.named.items() if p.has_grad and p.trainable]
        self._direct(live, self._shrinkage([p.grad for _, p in live]))
        self.module.step(rate)

    def _list_again(self) -> None:
        """Goes on with the parameters that the module has now; what was kept for others is dropped."""
        named, before = self.module.parameters(), self.named
        self.state = {path: state for path, state in self.state.items() if named.get(path) is before[path]}
        self.named, self._listed = named, Layer.rebuilt
        self.factors = self._factors()

    def rewrites(self) -> bool:
        """False when the direction is the gradient itself."""
        return True

    def rule(self, steps: int) -> tuple[Any, ...]:
        """For the parameter's step of that number, counted from 1: the kernel (see `kernels/update.py`), the factor
        that its direction lacks, and its constants.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def _shrinkage(self, grads: list[Array]) -> Any:
        """What clipping by norm multiplies all gradients with."""
        if self.clip_norm is None or not grads:
            return 1.0
        xp, bound = self.module.xp, self.clip_value
        grads = grads if bound is None else [update.clipped(xp, g, bound) for g in grads]
        return update.shrinkage(xp, grads, self.clip_norm)

    def _direct(self, live: list[tuple[str, Parameter]], shrinkage: Any) -> None:
        """Gives each parameter its direction; parameters that differ in their arrays only share the function."""
        moves: dict[Any, Callable[..., Array]] = {}
        for path, parameter in live:
            state = self._state_of(path)
            state.steps += 1
            key = state.steps, self.factors.get(path, 1.0), parameter.value.dtype
            if key not in moves:
                moves[key] = self._move(*key, shrinkage)
            parameter.direction = Direction(moves[key], (parameter.grad, *state.arrays))

    def _move(self, steps: int, factor: float, dtype: numpy.dtype, shrinkage: Any) -> Callable[..., Array]:
        """The chain of rewrites as `follow` wants it: it writes into neither gradient nor value."""
        xp, bound, decay = self.module.xp, self.clip_value, self.weight_decay
        kernel, rule_factor, *constants = self.rule(steps)
        constants = [arrays.constant(xp, c, dtype) for c in constants]
        coupled, decoupled = decay and not self.decoupled, decay and self.decoupled
        shrinks = shrinkage.__class__ is not float or shrinkage != 1.0
        if shrinks:
            shrinkage = xp.asarray(shrinkage, dtype=dtype)

        def move(out: Array, lr: float, value: Array, g: Array, *slots: Array) -> Array:
            if bound is not None:
                g = update.clipped(xp, g, bound)
            if shrinks:
                g = g * shrinkage
            if coupled:
                g = value * decay + g
            kernel(xp, out, arrays.constant(xp, lr * factor * rule_factor, dtype), g, *slots, *constants)
            if decoupled:
                out += value * (lr * factor * decay)
            return out

        return move

    def _state_of(self, path: str) -> State:
        state = self.state.get(path)
        if state is None:
            state = self.state[path] = State(0, self.fresh(self.named[path]))
        return state

    def fresh(self, parameter: Parameter) -> tuple[Array, ...]:
        """The arrays of a parameter that was never moved."""
        return tuple(self.module.xp.zeros(parameter.value.shape, parameter.value.dtype) for _ in self.slots)

    def zero_grad(self) -> None:
        """Discards the module's gradients."""
        self.module.zero_grad()

    # ------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """The step count, and by dotted name each parameter's own step count and host copies of its arrays."""
        self._list_again()
        found: dict[str, Any] = {"steps": self.steps}
        for path in self.named if self.slots else ():
            state = self.state.get(path)
            found[f"{path}.steps"] = state.steps if state else 0
            for slot, array in zip(self.slots, state.arrays if state else (), strict=False):
                found[f"{path}.{slot}"] = numpy.array(arrays.as_numpy(array))
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`; a ValueError lists all that does not fit, and then nothing is changed."""
        if not isinstance(state, Mapping):
            raise TypeError(f"{type(self).__name__} expected a state dict, got {state!r}")
        self._list_again()
        left, missing, wrong = dict(state), [], []

        def take(name: str) -> Any:
            missing.extend(() if name in left else [name])
            return left.pop(name, None)

        def count(name: str) -> int:
            number = take(name)
            number = number.item() if getattr(number, "ndim", None) == 0 else number
            if number is not None and (not isinstance(number, Integral) or isinstance(number, bool) or number < 0):
                wrong.append(f"{name} is {number!r}, expected a count")
                number = None
            return int(number or 0)

        steps, loaded = count("steps"), {}
        for path, parameter in self.named.items() if self.slots else ():
            taken = count(f"{path}.steps")
            found = []
            for name in [f"{path}.{slot}" for slot in self.slots] if taken else ():
                array = take(name)
                if array is not None:
                    array = arrays.host_array(array, name)
                    if array.shape != parameter.value.shape:
                        wrong.append(f"{name} has shape {array.shape}, expected {parameter.value.shape}")
                    found.append(numpy.array(array, parameter.value.dtype, order="C"))
            if taken:
                loaded[path] = taken, found
        if missing or left or wrong:
            parts = (("missing", missing), ("unexpected", [str(name) for name in left]), ("wrong", wrong))
            text = "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names)
            raise ValueError(f"{type(self).__name__} cannot load this state: {text}")
        asarray = self.module.xp.asarray
        self.state = {path: State(taken, tuple(map(asarray, found))) for path, (taken, found) in loaded.items()}
        self.steps = steps

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr!r})"
