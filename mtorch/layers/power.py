"""Powers with a constant exponent, and of one array to another."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, Value, as_array
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Operator
from mtorch.layers.elementwise import Elementwise


def check_exponent(layer: str, exponent: Any) -> int | float:
    """The exponent as an int where it is whole, else as a float."""
    p = check_number(layer, "exponent", exponent)
    return int(p) if abs(p) < 2**31 and p == int(p) else p


class Power(Elementwise):
    """y = x^p, entry by entry, with a constant exponent p.

    Shapes: any -> the same.  Remembers x.

    Backward: dx = g p x^(p-1), which is exact at 0 too: 0 for p = 0 and g for p = 1, without forming 0 * 0^-1.

    A whole p takes any base. Outside of the domain (a negative base with a broken p, 0 with a negative p, the slope at
    0 with p between 0 and 1) the result is what NumPy's power gives, NaN or infinity, with NumPy's own warning.
    """

    def __init__(self, exponent: float, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.exponent = check_exponent("Power", exponent)

    @staticmethod
    def raised(x: Array, p: int | float) -> Array:
        """x^p; whole powers that few products make are made of products, which is faster."""
        if p == 1:
            return x
        if p in (2, 3, 4):
            square = x * x
            return square if p == 2 else square * (x if p == 3 else square)
        return x**p

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.raised(x, self.exponent))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x, p = self.recall(), self.exponent
        if p == 0:
            return self.xp.zeros_like(g)
        if p == 1:
            return g
        return as_array(self.xp, g * p * self.raised(x, p - 1))

    def details(self) -> str:
        return str(self.exponent)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for whole in (0, 1, 2, 3, 5):
            yield cls(whole, xp=xp, dtype=dtype), (4, 3)
        for exponent in (-1, -2, 0.5, -1.5, 2.5):
            yield cls(exponent, xp=xp, dtype=dtype), lambda xp, rng: xp.asarray(rng.uniform(0.5, 1.5, (2, 3)))


class Pow(Operator):
    """y = a^b of a tuple (a, b), whose shapes broadcast.

    Shapes: A, B -> what they broadcast to.  Remembers a, b and y.

    Backward: da = g b a^(b-1),  db = g y log a;  da is 0 where b is 0, db is 0 where a is 0.

    A negative base has no slope in b: NaN, as NumPy's logarithm gives it.
    """

    left_reads, right_reads = "ab", "ay"

    def result(self, a: Array, b: Array) -> Array:
        return a**b

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * b * a ** self.xp.where(b == 0, 1, b - 1)

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        return g * y * self.xp.log(self.xp.where(a == 0, 1, a))

    @classmethod
    def example_pair(cls, xp: ModuleType, rng: Any, a: tuple, b: tuple) -> Value:
        return xp.asarray(rng.uniform(0.5, 1.5, a)), xp.asarray(rng.uniform(-1.5, 2.5, b))
