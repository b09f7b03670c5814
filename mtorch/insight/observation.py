"""The calls of a pass through a net, watched on a copy: the net itself is not touched."""

from collections.abc import Iterator
from copy import deepcopy
from time import perf_counter
from typing import Any

from mtorch.arrays import Value
from mtorch.container import Container
from mtorch.layer import Layer
from mtorch.layers.attention import MultiHeadAttention
from mtorch.module import Module

VERBS = ("forward", "backward", "backward_parameters", "placed")  # a GetItem of a Graph is answered by `placed`


def is_container(layer: Layer) -> bool:
    """Whether a layer only calls others. An attention does, too, but it has arithmetic of its own."""
    return isinstance(layer, Module) or (isinstance(layer, Container) and not isinstance(layer, MultiHeadAttention))


class Call:
    """One call of a layer: what it took and returned, what it remembered, and the gradients that answered it."""

    def __init__(self, x: Value):
        self.x, self.y, self.memory = x, None, None
        self.attention: Any = None  # the map of an attention
        self.grad: Value = None
        self.input_grad: Value = None
        self.forward_seconds = self.backward_seconds = 0.0


class Watched:
    """A layer of the net, its copy, its dotted name, and its calls in the order of the forward."""

    def __init__(self, name: str, layer: Layer, copied: Layer, order: list["Watched"]):
        self.name, self.layer, self.copied = name, layer, copied
        self.calls: list[Call] = []
        self.waiting: list[Call] = []  # those without an answer
        self.order = order
        if isinstance(copied, MultiHeadAttention):
            copied.keep_weights = True
        self.patches = {verb: getattr(self, verb) for verb in VERBS if hasattr(copied, verb)}
        self.originals = {verb: vars(copied)[verb] for verb in VERBS if verb in vars(copied)}
        vars(copied).update(self.patches)

    def forward(self, x: Value) -> Value:
        call = Call(x)
        if not self.calls:
            self.order.append(self)
        self.calls.append(call)
        self.waiting.append(call)
        call.y, call.forward_seconds = self._timed("forward", x)
        call.memory = self.copied._memory
        if isinstance(self.copied, MultiHeadAttention) and not self.copied.predicting:
            call.attention = self.copied.attention_weights
        return call.y

    def backward(self, output_grad: Value) -> Value:
        return self._answer("backward", output_grad)

    def backward_parameters(self, output_grad: Value) -> None:
        self._answer("backward_parameters", output_grad)

    def placed(self, output_grad: Value, count: int) -> Value:
        return self._answer("placed", output_grad, count)

    def _answer(self, verb: str, output_grad: Value, *more: Any) -> Value:
        """Runs that verb, and notes it at the call whose memory is back: the last one without an answer."""
        memory, waiting = self.copied._memory, self.waiting
        place = next((i for i in range(len(waiting))[::-1] if waiting[i].memory is memory), len(waiting) - 1)
        result, seconds = self._timed(verb, output_grad, *more)
        if waiting:
            call = waiting.pop(place)
            call.grad, call.input_grad, call.backward_seconds = output_grad, result, seconds
        return result

    def _timed(self, verb: str, *args: Any) -> tuple[Any, float]:
        """What the layer itself returns, and the seconds. Meanwhile it is unpatched, so that its fast body runs."""
        own = vars(self.copied)
        for name in self.patches:
            del own[name]
        own.update(self.originals)
        try:
            start = perf_counter()
            result = getattr(self.copied, verb)(*args)
            return result, perf_counter() - start
        finally:
            own.update(self.patches)


class Observation:
    """A copy of a net whose calls are watched: call `copy`; then `watched` has its layers in the order of the forward.

    containers: whether the calls of containers are watched, too.
    """

    def __init__(self, module: Layer, containers: bool = False):
        from mtorch.parallel import DataParallel  # imported late: it stands above

        module.core()
        try:
            self.copy = deepcopy(module)
        except Exception as error:
            error.add_note(f"a copy of {module!r} is watched, so that it stays as it is, and it cannot be copied")
            raise
        self.copy.discard()
        self.watched: list[Watched] = []
        seen: set[int] = set()
        for (prefix, layer), (_, copied) in zip(module.walk(), self.copy.walk(), strict=True):
            if isinstance(copied, DataParallel):
                copied.workers = 1
            if id(copied) not in seen and not isinstance(copied, Module) and (containers or not is_container(copied)):
                Watched(prefix[:-1], layer, copied, self.watched)
            seen.add(id(copied))

    def __iter__(self) -> Iterator[Watched]:
        return iter(self.watched)
