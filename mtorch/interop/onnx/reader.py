"""What reading the nodes of an ONNX model has found so far: constants, and the nodes of a Graph."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy

from mtorch.interop.onnx.errors import OnnxError, quoted
from mtorch.interop.onnx.files import MOST_AXES, OnnxFile, Operation
from mtorch.layer import Layer
from mtorch.layers import GetItem
from mtorch.parameter import Buffer, Parameter

MOST_FOLDED = 2**26  # bytes that constants may take beyond four times the file
DEEPEST = 40  # operations on a parameter that are kept as nodes
PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

Shape = tuple[int | None, ...] | None


class Unsupported(Exception):
    """Why a node cannot be computed."""


@dataclass
class Known:
    """A value that the file tells: an initializer, a Constant, or what nodes make of them."""

    array: numpy.ndarray
    name: str = ""  # of the initializer
    origins: frozenset[str] = frozenset()  # the trainable initializers that it is made of
    node: Operation | None = None  # that makes it, and which of its outputs it is
    place: int = 0
    depth: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim


@dataclass
class Live:
    """A value that depends on the input: the name of a node of the graph or of an input, and what is known of it."""

    name: str
    shape: Shape = None
    kind: str = "f"  # of its dtype: "f", "i" or "b"
    parts: tuple["Live", ...] = ()  # of a comparison that waits for its Where
    steps: "Live | None" = None  # of a recurrent layer's Y (T, directions, N, H): the same as (T, N, directions H)
    rows: "Live | None" = None  # the same for (T, N, directions, H)

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)


@dataclass
class Sizes:
    """Integers that are sizes of values at run time: for each a number, or (value, axis). A scalar has rank 0."""

    entries: tuple[Any, ...]
    rank: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.entries),) * self.rank


@dataclass
class Lost:
    """What a node would have given that cannot be computed."""


class Reader:
    """Reads node after node. `nodes` and `paths` are what a Graph takes, `values` what each name stands for."""

    def __init__(self, file: OnnxFile):
        self.file, self.opset = file, file.opset
        floats = [kind for kind, _ in file.inputs.values() if kind.startswith("float")]
        floats += [array.dtype.name for array in file.constants.values() if array.dtype.kind == "f"]
        self.dtype = numpy.dtype(floats[0] if floats else "float64")
        self.nodes: dict[str, Any] = {}
        self.paths: dict[str, Layer] = {}
        self.refused: list[tuple[Operation, str]] = []
        self.values: dict[str, Any] = {}
        self.parameters: dict[str, Parameter] = {}
        self.layers: dict[Any, Layer] = {}
        self.biased: set[int] = set()  # the sums whose bias a Linear before them has
        self._made: dict[int, tuple[Any, ...]] = {}  # nodes over parameters, by operation
        self._sources: dict[str, str] = {}
        self._taken: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._folded = 0
        for name, (kind, shape) in file.inputs.items():
            letter = "b" if kind == "bool" else "f" if kind.startswith("float") else "i"
            self.values[name] = Live(self.unique(name if PLAIN.fullmatch(name) else "input"), shape, letter)
        for name, array in file.constants.items():
            trains = array.dtype.kind == "f" and (array.ndim > 0 or file.is_ours)
            self.values[name] = Known(array, name, frozenset({name}) if trains else frozenset())
        needed = set(file.outputs)
        self._needed: set[int] = set()
        for number in reversed(range(len(file.nodes))):
            if needed & set(file.nodes[number].outputs):
                self._needed.add(number)
                needed.update(file.nodes[number].inputs)
        reads = [(name, file.nodes[i]) for i in self._needed for name in file.nodes[i].inputs if name]
        self.uses = Counter([*(name for name, _ in reads), *file.outputs])
        self.last_reader = dict(reads)  # where there is but one, it is that one

    # ------------------------------------------------------------------ all nodes

    def read_all(self) -> None:
        """Reads the nodes that the outputs need."""
        for number, node in enumerate(self.file.nodes):
            if number in self._needed:
                values = self.read(node)
                for i, name in enumerate(node.outputs):
                    value = values[i] if i < len(values) else None
                    if value is None and self.uses[name] and name:
                        self.refused.append((node, f"its output {i} is not computed"))
                    if name:
                        self.values[name] = Lost() if value is None else value

    def read(self, node: Operation) -> tuple[Any, ...]:
        """The values of the node's outputs."""
        from mtorch.interop.onnx.readers import READERS
        from mtorch.interop.onnx.readers.folding import fold
        from mtorch.interop.onnx.readers.sizes import SIZED

        inputs = self.inputs(node)
        try:
            reader = READERS.get(node.operator)
            if any(isinstance(value, Lost) for value in inputs):
                if reader is None:
                    raise Unsupported("mtorch has no such operator")
                return (Lost(),) * len(node.outputs)
            if all(value is None or isinstance(value, Known) for value in inputs):
                arrays = fold(self, node, inputs)
                if arrays is not None:
                    known = [value for value in inputs if value is not None]
                    origins = frozenset().union(*(value.origins for value in known)) if known else frozenset()
                    depth = 1 + max((value.depth for value in known), default=0)
                    return tuple(Known(a, "", origins, node, i, depth) for i, a in enumerate(arrays))
            if any(isinstance(value, Sizes) for value in inputs):
                reader = SIZED.get(node.operator, reader)
            if reader is None:
                raise Unsupported("mtorch has no such operator")
            result = reader(self, node)
        except Unsupported as why:
            self.refused.append((node, str(why)))
            return (Lost(),) * len(node.outputs)
        except OnnxError:
            raise
        except Exception as error:  # what a file may say is without end
            raise OnnxError(f"{node} cannot be read: {type(error).__name__}: {str(error)[:300]!a}") from error
        return result if isinstance(result, tuple) else (result,)

    def inputs(self, node: Operation) -> list[Any]:
        return [self.values[name] if name else None for name in node.inputs]

    def budget(self, count: int, itemsize: int) -> None:
        """Takes note that a constant of that many entries is made; OnnxError beyond what a file of that size may."""
        self._folded += count * itemsize
        if self._folded > MOST_FOLDED + 4 * self.file.size:
            raise OnnxError(f"its constants take more than {MOST_FOLDED} bytes beyond what the file holds")

    # ------------------------------------------------------------------ what a node reads

    def value(self, node: Operation, i: int) -> Any:
        """Input i as Known or Live; None where it is left out."""
        return self.values[node.inputs[i]] if i < len(node.inputs) and node.inputs[i] else None

    def needs(self, node: Operation, i: int) -> Any:
        """Input i, which must be there."""
        value = self.value(node, i)
        if value is None:
            raise OnnxError(f"{node} has no input {i}")
        return value

    def known(self, node: Operation, i: int) -> numpy.ndarray | None:
        """Input i as an array; Unsupported where it depends on the model's input."""
        value = self.value(node, i)
        if isinstance(value, Live | Sizes):
            raise Unsupported(f"its input {i} is known at run time only")
        return None if value is None else value.array

    def numbers(self, node: Operation, i: int, name: str = "", most: int = 64) -> tuple[int, ...] | None:
        """Integers that are input i, or in older opsets the attribute of that name."""
        if name and name in node.attributes:
            return node.ints(name)
        array = self.known(node, i)
        if array is None:
            return None
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > most:
            raise OnnxError(f"{node} expected integers as input {i}, got {array.dtype} {array.shape}")
        return tuple(array.reshape(-1).tolist())

    def rank(self, node: Operation, i: int = 0) -> int:
        """The number of axes of input i; Unsupported where the file does not tell."""
        rank = self.needs(node, i).rank
        if rank is None:
            raise Unsupported("the number of axes of its input is not known")
        return rank

    def axis(self, node: Operation, axis: int, rank: int | None) -> int:
        """The axis counted from the front where the number of axes is known, else as it is."""
        if rank is None:
            if abs(axis) > MOST_AXES:
                raise OnnxError(f"{node} has the axis {axis}")
            return axis
        if not -rank <= axis < max(rank, 1):
            raise OnnxError(f"{node} expected an axis of {rank}, got {axis}")
        return axis % rank if rank else axis

    # ------------------------------------------------------------------ the graph

    def unique(self, wish: str) -> str:
        """A name of the graph that is not taken."""
        name = wish
        while name in self._taken:
            self._numbers[wish] += 1
            name = f"{wish}{self._numbers[wish]}"
        self._taken.add(name)
        return name

    def add(self, layer: Layer, *operands: Any, shape: Shape = None, kind: str = "f") -> Live:
        """A node of the graph: the layer on one operand, or on a tuple of several."""
        found = tuple(self.operand(each) for each in operands)
        name = self.unique(type(layer).__name__.removeprefix("Onnx").lower())
        self.nodes[name] = (layer, found[0] if len(found) == 1 else found)
        return Live(name, shape, kind)

    def part(self, value: Live, position: int, shape: Shape = None) -> Live:
        """One value of a tuple."""
        return self.add(GetItem(position, dtype=self.dtype), value, shape=shape)

    def operand(self, value: Any) -> Any:
        """What a node of the graph reads: a name, a parameter's name, or an array."""
        if isinstance(value, Lost):
            raise Unsupported("it reads what cannot be computed")
        if isinstance(value, Sizes):
            raise Unsupported("it computes with sizes that are known at run time only")
        if isinstance(value, Live):
            if value.parts:
                raise Unsupported("a comparison that no Where reads")
            return value.name
        if not isinstance(value, Known):
            return value
        if not value.origins or value.depth > DEEPEST:
            self.budget(value.array.size, 2 * value.array.itemsize)
            return value.array
        if value.node is None:
            return self.source(value)
        return self.over_parameters(value)

    def source(self, value: Known) -> str:
        """The name of the parameter of the graph that an initializer is."""
        if value.name not in self._sources:
            if value.name in self.parameters:  # that of a layer
                found = self.parameters[value.name]
            else:
                found = self.parameters[value.name] = Parameter(value.array.astype(self.dtype))
            name = self.unique(value.name if PLAIN.fullmatch(value.name) else "parameter")
            self.nodes[name] = found
            self._sources[value.name] = name
        return self._sources[value.name]

    def over_parameters(self, value: Known) -> Any:
        """The name of a node that computes it from parameters, so that they are trained."""
        from mtorch.interop.onnx.readers import READERS

        node = value.node
        if node is None or node.operator not in READERS:
            return value.array
        if id(node) not in self._made:
            made = READERS[node.operator](self, node)
            self._made[id(node)] = made if isinstance(made, tuple) else (made,)
        return self.operand(self._made[id(node)][value.place])

    def hold(self, layer: Layer, **values: Known | None) -> Layer:
        """The layer with these values in its parameters and buffers, and, for its names, where they come from."""
        prefixes = set()
        for attribute, value in values.items():
            if value is None:
                continue
            self.budget(value.array.size, value.array.itemsize)
            item = getattr(layer, attribute)
            if item is None or value.array.shape != item.value.shape:
                wanted = "none" if item is None else item.value.shape
                raise OnnxError(f"{layer!r} expected {attribute} of shape {wanted}, got {value.array.shape}")
            if isinstance(item, Buffer):
                item.value = value.array.astype(item.value.dtype)
            elif value.name in self.parameters:
                setattr(layer, attribute, self.parameters[value.name])
            else:
                item.value[...] = value.array
                item.trainable = bool(value.origins)
                if value.name:
                    self.parameters[value.name] = item
            prefixes |= {_prefix(name, attribute) for name in value.origins}
        prefixes -= self.paths.keys()  # a weight that two layers share has its path from the first
        if len(prefixes) == 1:
            self.call(layer, prefixes.pop())
        return layer

    def call(self, layer: Layer, path: str | None) -> None:
        """Lets the layer have that path in the state dict, if it is free."""
        if path and path not in self.paths and PLAIN.fullmatch(path):
            self.paths[path] = layer

    def cached(self, key: Any, make: Any) -> Layer:
        """The layer that was made for that key: nodes that share all initializers share their layer."""
        if key not in self.layers:
            self.layers[key] = make()
        return self.layers[key]

    # ------------------------------------------------------------------ the end

    def output(self, name: str) -> str:
        """The name in the graph of an output."""
        value = self.values[name]
        if not isinstance(value, Live):
            raise OnnxError(f"the output {quoted(name)} does not depend on the input")
        return str(self.operand(value))

    def used(self, outputs: list[str]) -> set[str]:
        """The names of the nodes and inputs that the outputs need."""
        used, stack = set(), list(outputs)
        while stack:
            name = stack.pop()
            if name in used:
                continue
            used.add(name)
            entry = self.nodes.get(name)
            if isinstance(entry, tuple):
                operand = entry[1] if isinstance(entry[1], tuple) else (entry[1],)
                stack.extend(_names(operand))
        return used


def _names(operand: tuple[Any, ...]) -> list[str]:
    found: list[str] = []
    for each in operand:
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, tuple):
            found.extend(_names(each))
    return found


def _prefix(name: str, attribute: str) -> str:
    """The path of the layer whose parameter has that dotted name: `0` of `0.weight`."""
    before, _, last = name.rpartition(".")
    return before if before and (last == attribute or last.startswith(attribute[:6])) else f"?{name}"


def names(*values: Known | None) -> tuple:
    """What tells these values from others, as a part of a key; what has no name is like nothing else."""
    return tuple(None if value is None else value.name or object() for value in values)
