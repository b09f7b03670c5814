"""An ONNX file as a net that can be trained further."""

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy

from mtorch.graph.graph import Graph
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import OnnxFile, read_onnx
from mtorch.interop.onnx.reader import Live, Reader
from mtorch.layers import Identity
from mtorch.parameter import Buffer, Parameter

MOST_SHOWN = 20  # nodes that an error lists


def import_onnx(source: str | os.PathLike | bytes | Any, *, xp: ModuleType = numpy) -> Graph:
    """A `Graph` that computes what the ONNX model does, from its path, the bytes of its file, or a ModelProto.

    Its inputs are those of the model, in order; those that no output needs are left out. Initializers of floats become
    parameters, those of a Linear, Conv, norm, recurrent or Embedding layer where the nodes say one, else parameters of
    the graph itself. `Constant` nodes, and initializers that are one number, stay as they are. Where the names of the
    initializers are dotted (`0.weight`), the state dict has them again. Integers are computed with in the net's dtype,
    which is that of the first float input, else of the initializers, else float64.

    Errors: OnnxError, a ValueError, for a file that is no sound model, and for one with nodes that mtorch cannot
    compute, all of which it names. Nothing in a file is run or imported, external data must lie in the file's folder,
    and no tensor takes memory that its bytes do not fill.
    """
    file = read_onnx(source)
    try:
        net = _graph(file)
    except OnnxError as error:
        raise OnnxError(f"{file.title}: {error}") from None
    except Exception as error:  # what a file may say is without end
        text = f"{file.title}: the nodes do not fit each other: {type(error).__name__}: {str(error)[:300]!a}"
        raise OnnxError(text) from error
    return net if xp is numpy else net.to(xp=xp)


def _graph(file: OnnxFile) -> Graph:
    reader = Reader(file)
    with numpy.errstate(all="ignore"):
        reader.read_all()
    if reader.refused:
        lines = [f"{node}: {why}" for node, why in reader.refused[:MOST_SHOWN]]
        more = f"; and {len(reader.refused) - MOST_SHOWN} more" if len(reader.refused) > MOST_SHOWN else ""
        count = len(reader.refused)
        raise OnnxError(f"{count} node{'s' * (count > 1)} cannot be computed: {'; '.join(lines)}{more}")
    outputs = [reader.output(name) for name in file.outputs]
    if not any(isinstance(reader.nodes.get(name), tuple) for name in reader.used(outputs)):
        outputs[0] = reader.add(Identity(dtype=reader.dtype), Live(outputs[0])).name
    used = reader.used(outputs)
    inputs = tuple(reader.values[name].name for name in file.inputs if reader.values[name].name in used)
    if not inputs:
        raise OnnxError("its outputs depend on no input")
    nodes = {name: entry for name, entry in reader.nodes.items() if name in used}
    standing = {id(entry[0]) for entry in nodes.values() if isinstance(entry, tuple)}
    order = _first_places(file.constants)
    paths = sorted(reader.paths, key=lambda path: order.get(path, len(file.constants)))
    named: dict[str, Any] = {path: reader.paths[path] for path in paths if id(reader.paths[path]) in standing}
    result = outputs[0] if len(outputs) == 1 else tuple(outputs)
    for names in (named, {}):
        net = Graph(inputs, nodes, result, dtype=reader.dtype, named=names or None)
        below = [(p, item) for prefix, layer in net.walk() for p, item in _items(prefix, layer)]
        if len({p for p, _ in below}) == len(below):
            break
    return net


def _first_places(constants: Iterable[str]) -> dict[str, int]:
    """For each path the place of the first initializer below it."""
    places: dict[str, int] = {}
    for place, name in enumerate(constants):
        places.setdefault(name.rpartition(".")[0], place)
    return places


def _items(prefix: str, layer: Any) -> list[tuple[str, Any]]:
    return [(prefix + name, item) for name, item in layer.own(Parameter | Buffer)]
