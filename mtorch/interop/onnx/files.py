"""Reads ONNX files that nobody has vouched for: sizes, names, order and kinds are checked before anything is made."""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from mtorch.interop.onnx.errors import OnnxError, onnx_package, quoted

MOST_BYTES = 2**31  # of a file, which is protobuf's own limit, and of all external data together
MOST_NODES = 50_000
MOST_AXES = 32
MOST_NAME = 1000

FLOAT, INT, STRING, TENSOR, FLOATS, INTS, STRINGS = 1, 2, 3, 4, 6, 7, 8  # of AttributeProto.AttributeType
EXTERNAL = 1  # of TensorProto.DataLocation
KINDS = {  # by TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
FIELDS = {
    "float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint32": "uint64_data",
    "uint64": "uint64_data",
}  # fmt: skip


class Operation(NamedTuple):
    """One node as plain Python."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"{quoted(self.operator)[1:-1]} ({quoted(self.name or ', '.join(filter(None, self.outputs[:1])))})"

    def option(self, name: str, kind: type, default: Any = None) -> Any:
        """An attribute of that kind; OnnxError for another one."""
        if name not in self.attributes:
            return default
        value = self.attributes[name]
        if type(value) is not kind:
            raise OnnxError(f"{self}: expected {name} to be {kind.__name__}, got {quoted(type(value).__name__)}")
        return value

    def ints(self, name: str, default: Any = None, most: int = MOST_AXES * 2) -> Any:
        """An attribute of integers, as a tuple."""
        value = self.option(name, tuple, default)
        if value is not default and (len(value) > most or not all(type(n) is int for n in value)):
            raise OnnxError(f"{self}: expected {name} to be at most {most} integers")
        return value


class Unknown:
    """An attribute of a kind that no operator here has: a graph, a type."""


class OnnxFile(NamedTuple):
    """A model as plain Python: the nodes in an order in which they can run."""

    title: str  # what errors call it
    opset: int
    is_ours: bool
    inputs: dict[str, tuple[str, tuple[int | None, ...] | None]]  # name -> dtype, sizes (None: unknown)
    outputs: tuple[str, ...]
    constants: dict[str, numpy.ndarray]
    nodes: tuple[Operation, ...]
    size: int  # bytes


def read_onnx(source: Any) -> OnnxFile:
    """The model of a path, of the bytes of a file, or of a ModelProto."""
    onnx = onnx_package()
    folder, title = None, "the model"
    if isinstance(source, onnx.ModelProto):
        model, size = source, source.ByteSize()
    else:
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        else:
            if not isinstance(source, str | os.PathLike):
                raise TypeError(f"import_onnx expected a path, bytes or a ModelProto, got {type(source).__name__}")
            path = Path(source)
            folder, title = path.parent, quoted(path.name)[1:-1]
            data = _read(path, title)
        if len(data) > MOST_BYTES:
            raise OnnxError(f"{title} is larger than {MOST_BYTES} bytes")
        model, size = onnx.ModelProto(), len(data)
        try:
            model.ParseFromString(data)
        except Exception as error:  # protobuf's own errors, which are of no common type
            raise OnnxError(f"{title} is no ONNX model: {quoted(error)}") from None
    try:
        return _Reader(model, folder, title, size).file()
    except OnnxError as error:
        raise OnnxError(f"{title}: {error}") from None


def _read(path: Path, title: str) -> bytes:
    if path.exists() and not path.is_file():  # a folder, a pipe, a device without an end
        raise OnnxError(f"{title} is no file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OnnxError(f"{title} is larger than {MOST_BYTES} bytes")
        return file.read()


class _Reader:
    def __init__(self, model: Any, folder: Path | None, title: str, size: int):
        self.model, self.folder, self.title, self.size = model, folder, title, size
        self.external = 0  # bytes read from other files so far

    def file(self) -> OnnxFile:
        graph = self.model.graph
        if len(graph.node) > MOST_NODES:
            raise OnnxError(f"{len(graph.node)} nodes, expected at most {MOST_NODES}")
        if len(self.model.functions):
            raise OnnxError("functions of the model's own are not supported")
        if len(graph.sparse_initializer):
            raise OnnxError("sparse initializers are not supported")
        constants: dict[str, numpy.ndarray] = {}
        for tensor in graph.initializer:
            name = _name(tensor.name, "an initializer")
            if name in constants:
                raise OnnxError(f"two initializers are called {quoted(name)}")
            constants[name] = self.tensor(tensor, name)
        inputs: dict[str, Any] = {}
        for value in graph.input:
            name = _name(value.name, "an input")
            if name in inputs:
                raise OnnxError(f"two inputs are called {quoted(name)}")
            inputs[name] = _type_of(value, name)
        given = {name: kind for name, kind in inputs.items() if name not in constants}
        defined = {*inputs, *constants}
        nodes = tuple(self.operation(node) for node in graph.node)
        for node in nodes:
            for name in node.inputs:
                if name and name not in defined:
                    raise OnnxError(f"{node} reads {quoted(name)}, which is not defined above it")
            for name in filter(None, node.outputs):
                if name in defined:
                    raise OnnxError(f"{node} defines {quoted(name)} once more")
                defined.add(name)
        outputs = tuple(_name(value.name, "an output") for value in graph.output)
        if not outputs or not given:
            raise OnnxError(f"expected inputs and outputs, got {len(given)} and {len(outputs)}")
        for name in outputs:
            if name not in defined:
                raise OnnxError(f"the output {quoted(name)} is defined nowhere")
        is_ours = self.model.producer_name == "mtorch"
        return OnnxFile(self.title, self.opset(), is_ours, given, outputs, constants, nodes, self.size + self.external)

    def opset(self) -> int:
        for each in self.model.opset_import:
            if each.domain in ("", "ai.onnx"):
                if not 1 <= each.version < 1000:
                    raise OnnxError(f"expected an opset version, got {each.version}")
                return each.version
        return 1

    def operation(self, node: Any) -> Operation:
        """The node with its attributes as Python values; the operators of another domain have its name in front."""
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        inputs, outputs = (tuple(each[:MOST_NAME] for each in names) for names in (node.input, node.output))
        operation = Operation(operator, node.name, inputs, outputs, {})
        for attribute in node.attribute:
            if attribute.name in operation.attributes:
                raise OnnxError(f"{operation} has two attributes {quoted(attribute.name)}")
            operation.attributes[attribute.name] = self.attribute(attribute, operation)
        return operation

    def attribute(self, attribute: Any, operation: Operation) -> Any:
        """The value of an attribute as numbers, texts or an array."""
        kind = attribute.type
        if kind == FLOAT:
            return float(str(numpy.float32(attribute.f)))  # 0.1 for the float32 next to it
        if kind == INT:
            return int(attribute.i)
        if kind == STRING:
            return bytes(attribute.s).decode("utf-8", "replace")
        if kind == TENSOR:
            return self.tensor(attribute.t, f"{operation}")
        if kind == FLOATS:
            return tuple(attribute.floats)
        if kind == INTS:
            return tuple(attribute.ints)
        if kind == STRINGS:
            return tuple(bytes(each).decode("utf-8", "replace") for each in attribute.strings)
        return Unknown()

    def tensor(self, tensor: Any, name: str) -> numpy.ndarray:
        """The array; OnnxError unless it has as many bytes as its sizes announce."""
        kind, shape = KINDS.get(tensor.data_type), tuple(tensor.dims)
        if kind is None:
            raise OnnxError(f"{quoted(name)} has the data type {tensor.data_type}, which is not supported")
        count = _count(shape, name)
        dtype = numpy.dtype(kind).newbyteorder("<")
        if tensor.data_location == EXTERNAL:
            data = self.external_bytes(tensor, name, count * dtype.itemsize)
        elif tensor.HasField("raw_data"):
            data = tensor.raw_data
        else:
            return self.typed(tensor, kind, shape, count, name)
        if len(data) != count * dtype.itemsize:
            wanted = f"{count * dtype.itemsize} bytes for {_text(shape)} {kind}"
            raise OnnxError(f"{quoted(name)}: expected {wanted}, got {len(data)}")
        array = numpy.frombuffer(data, "uint8" if kind == "bool" else dtype)
        array = array != 0 if kind == "bool" else array.astype(kind)
        return array.reshape(shape)

    def typed(self, tensor: Any, kind: str, shape: tuple, count: int, name: str) -> numpy.ndarray:
        field = getattr(tensor, FIELDS.get(kind, "int32_data"))
        if len(field) != count:
            raise OnnxError(f"{quoted(name)}: expected {count} entries for {_text(shape)}, got {len(field)}")
        if kind == "float16":  # its bits, as integers
            return numpy.array(field, "int64").astype("uint16").view("float16").reshape(shape)
        wide = numpy.array(field, "float64" if kind.startswith("float") else "uint64" if kind == "uint64" else "int64")
        with numpy.errstate(all="ignore"):
            return wide.astype(kind).reshape(shape)

    def external_bytes(self, tensor: Any, name: str, wanted: int) -> bytes:
        """What another file of the model's folder holds for this tensor."""
        entries = {each.key: each.value for each in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise OnnxError(f"{quoted(name)} is in another file, which only a path can lead to")
        parts = Path(location).parts
        bad = not parts or Path(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location
        if bad or ":" in location:
            raise OnnxError(f"{quoted(name)} is in {quoted(location)}, which is no path below the model's folder")
        try:
            offset, length = (int(entries.get(key) or default) for key, default in (("offset", 0), ("length", wanted)))
        except ValueError:
            raise OnnxError(f"{quoted(name)} expected an offset and a length in bytes") from None
        if offset < 0 or length != wanted or self.external + wanted > MOST_BYTES:
            raise OnnxError(f"{quoted(name)} expected {wanted} bytes of {quoted(location)}, got {length} at {offset}")
        path = self.folder / location
        inside = Path(os.path.realpath(path)) == Path(os.path.realpath(self.folder)) / location
        if not inside or not path.is_file():
            raise OnnxError(f"{quoted(name)} is in {quoted(location)}, which is no file in the model's folder")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset + wanted:
                raise OnnxError(
                    f"{quoted(name)} expected {wanted} bytes at {offset} of {quoted(location)}, which is shorter"
                )
            file.seek(offset)
            self.external += wanted
            return file.read(wanted)


def _name(name: str, what: str) -> str:
    if not name or len(name) > MOST_NAME:
        raise OnnxError(f"{what} has no name" if not name else f"{what} has a name of {len(name)} characters")
    return name


def _count(shape: tuple[int, ...], name: str) -> int:
    if len(shape) > MOST_AXES or any(n < 0 or n >= 2**40 for n in shape):
        raise OnnxError(f"{quoted(name)} has the shape {_text(shape)}")
    return math.prod(shape)


def _text(shape: tuple[int, ...]) -> str:
    return quoted(shape)[1:-1]


def _type_of(value: Any, name: str) -> tuple[str, tuple[int | None, ...] | None]:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise OnnxError(f"the input {quoted(name)} is no tensor")
    dtype = KINDS.get(kind.elem_type)
    if dtype is None:
        raise OnnxError(f"the input {quoted(name)} has the data type {kind.elem_type}, which is not supported")
    if not kind.HasField("shape"):
        return dtype, None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    _count(tuple(n for n in sizes if n is not None), name)
    return dtype, tuple(sizes)
