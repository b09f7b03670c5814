"""Replicas of a net in worker processes: what they share with this process, and what each request tells them."""

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakSet, proxy, ref

from mtorch.arrays import Value
from mtorch.container import Tape
from mtorch.errors import BackwardError
from mtorch.layer import Layer
from mtorch.parallel.system import one_share
from mtorch.parallel.worker_pool import WorkerEnded, WorkerPool, forking, shared
from mtorch.parameter import Parameter

STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two ranks: the golden ratio's bits


class Replicas:
    """`size` workers with a replica of the net each; this process is rank 0 and has the net itself.

    The values of parameters and buffers lie in memory that all processes share. Each worker collects its gradients in
    memory that this process reads.
    """

    def __init__(self, owner: Any, net: Layer, size: int):
        self.owner: Any = proxy(owner)  # so that the workers end with their owner
        self.net, self.contents = net, contents(net)
        self.layers = list({id(layer): layer for _, layer in net.walk()}.values())
        self.random = [layer for layer in self.layers if layer.random_state()]
        self.parameters, self.buffers = list(net.parameters().values()), owner.buffers_below
        for parameter in self.parameters:
            parameter.value = shared(parameter.value)
        self.values = [parameter.value for parameter in self.parameters]
        self.buffer_values = [shared(buffer.value.copy()) for buffer in self.buffers]
        self.grads = [[shared(value.copy()) for value in self.values] for _ in range(size)]
        self.requests: dict[int, ref[Request]] = {}  # those that a backward may still answer
        self.count = 0
        self.tapes: dict[int, Tape] = {}  # in a worker: the calls of these requests
        self.pool = WorkerPool(size, self._answer, owner.patience)
        _all.add(self)

    def outdated(self, size: int) -> bool:
        """Whether there are fewer than `size`, or the net has other layers, parameters or arrays than the workers."""
        moved = any(p.value is not value for p, value in zip(self.parameters, self.values, strict=True))
        return moved or self.pool.ended or size > len(self.grads) or contents(self.net) != self.contents

    def detach(self) -> None:
        """Gives the net parameters of its own, in a process that was forked by somebody else."""
        self.pool.detach()
        for parameter, value in zip(self.parameters, self.values, strict=True):
            if parameter.value is value:
                parameter.value = value.copy()

    # ------------------------------------------------------------------ in this process

    def forward(
        self, call: Callable[[Value], Value], share: Callable[[int], Value], sizes: list[int]
    ) -> tuple["Request", list[Value]]:
        """(this request, the net's result for each share). sizes: the number of samples of each share."""
        self.count += 1
        request = Request(self, self.count)
        self.requests = {n: known for n, known in self.requests.items() if known()} | {self.count: ref(request)}
        for buffer, value in zip(self.buffers, self.buffer_values, strict=True):
            value[...] = buffer.value
        modes = [layer.training for layer in self.layers]
        states = [layer.random_state() for layer in self.random]
        news = self.count, list(self.requests), modes, states
        own, *others = (share(rank) for rank in range(len(sizes)))
        return request, self._run(lambda: call(own), [("forward", *news, other) for other in others])

    def backward(
        self, number: int, pull: Callable[[Value], Value], share: Callable[[int], Value], count: int, wanted: bool
    ) -> list[Value]:
        """[the input gradient of each share]; adds the gradients of all ranks' parameters."""
        trainable = [parameter.trainable for parameter in self.parameters]
        own, *others = (share(rank) for rank in range(count))
        messages = [("backward", number, wanted, trainable, other) for other in others]
        own, *answers = self._run(lambda: pull(own), messages)
        for grads, (has_grad, _) in zip(self.grads, answers, strict=False):
            for parameter, grad, given in zip(self.parameters, grads, has_grad, strict=True):
                if given:
                    parameter.accumulate(grad)
        return [own, *(input_grad for _, input_grad in answers)]

    def _run(self, function: Callable[[], Value], messages: list[tuple]) -> list[Any]:
        def own_share() -> Value:
            with one_share():
                return function()

        try:
            return self.pool.run(own_share, messages)
        except WorkerEnded as error:
            raise WorkerEnded(f"{self.owner.__repr__()}: {error}; the next forward starts others") from error

    # ------------------------------------------------------------------ in a worker

    def _answer(self, rank: int, verb: str, *args: Any) -> Any:
        with one_share():
            return self._forward(rank, *args) if verb == "forward" else self._backward(rank, *args)

    def _forward(
        self, rank: int, number: int, requests: list[int], modes: list[bool], states: list[dict[str, int]], x: Value
    ) -> Value:
        self.tapes = {each: tape for each, tape in self.tapes.items() if each in requests}
        for layer, mode in zip(self.layers, modes, strict=True):
            layer.training = mode
        for layer, state in zip(self.random, states, strict=True):
            if "seed" in state:
                state["seed"] = (state["seed"] + rank * STRIDE) % 2**63
            layer.set_random_state(state)
        for buffer, value in zip(self.buffers, self.buffer_values, strict=True):
            buffer.value = value
        self.tapes[number] = tape = Tape(self.owner)
        return tape.call(self.net, x)

    def _backward(
        self, rank: int, number: int, wanted: bool, trainable: list[bool], output_grad: Value
    ) -> tuple[list[bool], Value]:
        tape = self.tapes.pop(number)
        for parameter, grad, trains in zip(self.parameters, self.grads[rank - 1], trainable, strict=True):
            parameter.zero_grad()
            parameter.collect_in(grad)
            parameter.trainable = trains
        dx = (tape.pull if wanted else tape.pull_parameters)(output_grad)
        return [parameter.has_grad for parameter in self.parameters], dx


def contents(net: Layer) -> list[Any]:
    """Every layer and Parameter of the net, to compare by identity."""
    return [item for _, layer in net.walk() for item in (layer, *(p for _, p in layer.own(Parameter)))]


class Request:
    """One forward that the workers remember for as long as this object lives. A copy of it is known to no worker."""

    __slots__ = ("replicas", "number", "__weakref__")

    def __init__(self, replicas: Replicas | None = None, number: int = 0):
        self.replicas, self.number = replicas, number

    def backward(self, *args: Any) -> list[Value]:
        """`Replicas.backward`; BackwardError where no worker remembers this request."""
        if self.replicas is None or self.replicas.pool.ended:
            raise BackwardError("the worker processes of its forward know nothing of it: call forward again")
        return self.replicas.backward(self.number, *args)

    def __reduce__(self) -> tuple:
        return Request, ()


_all: WeakSet[Replicas] = WeakSet()


def _detach_all() -> None:
    if not forking.locked():
        for replicas in list(_all):
            replicas.detach()


os.register_at_fork(after_in_child=_detach_all)
