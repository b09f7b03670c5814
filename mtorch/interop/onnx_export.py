"""A net as an ONNX file."""

import os
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import numpy

from mtorch import arrays, guards
from mtorch.interop.onnx_builder import Builder, Node, Symbol
from mtorch.interop.onnx_errors import OnnxError, onnx_package
from mtorch.layer import Layer
from mtorch.losses.base import LossFunction

OPSET = 21  # the first with a GroupNormalization that has a weight for each channel
IR_VERSION = 10
MOST_BYTES = 2**31 - 2**24  # of parameters: protobuf ends at 2 GB
MOST_TRIALS = 128  # of groups of axes that may be free together
MOST_OF_A_SIZE = 256


def export_onnx(module: Layer, path: str | os.PathLike, example_input: Any) -> None:
    """Writes what `module.predict` computes as an ONNX file of opset 21.

    example_input: what the module takes, as predict takes it (a tuple for several values, with None where one is left
        out). Its shapes and kinds are those of the file's inputs; of its values nothing is kept.

    Every axis whose size changes nothing in the graph is free: that of the batch (axis 1 of sequences that are
    time-major) is called `batch`, and the number of steps is free too, but for `Recurrent` with a cell of one's own,
    which is unrolled. The size of an image is fixed by `Upsample` (but for "nearest" by whole factors), by
    `AdaptiveAvgPool2d` to more than one bin and by `AvgPool` with `ceil_mode`. `docs/interop.md` has the table.

    Parameters and buffers become initializers with the names of the state dict; other constants are Constant nodes.
    Layers are written as in eval mode, so Dropout is nothing and BatchNorm reads its running statistics. Not kept:
    which parameters are trainable, `num_batches_tracked`, `padding_idx`, and Dropout.

    Errors: OnnxError, which names the layer, for layers with a forward of their own (a `Module` whose forward is a
    formula can be written), for a mask in another dtype than the net's, and for nets in another dtype than float32 and
    float64; TypeError for losses, which are not exported. The path keeps what it had when something fails.
    """
    onnx = onnx_package()
    if isinstance(module, LossFunction):
        raise TypeError(f"export_onnx writes layers; a loss is not exported, got {module!r}")
    if not isinstance(module, Layer):
        raise TypeError(f"export_onnx expected a layer or a Module, got {type(module).__name__}")
    net = module.core()
    if net.dtype not in ("float32", "float64"):
        raise OnnxError(
            f"export_onnx writes float32 and float64, got a net in {net.dtype}: use net.to(dtype='float32')"
        )
    items: list[Any] = [*net.parameters().values(), *net.buffers().values()]
    if sum(item.value.nbytes for item in items) > MOST_BYTES:
        raise OnnxError(f"{net!r} cannot be written to ONNX: its parameters take more than {MOST_BYTES} bytes")
    if net.xp is not numpy:
        net, example_input = net.to(xp=numpy), arrays.map_value(_on_host, example_input)
    x = net.cast_input(example_input)
    written = _Written(net, x)
    free = _free_axes(net, x, written)
    model = _model(onnx, written, free)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    from mtorch.checkpoint import write_atomically

    write_atomically(path, lambda file: file.write(data))


def _on_host(leaf: Any) -> Any:
    return arrays.as_numpy(leaf) if arrays.array_module(leaf) else leaf


class _Written:
    """The nodes that a net is written as for one example."""

    def __init__(self, net: Layer, x: Any):
        from mtorch.interop.onnx_writers import writer_of

        self.x, self.builder = x, Builder(net, writer_of)
        self.inputs = list(_input_names(net, x, self.builder))
        symbols = iter(self.inputs)
        value = _named(x, symbols)
        expected = guards.predicted(net, x, guards.Pass())
        y = self.builder.write(net, value)
        self.outputs: list[Symbol] = []
        for leaf, example in zip(_leaves(y), _leaves(expected), strict=True):
            name = self.builder.name("output" if isinstance(y, Symbol) else f"output{len(self.outputs)}")
            self.builder.nodes.append(Node("Identity", (leaf.name,), (name,), {}))
            self.outputs.append(Symbol(name, example))

    def same_graph(self, other: "_Written") -> bool:
        """Whether both are the same nodes on the same constants."""
        mine, its = self.builder.constants, other.builder.constants
        return self.builder.nodes == other.builder.nodes and all(
            a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(mine.values(), its.values(), strict=True)
        )


def _leaves(value: Any) -> list[Any]:
    if type(value) is tuple:
        return [leaf for part in value for leaf in _leaves(part)]
    return [] if value is None else [value]


def _named(value: Any, symbols: Iterator[Symbol]) -> Any:
    if type(value) is tuple:
        return tuple(_named(part, symbols) for part in value)
    return None if value is None else next(symbols)


def _input_names(net: Layer, x: Any, builder: Builder) -> Iterator[Symbol]:
    """A symbol for each array of x: a Graph's own names, else x, or x0, x1, ..."""
    own = getattr(net, "inputs", ())
    parts = x if len(own) > 1 else (x,)
    single = len(_leaves(x)) == 1
    for i, part in enumerate(parts):
        for j, leaf in enumerate(_leaves(part)):
            wish = own[i] if own else "x"
            yield Symbol(builder.name(wish if single or (own and len(_leaves(part)) == 1) else f"{wish}{j}"), leaf)


# ---------------------------------------------------------------------- which axes are free

Axes = tuple[int | None, ...]  # for each input the axis that changes, None for none


def _free_axes(net: Layer, x: Any, written: _Written) -> list[tuple[str, Axes, list[Any]]]:
    """(name, axes, the output shapes with another size) of each group of input axes that may have any size.

    An axis is free where the net, written for an example of another size there, is the same graph.
    """
    leaves = _leaves(x)
    found: list[tuple[str, Axes, list[Any]]] = []
    used: set[tuple[int, int]] = set()
    for axes in islice(dict.fromkeys(_groups([leaf.shape for leaf in leaves])), MOST_TRIALS):
        here = {(i, axis) for i, axis in enumerate(axes) if axis is not None}
        if here & used:
            continue
        resized = _resized(net, x, axes, written)
        if resized is not None:
            used |= here
            is_batch = all(name != "batch" for name, _, _ in found) and _is_batch(net, x, axes, written, resized)
            first, axis = next((i, axis) for i, axis in enumerate(axes) if axis is not None)
            name = "batch" if is_batch else f"{written.inputs[first].name}_{axis}"
            found.append((name, axes, [symbol.shape for symbol in resized.outputs]))
    return found


def _groups(shapes: list[tuple[int, ...]]) -> Iterator[Axes]:
    """Axes that may be free together: one alone; those of one size, of all inputs that have it; with them multiples of
    it, as the rows of a mask for each head are; and those of some inputs only.
    """
    for i, shape in enumerate(shapes):
        for axis, n in enumerate(shape):
            if n:
                yield tuple(axis if k == i else None for k in range(len(shapes)))
    sizes = sorted({n for shape in shapes for n in shape if n})
    for several, partly in ((False, False), (True, False), (False, True)):
        for size in sizes:
            choices: list[list[int | None]] = []
            for shape in shapes:
                fitting: list[int | None] = [axis for axis, n in enumerate(shape) if n == size]
                if several and not fitting:
                    fitting = [axis for axis, n in enumerate(shape) if n and n % size == 0]
                choices.append(fitting + [None] if partly or not fitting else fitting)
            groups = islice(product(*choices), MOST_OF_A_SIZE)
            yield from sorted(
                (axes for axes in groups if sum(axis is not None for axis in axes) > 1),
                key=lambda axes: len({axis for axis in axes if axis is not None}),
            )


def _resized(net: Layer, x: Any, axes: Axes, written: _Written) -> _Written | None:
    """The net written for twice the size there, else for half of it; None where that is another graph.

    One entry is none to try with: it would be stretched where shapes broadcast.
    """
    leaves = _leaves(x)
    for factor in (2.0, 0.5):
        parts = []
        for leaf, axis in zip(leaves, axes, strict=True):
            n = 0 if axis is None else leaf.shape[axis]
            if axis is not None and (factor == 2 or n >= 4):
                leaf = leaf.take(numpy.arange(int(n * factor)) % n, axis=axis)
            parts.append(leaf)
        if all(a is b for a, b in zip(parts, leaves, strict=True)):
            return None
        try:
            other = _Written(net, net.cast_input(_refilled(x, iter(parts))))
        except Exception:  # the net takes no such input
            continue
        return other if other.same_graph(written) else None
    return None


def _refilled(value: Any, parts: Iterator[Any]) -> Any:
    if type(value) is tuple:
        return tuple(_refilled(part, parts) for part in value)
    return None if value is None else next(parts)


def _is_batch(net: Layer, x: Any, axes: Axes, written: _Written, resized: _Written) -> bool:
    """Whether samples lie along these axes, which do not see each other.

    Then with sample 1 in the place of sample 0 the outputs for all others are the same. A lone sample is repeated.
    """
    leaves = _leaves(x)
    count = min(leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None)
    parts = leaves
    if count > 1:
        parts = [
            leaf if axis is None else _second_first(leaf, axis, count) for leaf, axis in zip(leaves, axes, strict=True)
        ]
    other = _Written(net, _refilled(x, iter(parts))) if count > 1 else resized
    for one, two, longer in zip(written.outputs, other.outputs, resized.outputs, strict=True):
        changed = [i for i, (n, m) in enumerate(zip(one.shape, longer.shape, strict=False)) if n != m]
        if one.rank != longer.rank or len(changed) != 1 or one.shape[changed[0]] % count:
            return False
        if count > 1:
            wanted = _second_first(one.example, changed[0], count)
        else:
            wanted = numpy.concatenate([one.example, one.example], axis=changed[0])
        if wanted.shape != two.shape or not numpy.allclose(two.example, wanted, rtol=1e-4, atol=1e-5, equal_nan=True):
            return False
    return True


def _second_first(array: Any, axis: int, count: int) -> Any:
    """The array with sample 1 in the place of sample 0, of `count` samples along the axis."""
    block = array.shape[axis] // count
    places = numpy.arange(array.shape[axis])
    places[:block] += block
    return array.take(places, axis=axis)


# ---------------------------------------------------------------------- the file


def _model(onnx: Any, written: _Written, free: list[tuple[str, Axes, list[Any]]]) -> Any:
    """The ModelProto."""
    helper, builder = onnx.helper, written.builder
    inputs = []
    for i, symbol in enumerate(written.inputs):
        dims: list[Any] = list(symbol.shape)
        for name, axes, _ in free:
            if (axis := axes[i]) is not None:
                dims[axis] = name if _counts_alike(written, axes, i) else f"{name}_{symbol.name}"
        inputs.append(_value_info(helper, symbol, dims))
    outputs = []
    for i, symbol in enumerate(written.outputs):
        dims = list(symbol.shape)
        changes: dict[int, set[str]] = {}
        for name, _, shapes in free:
            for axis, size in enumerate(shapes[i]):
                if size != symbol.shape[axis]:
                    changes.setdefault(axis, set()).add(name)
        for axis, names in changes.items():
            dims[axis] = (
                next(iter(names)) if len(names) == 1 and _like_an_input(written, free, names, symbol, axis) else None
            )
        outputs.append(_value_info(helper, symbol, dims))
    nodes = [
        helper.make_node("Constant", [], [name], name=name, value=onnx.numpy_helper.from_array(value, name))
        for name, value in builder.constants.items()
    ]
    for node in builder.nodes:
        attributes = {key: list(value) if type(value) is tuple else value for key, value in node.attributes.items()}
        nodes.append(helper.make_node(node.operator, node.inputs, node.outputs, name=node.outputs[0], **attributes))
    initializers = [
        onnx.numpy_helper.from_array(numpy.ascontiguousarray(item.value).reshape(item.value.shape), name)
        for name, item in builder.in_order()
    ]
    graph = helper.make_graph(nodes, type(builder.net).__name__, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mtorch")


def _counts_alike(written: _Written, axes: Axes, i: int) -> bool:
    """Whether the axis of input i has as many entries as that of the first input of the group."""
    sizes = [symbol.shape[axis] for symbol, axis in zip(written.inputs, axes, strict=True) if axis is not None]
    return written.inputs[i].shape[axes[i] or 0] == sizes[0]


def _like_an_input(written: _Written, free: Any, names: set[str], symbol: Symbol, axis: int) -> bool:
    """Whether the output's axis has as many entries as the input's that has this name."""
    (name,) = names
    for own, axes, _ in free:
        if own == name:
            i = next(i for i, each in enumerate(axes) if each is not None)
            return written.inputs[i].shape[axes[i]] == symbol.shape[axis]
    return False


def _value_info(helper: Any, symbol: Symbol, dims: list[Any]) -> Any:
    return helper.make_tensor_value_info(symbol.name, helper.np_dtype_to_tensor_dtype(symbol.example.dtype), dims)
