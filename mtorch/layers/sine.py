"""Sine and cosine, entry by entry."""

from mtorch.arrays import Array, as_array
from mtorch.layers.elementwise import Elementwise


class Sin(Elementwise):
    """y = sin(x), with x in radians.

    Shapes: any -> the same.  Remembers x.

    Backward: on the unit circle the velocity of (cos x, sin x) is (-sin x, cos x), so with g = output_grad
    dx = g cos(x).
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.xp.sin(x))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, g * self.xp.cos(x))


class Cos(Elementwise):
    """y = cos(x), with x in radians.

    Shapes: any -> the same.  Remembers x.

    Backward: on the unit circle the velocity of (cos x, sin x) is (-sin x, cos x), so with g = output_grad
    dx = -g sin(x).
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, self.xp.cos(x))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, -g * self.xp.sin(x))
