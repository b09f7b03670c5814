"""The mark `@accelerated`: how a faster body takes the place of a reference function.

The equations of a layer stand in its own file, and they run. `mtorch.fast` may register a faster body for a marked
function and one array module; the mark looks it up in every call. There are two kinds of marked functions.

*The verbs of a layer*, `forward`, `backward` and `backward_parameters`, are replaced together or not at all. A fast
forward is a function `(layer, x) -> (y, memory)`, a fast backward is `(layer, memory, output_grad) -> dx`. The forward
decides: its memory says which body answers it, so that `disabled()` entered in between, or another thread, changes
nothing. Where a subclass or an instance defines one of the three by itself, the references of all three run.

*Any other function* whose first argument (after `self`) is the array module `xp`, and any other method of a layer or a
Parameter, is replaced by one of the same signature.

`MTORCH_FAST=0`, read when mtorch is imported, turns the mark off: it then hands back the function itself.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import get_ident
from types import ModuleType
from typing import Any

ENABLED = os.environ.get("MTORCH_FAST", "1") != "0"
VERBS = ("forward", "backward", "backward_parameters")

_disabled: set[int] = set()  # the threads that run only the references
_bodies: dict[str, dict[ModuleType, Any]] = {}  # the name of a reference -> array module -> Verbs or function


@contextmanager
def disabled() -> Iterator[None]:
    """Within this context the thread runs only the references."""
    thread = get_ident()
    nested = thread in _disabled
    _disabled.add(thread)
    try:
        yield
    finally:
        if not nested:
            _disabled.discard(thread)


class Blas:
    """How a pass limits BLAS to one thread while layers divide work among threads. `fast/` sets both functions."""

    held: Callable[[], bool] = staticmethod(lambda: True)
    limited: Callable = staticmethod(
        lambda function, *args: function(*args)
    )  # fast/ calls it while BLAS has one thread


def multithreaded(layer: Any) -> bool:
    """Whether the fast bodies of that layer share their work between threads."""
    forward = layer.__class__.forward
    verbs = _bodies.get(_name(forward), {}).get(layer.xp) if hasattr(forward, "__qualname__") else None
    return verbs is not None and verbs.multithreaded(layer)


class Verbs:
    """The fast bodies of one class for one array module."""

    def __init__(
        self,
        owner: Any,
        xp: ModuleType,
        forward: Any,
        backward: Any,
        parameters: Any,
        multithreaded: Callable[[Any], bool],
        least: int,
    ):
        self.owner, self.xp = owner, xp
        self.forward, self.backward, self.backward_parameters = forward, backward, parameters
        self.multithreaded = multithreaded
        self.least = least
        self.marked = tuple(getattr(owner, name) for name in VERBS)

    def serve(self, layer: Any) -> bool:
        """Whether the three verbs of that layer are the marked ones, and this thread takes fast bodies."""
        if _disabled and get_ident() in _disabled:
            return False
        kind, own = layer.__class__, layer.__dict__
        forward, backward, parameters = self.marked
        return (
            kind.forward is forward and kind.backward is backward and kind.backward_parameters is parameters
            and "forward" not in own and "backward" not in own and "backward_parameters" not in own
        )  # fmt: skip


class FastMemory:
    """What a fast forward remembered, and whose it is."""

    __slots__ = ("verbs", "values")

    def __init__(self, verbs: Verbs, values: Any):
        self.verbs, self.values = verbs, values

    def __reduce__(self):
        return _restored, (self.verbs.owner, self.verbs.xp.__name__, self.values)


def accelerated(reference: Callable) -> Callable:
    """Marks a reference function that a faster body may replace."""
    if not ENABLED:
        return reference
    name = reference.__name__
    bodies = _bodies.setdefault(_name(reference), {})
    if name == "step":
        return _step(reference, bodies)
    if name not in VERBS:
        return _function(reference, bodies)
    return _forward(reference, bodies) if name == "forward" else _backward(reference, name)


def _name(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _function(reference: Callable, bodies: dict[ModuleType, Callable]) -> Callable:
    first, *more = reference.__code__.co_varnames
    if first == "self" and more[0] != "xp":

        @wraps(reference)
        def method(self: Any, *args: Any, **options: Any) -> Any:
            body = bodies.get(self.xp)
            chosen = reference if body is None or (_disabled and get_ident() in _disabled) else body
            return chosen(self, *args, **options)

        return method
    position = int(first == "self")

    @wraps(reference)
    def function(*args: Any, **options: Any) -> Any:
        body = bodies.get(args[position] if len(args) > position else options["xp"])
        return (reference if body is None or (_disabled and get_ident() in _disabled) else body)(*args, **options)

    return function


def _step(reference: Callable, bodies: dict[ModuleType, Callable]) -> Callable:
    @wraps(reference)
    def step(self: Any, lr: float) -> None:
        body = bodies.get(self.xp)
        (reference if body is None or (_disabled and get_ident() in _disabled) else body)(self, lr)

    return step


def _forward(reference: Callable, bodies: dict[ModuleType, Verbs]) -> Callable:
    @wraps(reference)
    def forward(self: Any, x: Any) -> Any:
        verbs = bodies.get(self.xp)
        if verbs is None or (verbs.least and x.size < verbs.least) or not verbs.serve(self):
            return reference(self, x)
        y, memory = verbs.forward(self, x)
        self.remember(FastMemory(verbs, memory))
        return y

    return forward


def _backward(reference: Callable, name: str) -> Callable:
    @wraps(reference)
    def backward(self: Any, output_grad: Any) -> Any:
        memory = self._memory
        if memory.__class__ is not FastMemory:
            return reference(self, output_grad)
        output_grad = self.cast_grad(output_grad)
        verbs, values = memory.verbs, self.recall().values
        if name == "backward":
            return verbs.backward(self, values, output_grad)
        if verbs.backward_parameters is None:
            verbs.backward(self, values, output_grad)
        else:
            verbs.backward_parameters(self, values, output_grad)

    return backward


def replace(
    reference: Any,
    xp: ModuleType,
    body: Callable | None = None,
    *,
    forward: Callable | None = None,
    backward: Callable | None = None,
    backward_parameters: Callable | None = None,
    multithreaded: Callable[[Any], bool] = lambda layer: False,
    least: int = 0,
) -> None:
    """Registers the fast body of a marked function, or the fast verbs of a class, for one array module.

    multithreaded: whether the bodies divide their work among threads, so that BLAS should use one.

    least: the number of entries of the input below which the references run, because they are faster.

        replace(row_sums, numpy, fast_row_sums)
        replace(ReLU, numpy, forward=relu, backward=relu_grad)
    """
    if not ENABLED:
        return
    if isinstance(reference, type):
        cls: Any = reference
        verbs = Verbs(cls, xp, forward, backward, backward_parameters, multithreaded, least)
        _bodies[_name(cls.forward)][xp] = verbs
    else:
        _bodies[_name(reference)][xp] = body


def pairs() -> dict[str, dict[ModuleType, Any]]:
    """Everything that is replaced: the name of the reference, and its body for each array module. For tests."""
    return {name: bodies for name, bodies in _bodies.items() if bodies}


def _restored(owner: Any, module: str, values: Any) -> FastMemory:
    bodies = _bodies[_name(owner.forward)]
    return FastMemory(next(verbs for xp, verbs in bodies.items() if xp.__name__ == module), values)
