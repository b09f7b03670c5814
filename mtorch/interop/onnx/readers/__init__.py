"""How each ONNX operator is read: one function for each, in one table by family.

`reader(r, node)` adds nodes to the graph of the `Reader` r and returns what the node gives, or a tuple of it. It raises
`Unsupported` with the reason where mtorch cannot compute the node.
"""

from typing import Any

from mtorch.interop.onnx.readers import attention, elementwise, images, losses, norms, sequences, shapes

READERS: dict[str, Any] = {}
for _family in (elementwise, shapes, images, norms, sequences, attention, losses):
    READERS.update(_family.READERS)
