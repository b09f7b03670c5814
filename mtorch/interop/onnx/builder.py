"""A graph of ONNX nodes while it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

from mtorch import arrays, guards
from mtorch.arrays import Array
from mtorch.interop.onnx.errors import OnnxError
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter


@dataclass(frozen=True)
class Symbol:
    """A value of the graph that is written: its name there, and what it is for the example."""

    name: str
    example: Array

    @property
    def rank(self) -> int:
        return self.example.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.example.shape


class Node(NamedTuple):
    """One node: the operator, the names of what it reads and fills, and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Builder:
    """Collects nodes, constants and the parameters that they read. `write` adds a layer on symbols."""

    def __init__(self, net: Layer, writers: Any):
        self.net, self.writer_of = net, writers
        self.nodes: list[Node] = []
        self.constants: dict[str, numpy.ndarray] = {}
        self.parameters: dict[str, Parameter | Buffer] = {}
        self.paths: dict[int, str] = {}
        self.names: dict[int, str] = {}
        for prefix, layer in net.walk():
            self.paths.setdefault(id(layer), prefix[:-1])
            for name, item in layer.own(Parameter | Buffer):
                if isinstance(item, Parameter) or item.persistent:
                    self.names.setdefault(id(item), prefix + name)
        self._taken: dict[str, int] = dict.fromkeys(self.names.values(), 0)
        self._path = ""

    # ------------------------------------------------------------------ names

    def name(self, wish: str) -> str:
        """That name, with a number behind it where it is taken."""
        if wish not in self._taken:
            self._taken[wish] = 0
            return wish
        while True:
            self._taken[wish] += 1
            name = f"{wish}_{self._taken[wish]}"
            if name not in self._taken:
                self._taken[name] = 0
                return name

    @contextmanager
    def _within(self, layer: Layer) -> Iterator[None]:
        before, self._path = self._path, self.paths.get(id(layer), self._path)
        try:
            yield
        finally:
            self._path = before

    # ------------------------------------------------------------------ what nodes read

    def parameter(self, item: Parameter | Buffer) -> str:
        """The name of an initializer, which is that in the state dict; what a state dict leaves out is a constant."""
        name = self.names.get(id(item))
        if name is None:
            return self.constant(item.value)
        self.parameters[name] = item
        return name

    def in_order(self) -> list[tuple[str, Parameter | Buffer]]:
        """The initializers in the order of the state dict."""
        return [(name, self.parameters[name]) for name in self.names.values() if name in self.parameters]

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant; floats are of the net's dtype."""
        array = numpy.asarray(arrays.as_numpy(value) if arrays.array_module(value) else value)
        if dtype is not None or array.dtype.kind == "f":
            array = array.astype(self.net.dtype if dtype is None else dtype)
        name = self.name(f"/{self._path}/constant" if self._path else "/constant")
        self.constants[name] = array
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(numpy.array(numbers, "int64"))

    # ------------------------------------------------------------------ what they fill

    def node(self, operator: str, *inputs: str | None, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a tuple of names."""
        stem = f"/{self._path}/{operator}" if self._path else f"/{operator}"
        names = tuple(self.name(stem) for _ in range(outputs))
        read = [name or "" for name in inputs]
        while read and not read[-1]:
            read.pop()
        self.nodes.append(Node(operator, tuple(read), names, attributes))
        return names[0] if outputs == 1 else names

    def write(self, layer: Layer, x: Any) -> Any:
        """The symbols of what the layer returns for those symbols."""
        layer = layer.core()
        writer = self.writer_of(layer)
        with self._within(layer):
            written = writer(self, layer, x)
            if _is_named(written):
                return _paired(written, guards.predicted(layer, examples(x), guards.Pass()))
            return written

    def refuse(self, layer: Layer, why: str) -> OnnxError:
        """The error for a layer that ONNX cannot say."""
        path = self.paths.get(id(layer))
        return OnnxError(f"{layer!r}{f' ({path})' if path else ''} cannot be written to ONNX: {why}")


def examples(x: Any) -> Any:
    """The example that a value of symbols stands for."""
    return arrays.map_value(lambda leaf: leaf.example, x)


def _is_named(written: Any) -> bool:
    return isinstance(written, str) or (type(written) is tuple and any(map(_is_named, written)))


def _paired(names: Any, value: Any) -> Any:
    if isinstance(names, str):
        return Symbol(names, value)
    return tuple(_paired(name, part) for name, part in zip(names, value, strict=True))
