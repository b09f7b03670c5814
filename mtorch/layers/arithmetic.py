"""Operators of two arrays, entry by entry."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, Value, as_array, shape_value, unbroadcast
from mtorch.errors import ShapeMismatchError
from mtorch.guards import NO_ARRAY
from mtorch.layer import Layer


def named(reads: str, a: Array, b: Array, y: Array) -> tuple:
    """(a, b, y) with None for those that `reads` does not name."""
    return a if "a" in reads else None, b if "b" in reads else None, y if "y" in reads else None


class Operator(Layer):
    """y = f(a, b) of a tuple (a, b), whose shapes broadcast as NumPy's do.

    Shapes: A, B -> what they broadcast to.

    Backward: an entry that was stretched along an axis fed every entry of y along it, so each operand's gradient
    g * df/da, g * df/db is summed over the axes on which that operand was stretched.

    A subclass defines `result`, the products `left` and `right`, and which of a, b and y these read: no other is kept.
    """

    left_reads = right_reads = ""

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def result(self, a: Array, b: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not define result")

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        """g * dy/da in the shape of y."""
        raise NotImplementedError(f"{type(self).__name__} does not define left")

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        """g * dy/db in the shape of y."""
        raise NotImplementedError(f"{type(self).__name__} does not define right")

    def broadcast_shapes(self, a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        """What is known of y's sizes. Only axes counted from the end are sure to be the same one in a and b."""
        sizes = {}
        for axis in (axis for axis in a.keys() | b.keys() if axis < 0):
            n, m = a.get(axis, 1), b.get(axis, 1)
            if 1 not in (n, m) and n != m:
                raise ShapeMismatchError(self, f"expected sizes that fit each other on axis {axis}, got {n} and {m}")
            if (n, m) != (1, 1):
                sizes[axis] = m if n == 1 else n
        return sizes

    def combine(self, a: Array, b: Array) -> Array:
        """f(a, b). TypeError for two dtypes, ShapeMismatchError where the shapes do not broadcast."""
        if a.dtype != b.dtype or a.dtype.kind != "f":
            raise TypeError(f"{self!r} expected floats of one dtype, got {a.dtype} and {b.dtype}")
        try:
            return as_array(self.xp, self.result(a, b))
        except ValueError:
            text = f"expected shapes that fit each other, got {a.shape} and {b.shape}"
            raise ShapeMismatchError(self, text) from None

    def forward(self, x: tuple[Array, Array]) -> Array:
        if x.__class__ is not tuple or len(x) != 2 or x[0].__class__ in NO_ARRAY or x[1].__class__ in NO_ARRAY:
            raise ShapeMismatchError(self, f"expected a tuple of two arrays, got {shape_value(x)}")
        a, b = x
        y = self.combine(a, b)
        self.remember(a.shape, b.shape, named(self.left_reads + self.right_reads, a, b, y))
        return y

    def backward(self, output_grad: Array) -> tuple[Array | None, Array | None]:
        g = self.cast_grad(output_grad)
        a_shape, b_shape, known = self.recall()
        da = None if a_shape is None else as_array(self.xp, unbroadcast(self.left(g, *known), a_shape))
        db = None if b_shape is None else as_array(self.xp, unbroadcast(self.right(g, *known), b_shape))
        return da, db

    def memory_for(self, memory: tuple, wanted: tuple) -> tuple:
        """The memory of a call, for a backward that computes no gradient of an operand where `wanted` has None."""
        shapes = [None if each is None else shape for each, shape in zip(wanted, memory, strict=False)]
        return *shapes, *memory[2:]

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for a, b in cls.example_shapes():
            yield cls(xp=xp, dtype=dtype), lambda xp, rng, a=a, b=b: cls.example_pair(xp, rng, a, b)

    @classmethod
    def example_shapes(cls) -> list[tuple]:
        return [((4, 3), (4, 3)), ((2, 3, 4), (4,)), ((3, 1), (2, 1, 4)), ((), (2, 3)), ((1, 1), ()), ((), ())]

    @classmethod
    def example_pair(cls, xp: ModuleType, rng: Any, a: tuple, b: tuple) -> Value:
        """Values of these shapes away from every pole and kink: |a - b| and |b| stay above 0.3."""
        left = rng.uniform(0.5, 1.5, a)
        return xp.asarray(left), xp.asarray(rng.choice([-2.3, 2.3], b) + rng.uniform(-0.5, 0.5, b))


class Add(Operator):
    """y = a + b, entry by entry.

    Shapes: A, B -> what they broadcast to.

    Backward: y moves by as much as a or b does, so with g = output_grad  da = g and db = g, each summed
    over the axes on which its operand was stretched.
    """

    def result(self, a: Array, b: Array) -> Array:
        return a + b

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g


class Subtract(Operator):
    """y = a - b, entry by entry.

    Shapes: A, B -> what they broadcast to.

    Backward: y moves with a and against b, so with g = output_grad  da = g and db = -g, each summed over the axes on
    which its operand was stretched.
    """

    def result(self, a: Array, b: Array) -> Array:
        return a - b

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return -g


class Multiply(Operator):
    """y = a b, entry by entry.

    Shapes: A, B -> what they broadcast to.  Remembers a and b.

    Backward: (a + h) b = a b + h b: one factor is the slope in the other, so with g = output_grad  da = g b and
    db = g a, each summed over the axes on which its operand was stretched.
    """

    left_reads, right_reads = "b", "a"

    def result(self, a: Array, b: Array) -> Array:
        return a * b

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * b

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * a


class Divide(Operator):
    """y = a / b, entry by entry.

    Shapes: A, B -> what they broadcast to.  Remembers b and y.

    Backward: y b = a, so a change of b changes y by dy b + y db = 0; with g = output_grad
        da = g / b,   db = -g a / b^2 = -(g / b) y,
    each summed over the axes on which its operand was stretched.
    """

    left_reads, right_reads = "b", "by"

    def result(self, a: Array, b: Array) -> Array:
        return a / b

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g / b

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g / b * -y


class _Choice(Operator):
    """One of both, entry by entry: the gradient belongs to the operand that was taken, at a tie to a."""

    left_reads = right_reads = "ab"

    def takes_a(self, a: Array, b: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not define takes_a")

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * self.takes_a(a, b)

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * ~self.takes_a(a, b)


class Maximum(_Choice):
    """y = max(a, b), entry by entry; NaN wins.

    Shapes: A, B -> what they broadcast to.  Remembers a and b.

    Backward: y is a copy of the larger one and does not move with the other, so with g = output_grad
        da = g [a >= b],   db = g [a < b],
    a tie goes to a; each is summed over the axes on which its operand was stretched.
    """

    def result(self, a: Array, b: Array) -> Array:
        return self.xp.maximum(a, b)

    def takes_a(self, a: Array, b: Array) -> Array:
        return (a >= b) | (a != a)


class Minimum(_Choice):
    """y = min(a, b), entry by entry; NaN wins.

    Shapes: A, B -> what they broadcast to.  Remembers a and b.

    Backward: y is a copy of the smaller one and does not move with the other, so with g = output_grad
        da = g [a <= b],   db = g [a > b],
    a tie goes to a; each is summed over the axes on which its operand was stretched.
    """

    def result(self, a: Array, b: Array) -> Array:
        return self.xp.minimum(a, b)

    def takes_a(self, a: Array, b: Array) -> Array:
        return (a <= b) | (a != a)
