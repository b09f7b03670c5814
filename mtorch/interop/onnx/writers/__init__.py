"""How each layer is written to ONNX: one function for each class, in one table by family.

`writer(b, layer, x)` adds nodes to the builder `b` and returns the name of what the layer returns, or a tuple of names.
`x` is a `Symbol`, or a tuple of them. A container returns the symbols that `b.write` gave for its layers.
"""

from typing import Any

from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.writers import attention, containers, elementwise, images, imported, norms, sequences, shapes
from mtorch.layer import Layer

WRITERS: dict[type[Layer], Any] = {}
for _family in (containers, elementwise, shapes, images, norms, sequences, attention, imported):
    WRITERS.update(_family.WRITERS)


def writer_of(layer: Layer) -> Any:
    """The function that writes the layer; OnnxError where there is none.

    A subclass is written like its base unless it has a forward of its own.
    """
    for kind in type(layer).__mro__:
        if kind in WRITERS:
            if type(layer).forward is kind.forward and "forward" not in vars(layer):
                return WRITERS[kind]
            break
    if type(layer).__name__ == "DataParallel":
        return lambda b, layer, x: b.write(layer.net, x)
    raise OnnxError(
        f"{layer!r} cannot be written to ONNX: {type(layer).__name__} has a forward that ONNX does not know. "
        f"Write it as a Module whose forward is a formula of layers"
    )
