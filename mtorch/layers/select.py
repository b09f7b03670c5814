"""One value out of a tuple."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value, shape_value
from mtorch.checks import check_integer
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


def outline(value: Value) -> Any:
    """What `completed` needs to know of a value: (shape, dtype) of each array, a list for a tuple, None for None."""
    if isinstance(value, tuple):
        return [outline(part) for part in value]
    return None if value is None else (value.shape, value.dtype)


def completed(xp: ModuleType, grad: Value, outlined: Any) -> Value:
    """The gradient with zeros where a float part of the outlined value has none. They take no memory: do not write."""
    if isinstance(outlined, list):
        parts = grad if isinstance(grad, tuple) else (None,) * len(outlined)
        return tuple(completed(xp, g, part) for g, part in zip(parts, outlined, strict=True))
    if grad is not None or outlined is None or outlined[1].kind != "f":
        return grad
    return xp.broadcast_to(xp.zeros((), outlined[1]), outlined[0])


class Select(Layer):
    """y = x_i, the value at one position of a tuple: what `Fork`, `Split` or a layer with `return_state` returns.

    Shapes: a tuple of at least i + 1 values -> the value at position i (negative: from the end).

    Backward: x_i gets output_grad, the other parts do not move y and get zeros (None where they hold integers).
    """

    moves_data = True

    def __init__(self, position: int, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.position = check_integer("Select", "position", position)

    def cast_input(self, x: Value) -> Value:
        """Floats in this layer's dtype; integers and masks keep their kind, because nothing is computed with them."""

        def admitted(leaf: Any) -> Array:
            array = arrays.as_numeric(self.xp, leaf, self)
            return arrays.as_float(self.xp, self.dtype, array, self) if array.dtype.kind == "f" else array

        return arrays.map_value(admitted, x)

    def forward(self, x: tuple[Value, ...]) -> Value:
        if x.__class__ is not tuple or not -len(x) <= self.position < len(x):
            text = f"expected a tuple with an entry at position {self.position}, got {shape_value(x)}"
            raise ShapeMismatchError(self, text)
        self.remember(outline(x))
        return x[self.position]

    def backward(self, output_grad: Value) -> tuple[Value, ...]:
        outlined = self.recall()
        return completed(self.xp, self.placed(output_grad, len(outlined)), outlined)

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
