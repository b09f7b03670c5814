"""Functions of one array, entry by entry."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.layer import Layer


class Elementwise(Layer):
    """A function of each entry; any shape -> the same shape."""

    array_only = True

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return known

    def check(self, x: Array) -> None:
        """TypeError for integers, which a call casts but a container's forward does not."""
        if x.dtype.kind != "f":
            raise TypeError(f"{self!r} expected floats, got {x.dtype}")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for shape in ((4, 3), (2, 1, 3), ()):
            yield cls(xp=xp, dtype=dtype), lambda xp, rng, shape=shape: xp.asarray(rng.uniform(0.5, 1.5, shape))
        if cls not in (Log, Sqrt):
            yield cls(xp=xp, dtype=dtype), lambda xp, rng: xp.asarray(rng.uniform(-1.5, -0.5, 4))


class Exp(Elementwise):
    """y = exp(x).

    Shapes: any -> the same.  Remembers y.

    Backward: the exponential is its own derivative, dy/dx = exp(x) = y, so with g = output_grad  dx = g y.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        y = as_array(self.xp, self.xp.exp(x))
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return as_array(self.xp, g * y)


class Log(Elementwise):
    """y = log(x), the natural logarithm.

    Shapes: any -> the same.  Remembers x.

    Backward: from exp(y) = x follows exp(y) dy/dx = 1, so dy/dx = 1 / x and with g = output_grad  dx = g / x.

    At x = 0 and below, y is what NumPy's log gives: -inf and NaN, with NumPy's own warning.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.xp.log(x))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, g / x)


class Sqrt(Elementwise):
    """y = sqrt(x).

    Shapes: any -> the same.  Remembers y.

    Backward: from y^2 = x follows 2 y dy/dx = 1, so with g = output_grad  dx = g / (2 y), infinite at 0.

    Below 0, y is NaN, with NumPy's own warning.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        y = as_array(self.xp, self.xp.sqrt(x))
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return as_array(self.xp, g / (2.0 * y))


class Square(Elementwise):
    """y = x^2.

    Shapes: any -> the same.  Remembers x.

    Backward: (x + h)^2 = x^2 + 2 x h + h^2, so dy/dx = 2 x and with g = output_grad  dx = 2 g x.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, x * x)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, 2.0 * g * x)


class Abs(Elementwise):
    """y = |x|.

    Shapes: any -> the same.  Remembers x.

    Backward: y is x right of 0 and -x left of it, so with g = output_grad  dx = g sign(x); 0 at the kink.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.xp.absolute(x))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, g * self.xp.sign(x))


class Negative(Elementwise):
    """y = -x.

    Shapes: any -> the same.

    Backward: y falls as x rises, dy/dx = -1, so with g = output_grad  dx = -g.
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember()
        return as_array(self.xp, -x)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        self.recall()
        return as_array(self.xp, -g)
