"""The processes beside the one of a `DataParallel`: what they have in common with it, what it tells them."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet, proxy, ref

from mtorch.arrays import Value, on_cache_line
from mtorch.container import Container, Tape
from mtorch.errors import BackwardError
from mtorch.layer import Layer
from mtorch.parallel.processes import Crew, Ended, forked_by_others, shared

STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two processes: the golden ratio's bits


class Team:
    """`size` forked processes with a copy of the net each.

    The values of the parameters and the buffers lie in memory common to all; each process collects its gradients in
    memory that this one reads too.
    """

    def __init__(self, owner: Container, net: Layer, size: int):
        self.owner, self.net, self.built = proxy(owner), net, Layer.rebuilt  # no cycle: they end with their owner
        self.layers = list({id(layer): layer for _, layer in net.walk()}.values())
        self.random = [layer for layer in self.layers if layer.random_state()]
        self.parameters, self.buffers = list(net.parameters().values()), owner.buffers_below
        for parameter in self.parameters:
            parameter.value = shared(parameter.value)
        self.values = [parameter.value for parameter in self.parameters]
        self.buffer_values = [shared(buffer.value.copy()) for buffer in self.buffers]
        self.grads = [[shared(value.copy()) for value in self.values] for _ in range(size)]
        self.number = 0
        self.calls: dict[int, ref[Call]] = {}
        self.tapes: dict[int, Tape] = {}  # in the other processes: the calls that may be answered yet
        self.crew = Crew(size, self._answer)
        _teams.add(self)

    def outdated(self, size: int) -> bool:
        """Whether there are less than `size`, or the net has got other layers or arrays since it was copied."""
        moved = any(p.value is not value for p, value in zip(self.parameters, self.values, strict=True))
        return moved or self.built != Layer.rebuilt or self.crew.ended or size > len(self.grads)

    def part(self) -> None:
        """For a process that was forked by somebody else: its parameters are its own."""
        self.crew.part()
        for parameter, value in zip(self.parameters, self.values, strict=True):
            if parameter.value is value:
                parameter.value = on_cache_line(value)

    # ------------------------------------------------------------------ in this process

    def forward(self, function: Callable[[], Value], parts: list[Value]) -> tuple["Call", list[Value]]:
        """(this call, [function(), the net's result for the first part, ...])."""
        self.number += 1
        call = Call(self, self.number)
        self.calls = {n: known for n, known in self.calls.items() if known()} | {call.number: ref(call)}
        for buffer, value in zip(self.buffers, self.buffer_values, strict=True):
            value[...] = buffer.value
        modes = [layer.training for layer in self.layers]
        states = [layer.random_state() for layer in self.random]
        news = call.number, list(self.calls), modes, states
        return call, self._together(function, [("forward", *news, part) for part in parts])

    def backward(self, call: "Call", function: Callable[[], Value], parts: list[Value], wanted: bool) -> list[Value]:
        """[function(), the gradient of the first part, ...]; the parameters of this process collect those of all."""
        own, *answers = self._together(function, [("backward", call.number, wanted, part) for part in parts])
        for grads, (contributed, _) in zip(self.grads, answers, strict=False):
            for parameter, grad, given in zip(self.parameters, grads, contributed, strict=True):
                if given:
                    parameter.accumulate(grad)
        return [own, *(grad for _, grad in answers)]

    def _together(self, function, messages):
        try:
            return self.crew.together(function, messages)
        except Ended as error:
            raise RuntimeError(f"{self.owner}: {error}; the next forward starts others") from error

    # ------------------------------------------------------------------ in the others

    def _answer(self, process: int, message: tuple) -> Any:
        verb, *rest = message
        return {"forward": self._forward, "backward": self._backward}[verb](process, *rest)

    def _forward(self, process, number, calls, modes, states, x):
        self.tapes = {each: tape for each, tape in self.tapes.items() if each in calls}
        for layer, mode in zip(self.layers, modes, strict=True):
            layer.training = mode
        for layer, state in zip(self.random, states, strict=True):
            if "seed" in state:
                state["seed"] = (state["seed"] + process * STRIDE) % 2**63
            layer.set_random_state(state)
        for buffer, value in zip(self.buffers, self.buffer_values, strict=True):
            buffer.value = value
        self.tapes[number] = tape = Tape(self.owner)
        return tape.call(self.net, x)

    def _backward(self, process, number, wanted, output_grad):
        tape = self.tapes.pop(number)
        for parameter, grad in zip(self.parameters, self.grads[process - 1], strict=True):
            parameter.zero_grad()
            parameter.collect_in(grad)
        dx = (tape.pull if wanted else tape.pull_parameters)(output_grad)
        return [parameter.has_grad for parameter in self.parameters], dx


class Call:
    """One forward that the other processes remember, for as long as this one does. A copy of it they do not know."""

    __slots__ = ("team", "number", "__weakref__")

    def __init__(self, team: Team | None = None, number: int = 0):
        self.team, self.number = team, number

    def backward(self, *args: Any) -> list[Value]:
        """`Team.backward`; BackwardError where nobody remembers this call."""
        if self.team is None or self.team.crew.ended:
            raise BackwardError("the processes that shared its forward know nothing of it: call forward again")
        return self.team.backward(self, *args)

    def __reduce__(self):
        return Call, ()


_teams: WeakSet[Team] = WeakSet()


def _part() -> None:
    for team in list(_teams):
        team.part()


forked_by_others(_part)
