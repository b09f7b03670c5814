"""Numbers that are not finite: found before they reach a parameter, and traced to the first layer that made one."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy

from mtorch import accelerate, arrays
from mtorch.arrays import Value, leaves
from mtorch.layer import Layer
from mtorch.parallel import DataParallel
from mtorch.parameter import Parameter

VERBS = ("forward", "backward", "backward_parameters")


class NonFiniteError(FloatingPointError):
    """A loss, an output or a gradient is NaN or infinite, or the norm of all gradients is too large.

    what: which number, and in which step.  layer: the dotted name of the first layer that made one, "" where none did.
    """

    def __init__(self, what: str, cause: str = "", layer: str = ""):
        super().__init__(f"{what}: {cause}" if cause else what)
        self.what, self.cause, self.layer = what, cause, layer


def finite(x: Value) -> bool:
    """Whether every float in it is finite."""

    def is_finite(a: Any) -> bool:
        xp: Any = arrays.array_module(a)
        return a.dtype.kind != "f" or bool(xp.isfinite(a).all())

    return all(map(is_finite, leaves(x)))


def gradient_norm(parameters: list[Parameter]) -> float:
    """The norm over the gradients of NumPy parameters; not finite if one of their entries is not."""
    total = 0.0
    for parameter in parameters:
        if parameter.has_grad:
            g = parameter.grad
            total += float(numpy.vdot(g, g))
    if total < math.inf and total > 1e-30:
        return math.sqrt(total)
    squares = (numpy.square(p.grad, dtype="float64").sum() for p in parameters if p.has_grad)
    return math.sqrt(sum(map(float, squares)))  # of larger and smaller numbers than the dtype has squares of


def first_nonfinite(module: Layer, run: Callable[[], Any]) -> tuple[str, str]:
    """(dotted name, sentence) of the first layer that made a number that is not finite while `run()` was running.

    run: one forward, loss and backward of the module, from the same state as the one that went wrong.
    """
    found: list[tuple[str, str]] = []
    with accelerate.disabled(), numpy.errstate(all="ignore"), _watched(module, found):
        run()
    return found[0] if found else ("", "")


@contextmanager
def _watched(module: Layer, found: list[tuple[str, str]]) -> Iterator[None]:
    """Within it every layer looks at what its verbs take and return; all references run, in this process."""
    layers = {id(layer): (prefix, layer) for prefix, layer in reversed([*module.walk()])}
    workers = [(layer, layer.workers) for _, layer in layers.values() if isinstance(layer, DataParallel)]
    watched = []
    try:
        for parallel, _ in workers:
            parallel.workers = 1
        for prefix, layer in layers.values():
            for verb in VERBS if layer.core() is layer else ():  # a Module is its net
                if verb not in vars(layer):
                    setattr(layer, verb, _watching(layer, prefix.rstrip("."), verb, found))
                    watched.append((layer, verb))
        yield
    finally:
        for layer, verb in watched:
            delattr(layer, verb)
        for parallel, count in workers:
            parallel.workers = count


def _watching(layer: Layer, name: str, verb: str, found: list[tuple[str, str]]) -> Callable[..., Any]:
    own = getattr(layer, verb)

    def watching(x: Value) -> Value:
        known = len(found) > 0 or not finite(x)
        y = own(x)
        if len(found) > 0:
            return y
        wrong = [path for path, p in layer.parameters().items() if not finite(p.value)]
        place = f"{name or 'the net'}, {layer!r}"
        if verb == "forward" and not (known and finite(y)):
            if wrong:
                found.append((name, f"the parameter {wrong[0]} of {place}, is not finite"))
            elif known:
                found.append((name, f"the input of {place}, is not finite"))
            elif not finite(y):
                found.append((name, f"the first layer whose output is not finite is {place}"))
        elif verb != "forward":
            bad = [path for path, p in layer.parameters().items() if p.has_grad and not finite(p.grad)]
            if known:
                found.append((name, f"the gradient that reaches {place}, is not finite"))
            elif bad or not (y is None or finite(y)):
                found.append((name, f"the first layer whose gradient is not finite is {place}"))
        return y

    return watching


def explained(module: Layer, loss_func: Any, batch: Any, again: Callable[[], Any]) -> tuple[str, str]:
    """(dotted name, sentence) about where a number that is not finite came from.

    again: repeats the forward of that batch and, if the loss is finite, its backward.
    """
    if not all(finite(part) for part in batch if arrays.is_array(part) or isinstance(part, tuple)):
        return "", "the batch itself holds one"
    with suppress(ArithmeticError, ValueError, RuntimeError):  # such as one of a loss that checks its prediction
        layer, cause = first_nonfinite(module, again)
        return layer, cause or f"the output of every layer is finite, {loss_func!r} is not"
    return "", ""


class Guard:
    """Looks at the loss and the gradients of each step, before the parameters move."""

    def __init__(self, module: Layer, loss_func: Any, max_norm: float | None):
        self.module, self.loss_func, self.max_norm = module, loss_func, max_norm
        self.parameters = list(module.parameters().values())

    def trouble(self, loss: Any) -> str:
        """What is wrong with this loss or its gradient, "" if nothing is."""
        if not math.isfinite(loss.value):
            return "the loss is not finite"
        norm = gradient_norm(self.parameters)
        if not math.isfinite(norm):
            return "the gradient is not finite"
        above = self.max_norm is not None and norm > self.max_norm
        return f"the norm of the gradient is {norm:.4g}, above {self.max_norm:g}" if above else ""

    def error(self, trouble: str, batch: Any, forward: Callable[[], Any]) -> NonFiniteError:
        """The error about it.  forward: runs the batch again from the state before the step; returns the loss."""

        def again() -> None:
            loss = forward()
            if "gradient" in trouble:
                loss.backward()

        layer, cause = ("", "") if "norm" in trouble else explained(self.module, self.loss_func, batch, again)
        return NonFiniteError(trouble, cause, layer)
