"""One value out of a tuple."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Value, shape_value
from mtorch.checks import check_integer
from mtorch.errors import ShapeMismatchError
from mtorch.guards import signature
from mtorch.layer import Layer


def completed(xp: ModuleType, grad: Value, signature: Any) -> Value:
    """The gradient with zeros where a float part of a value of this `signature` has none. They take no memory: nobody
    writes into them.
    """
    if isinstance(signature, list):
        parts = grad if isinstance(grad, tuple) else (None,) * len(signature)
        return tuple(completed(xp, g, part) for g, part in zip(parts, signature, strict=True))
    if grad is not None or signature is None or signature[1].kind != "f":
        return grad
    return xp.broadcast_to(xp.zeros((), signature[1]), signature[0])


class GetItem(Layer):
    """y = x_i, the value at one position of a tuple: what `Fork`, `Split` or a layer with `return_state` returns.

    Shapes: a tuple of at least i + 1 values -> the value at position i (negative: from the end).

    Backward: x_i gets g = output_grad, the other parts do not move y and get zeros (None where they hold integers).
    """

    takes = "any"
    moves_data = True

    def __init__(self, position: int, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.position = check_integer("GetItem", "position", position)

    def forward(self, x: tuple[Value, ...]) -> Value:
        if x.__class__ is not tuple or not -len(x) <= self.position < len(x):
            text = f"expected a tuple with an entry at position {self.position}, got {shape_value(x)}"
            raise ShapeMismatchError(self, text)
        self.remember(signature(x))
        return x[self.position]

    def backward(self, output_grad: Value) -> tuple[Value, ...]:
        g = self.cast_grad(output_grad)
        parts = self.recall()
        return completed(self.xp, self.placed(g, len(parts)), parts)

    def placed(self, output_grad: Value, count: int) -> tuple[Value, ...]:
        """The gradient at its position among None."""
        grads: list[Value] = [None] * count
        grads[self.position] = output_grad
        return tuple(grads)

    def details(self) -> str:
        return str(self.position)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(0, xp=xp, dtype=dtype), ((4, 3), (2,))
        yield cls(-1, xp=xp, dtype=dtype), ((4, 3), (1, 5), ((2, 3), (2,)))
        yield cls(1, xp=xp, dtype=dtype), lambda xp, rng: (xp.asarray([1, 2]), xp.asarray(rng.standard_normal((2, 3))))
