"""The processes beside the one of a `DataParallel`: what they have in common with it, what it tells them."""

from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import proxy

from mtorch.arrays import Value
from mtorch.errors import BackwardError
from mtorch.kernels.processes import Crew, Ended, shared
from mtorch.layer import Layer
from mtorch.tape import Container, Tape

STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two processes: the golden ratio's bits


class Team:
    """`size` forked processes with a copy of the net each.

    The values of the parameters lie in memory common to all; each process collects its gradients in memory that this
    one reads too.
    """

    def __init__(self, owner: Container, net: Layer, size: int):
        self.owner, self.net, self.built = proxy(owner), net, Layer.rebuilt  # no cycle: they end with their owner
        self.layers = list({id(layer): layer for _, layer in net.walk()}.values())
        self.random = [layer for layer in self.layers if layer.random_state()]
        self.parameters = list(net.parameters().values())
        for parameter in self.parameters:
            parameter.value = shared(parameter.value)
        self.values = [parameter.value for parameter in self.parameters]
        self.grads = [[shared(value) for value in self.values] for _ in range(size)]
        self.buffers = [(buffer, buffer.value) for buffer in owner.buffers_below]
        self.numbers, self.forgotten = count(), []
        self.tapes: dict[int, Tape] = {}  # in the other processes: the calls that may be answered yet
        self.crew = Crew(size, self._answer)

    def outdated(self) -> bool:
        """Whether the net has got other layers or arrays since it was copied."""
        moved = any(p.value is not value for p, value in zip(self.parameters, self.values, strict=True))
        return moved or self.built != Layer.rebuilt or self.crew.ended

    # ------------------------------------------------------------------ in this process

    def forward(self, function: Callable[[], Value], parts: list[Value]) -> tuple["Call", list[Value]]:
        """(this call, [function(), the net's result for the first part, ...])."""
        call, forgotten = Call(self, next(self.numbers)), self.forgotten[:]
        del self.forgotten[: len(forgotten)]
        common = call.number, forgotten, self._news()
        return call, self._together(function, [("forward", *common, part) for part in parts])

    def backward(self, call: "Call", function: Callable[[], Value], parts: list[Value], wanted: bool) -> list[Value]:
        """[function(), the gradient of the first part, ...]; the parameters of this process collect those of all."""
        if self.crew.ended:
            raise BackwardError(f"{self.owner!r} has lost what its forward remembered: its processes have ended")
        own, *answers = self._together(function, [("backward", call.number, wanted, part) for part in parts])
        for grads, (contributed, _) in zip(self.grads, answers, strict=False):
            for parameter, grad, given in zip(self.parameters, grads, contributed, strict=True):
                if given:
                    parameter.accumulate(grad)
        return [own, *(grad for _, grad in answers)]

    def _news(self) -> tuple:
        """Modes, random states, and the buffers that are not what was sent last."""
        modes = [layer.training for layer in self.layers]
        changed = {}
        for i, (buffer, sent) in enumerate(self.buffers):
            if buffer.value is not sent:
                changed[i], self.buffers[i] = buffer.value, (buffer, buffer.value)
        return modes, [layer.random_state() for layer in self.random], changed

    def _together(self, function, messages):
        try:
            return self.crew.together(function, messages)
        except Ended as error:
            raise RuntimeError(f"{self.owner!r}: {error}; the next forward starts it again") from error

    # ------------------------------------------------------------------ in the others

    def _answer(self, process: int, message: tuple) -> Any:
        verb, *rest = message
        return {"forward": self._forward, "backward": self._backward}[verb](process, *rest)

    def _forward(self, process, number, forgotten, news, x):
        for each in forgotten:
            self.tapes.pop(each, None)
        modes, states, buffers = news
        for layer, mode in zip(self.layers, modes, strict=True):
            layer.training = mode
        for layer, state in zip(self.random, states, strict=True):
            layer.set_random_state(state | {"seed": (state["seed"] + process * STRIDE) % 2**63})
        for i, value in buffers.items():
            self.buffers[i][0].value = value
        tape = Tape(self.owner)
        y = tape.call(self.net, x)
        tape.undo()
        self.tapes[number] = tape
        return y

    def _backward(self, process, number, wanted, output_grad):
        tape = self.tapes.pop(number)
        for parameter, grad in zip(self.parameters, self.grads[process - 1], strict=True):
            parameter.zero_grad()
            parameter.collect_in(grad)
        dx = (tape.pull if wanted else tape.pull_parameters)(output_grad)
        return [parameter.contributed for parameter in self.parameters], dx


class Call:
    """One forward that the other processes remember, for as long as this one does."""

    __slots__ = ("team", "number")

    def __init__(self, team: Team, number: int):
        self.team, self.number = team, number

    def __del__(self):
        self.team.forgotten.append(self.number)
