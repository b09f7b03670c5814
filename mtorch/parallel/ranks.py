"""Ranks of an MPI job: copies of one script, each with the whole net, which compute every training step together.

All ranks go through the same batches, because their loaders have one seed. Each computes its share of every batch. The
results are gathered, so that each rank sees the loss of the whole batch, and the gradients are added, in one flat array
for each dtype. So every rank makes the step that one process alone would make, and no average needs weights.

Before arrays travel, the ranks tell each other how their own share went. An error on one rank is so an error on all.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from mtorch import arrays
from mtorch.arrays import Array, Value
from mtorch.container import Container
from mtorch.layer import Layer
from mtorch.parallel.communicators import Communicator
from mtorch.parallel.replicas import STRIDE, contents
from mtorch.parallel.system import cpu_count, one_share


class ArraySpec:
    """Shape and dtype of an array that another rank has."""

    def __init__(self, array: Array):
        self.shape, self.size, self.dtype = array.shape, array.size, array.dtype


class Ranks:
    """All ranks of a communicator around one net; this process is one of them. They begin with what rank 0 has."""

    def __init__(self, owner: Container, net: Layer, comm: Communicator):
        self.name, self.net, self.xp, self.comm = type(owner).__name__, net, net.xp, comm
        self.contents = contents(net)
        self.parameters, self.buffers = list(net.parameters().values()), owner.buffers_below
        self.random = [layer for _, layer in net.walk() if "seed" in layer.random_state()]
        self.flat: dict[Any, Array] = {}
        states = self._agree(None, [layer.random_state() for layer in self.random])[0]
        for layer, state in zip(self.random, states, strict=True):
            layer.set_random_state(state)
        for held in (self.parameters, [b for b in self.buffers if b.value.dtype.kind == "f"]):
            for flat, group in self._in_one([each.value for each in held]):
                comm.broadcast(flat)
                for value, part in group:
                    value[...] = part

    def outdated(self, others: int) -> bool:
        """Whether the net has other layers or parameters than when the ranks began."""
        return contents(self.net) != self.contents

    def forward(
        self, call: Callable[[Value], Value], share: Callable[[int], Value], sizes: list[int]
    ) -> tuple["Ranks", list[Value]]:
        """(this, the net's result for each share). sizes: the number of samples of each share."""
        before = [buffer.value for buffer in self.buffers]
        with self._own_seeds():
            y, error = self._own(lambda: call(share(self.comm.rank)), len(sizes))
        changed = [buffer.value is not value for buffer, value in zip(self.buffers, before, strict=True)]
        told = self._agree(error, (specs(y), changed, sizes))
        if any(others != sizes for _, _, others in told):
            raise ValueError(f"{self.name}: the ranks have different batches, divided into {[s for _, _, s in told]}")
        self._average_buffers(told[0][1], sizes)
        return self, self._gather(y, [spec for spec, _, _ in told[: len(sizes)]])

    def backward(
        self, pull: Callable[[Value], Value], share: Callable[[int], Value], count: int, wanted: bool
    ) -> list[Value]:
        """[the input gradient of each share]; adds the gradients of all shares to those of the parameters."""
        earlier = [parameter.grad.copy() if parameter.has_grad else None for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.zero_grad()
        try:
            dx, error = self._own(lambda: pull(share(self.comm.rank)), count)
            told = self._agree(error, (specs(dx), [parameter.has_grad for parameter in self.parameters]))
            given = [any(each) for each in zip(*(given for _, given in told), strict=True)]
            self._add([p for p, some in zip(self.parameters, given, strict=True) if some])
        finally:
            for parameter, grad in zip(self.parameters, earlier, strict=True):
                if grad is not None:
                    parameter.accumulate(grad)
        return self._gather(dx, [spec for spec, _ in told[:count]])

    # ------------------------------------------------------------------ this rank's share

    def _own(self, function: Callable[[], Value], count: int) -> tuple[Value, BaseException | None]:
        """(the result for this rank's share, or None without one; the error)."""
        if self.comm.rank >= count:
            return None, None
        try:
            with one_share() if self.comm.local_size >= cpu_count() else nullcontext():
                return function(), None
        except BaseException as error:
            return None, error

    @contextmanager
    def _own_seeds(self) -> Iterator[None]:
        """Inside, random layers draw what no other rank draws."""
        seeds = [layer.random_state()["seed"] for layer in self.random]
        shifted = [(seed + self.comm.rank * STRIDE) % 2**63 for seed in seeds]
        for layer, seed in zip(self.random, shifted, strict=True):
            layer.set_random_state(layer.random_state() | {"seed": seed})
        try:
            yield
        finally:
            for layer, seed in zip(self.random, seeds, strict=True):
                layer.set_random_state(layer.random_state() | {"seed": seed})

    # ------------------------------------------------------------------ all ranks together

    def _agree(self, error: BaseException | None, item: Any) -> list[Any]:
        """The items of all ranks; the error of this one is raised here, and one of another rank as a RuntimeError."""
        told = self.comm.exchange("" if error is None else f"{type(error).__name__}: {error}", item)
        if error is not None:
            raise error
        for rank, (text, _) in enumerate(told):
            if text:
                raise RuntimeError(f"{self.name}: rank {rank} of {self.comm.size} failed: {text}")
        return [item for _, item in told]

    def _gather(self, value: Value, told: list[Any]) -> list[Value]:
        """The values of all shares; told: their specs."""
        if isinstance(told[0], tuple):
            each = range(len(told[0]))
            parts = [self._gather(None if value is None else value[i], [spec[i] for spec in told]) for i in each]
            return list(zip(*parts, strict=True))
        if told[0] is None:
            return [None] * len(told)
        sizes = [spec.size for spec in told] + [0] * (self.comm.size - len(told))
        own = self.xp.empty(0, told[0].dtype) if value is None else self.xp.ascontiguousarray(value).reshape(-1)
        pieces = self.comm.allgather(own, sizes)
        return [piece.reshape(spec.shape) for piece, spec in zip(pieces, told, strict=False)]

    def _add(self, parameters: list[Any]) -> None:
        """grad := the sum of the ranks' gradients."""
        for flat, group in self._in_one([parameter.grad for parameter in parameters]):
            self.comm.allreduce(flat)
            for grad, part in group:
                grad[...] = part
        for parameter in parameters:
            parameter.has_grad = True

    def _average_buffers(self, changed: list[bool], sizes: list[int]) -> None:
        """Running statistics := their means over the ranks, weighted by samples."""
        mine = sizes[self.comm.rank] / max(1, sum(sizes)) if self.comm.rank < len(sizes) else 0.0
        news = [buffer for buffer, new in zip(self.buffers, changed, strict=True) if new]
        floats = [buffer for buffer in news if buffer.value.dtype.kind == "f"]
        for buffer in floats:
            buffer.value = buffer.value * buffer.value.dtype.type(mine) if mine else self.xp.zeros_like(buffer.value)
        for flat, group in self._in_one([buffer.value for buffer in floats]):
            self.comm.allreduce(flat)
            for value, part in group:
                value[...] = part

    def _in_one(self, values: Iterable[Array]) -> Iterator[tuple[Array, list[tuple[Array, Array]]]]:
        """For each dtype one flat array of the values' entries, and each value with its part of it."""
        groups: dict[Any, list[Array]] = {}
        for value in values:
            groups.setdefault(value.dtype, []).append(value)
        for dtype, group in groups.items():
            size = sum(value.size for value in group)
            if (dtype, size) not in self.flat:
                self.flat[dtype, size] = self.xp.empty(size, dtype)
            flat, start, pairs = self.flat[dtype, size], 0, []
            for value in group:
                part = flat[start : start + value.size].reshape(value.shape)
                part[...] = value
                pairs.append((value, part))
                start += value.size
            yield flat, pairs


def specs(value: Value) -> Any:
    """The same structure with the `ArraySpec` of each array."""
    return arrays.map_value(ArraySpec, value)
