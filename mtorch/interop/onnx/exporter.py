"""A net as an ONNX file."""

import os
from typing import Any

import numpy

from mtorch import arrays
from mtorch.interop.onnx.axes import Axes, free_axes
from mtorch.interop.onnx.builder import Symbol
from mtorch.interop.onnx.errors import OnnxError, onnx_package
from mtorch.interop.onnx.written import Written
from mtorch.layer import Layer
from mtorch.losses.base import LossFunction

OPSET = 21  # the first with a GroupNormalization that has a weight for each channel
IR_VERSION = 10
MOST_BYTES = 2**31 - 2**24  # of parameters: protobuf ends at 2 GB


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
    written = Written(net, x)
    free = free_axes(net, x, written)
    model = _model(onnx, written, free)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    from mtorch.checkpoint import write_atomically

    write_atomically(path, lambda file: file.write(data))


def _on_host(leaf: Any) -> Any:
    return arrays.as_numpy(leaf) if arrays.array_module(leaf) else leaf


Free = list[tuple[str, Axes, list[Any]]]  # what `free_axes` finds


def _model(onnx: Any, written: Written, free: Free) -> Any:
    """The ModelProto."""
    helper, builder = onnx.helper, written.builder
    inputs = [_value_info(helper, each, _input_dims(written, free, i)) for i, each in enumerate(written.inputs)]
    outputs = [_value_info(helper, each, _output_dims(written, free, i)) for i, each in enumerate(written.outputs)]
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


def _size(written: Written, axes: Axes) -> int:
    """How many entries the first input of a group has along its axis."""
    return next(each.shape[axis] for each, axis in zip(written.inputs, axes, strict=True) if axis is not None)


def _input_dims(written: Written, free: Free, i: int) -> list[Any]:
    """The name of each axis that is free, and the size of each other one."""
    symbol = written.inputs[i]
    dims: list[Any] = list(symbol.shape)
    for name, axes, _ in free:
        axis = axes[i]
        if axis is not None:
            dims[axis] = name if symbol.shape[axis] == _size(written, axes) else f"{name}_{symbol.name}"
    return dims


def _output_dims(written: Written, free: Free, i: int) -> list[Any]:
    """The same for an output; None for an axis whose size follows from a free one in some other way."""
    symbol = written.outputs[i]
    dims: list[Any] = list(symbol.shape)
    for axis, n in enumerate(symbol.shape):
        groups = [(name, axes) for name, axes, shapes in free if shapes[i][axis] != n]
        if groups:
            name, axes = groups[0]
            dims[axis] = name if len(groups) == 1 and n == _size(written, axes) else None
    return dims


def _value_info(helper: Any, symbol: Symbol, dims: list[Any]) -> Any:
    return helper.make_tensor_value_info(symbol.name, helper.np_dtype_to_tensor_dtype(symbol.example.dtype), dims)
