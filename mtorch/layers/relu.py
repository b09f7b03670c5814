"""The rectifier."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, constant
from mtorch.layer import Layer
from mtorch.layers.activation import SizedActivation


class ReLU(SizedActivation):
    """y = max(x, 0), elementwise.

    Shapes: any -> the same; with `dim`, (..., dim).  Remembers y.

    Backward: dy/dx is 1 where x is positive and 0 elsewhere: dx = output_grad * [y > 0]; 0 at the
    kink. As y is never negative, [y > 0] is its sign.

    Nair & Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """

    @accelerated
    def forward(self, x: Array) -> Array:
        if self.dim is not None:
            self.check_size(x)
        y = self.xp.maximum(x, constant(self.xp, 0.0, x.dtype))
        self.remember(y)
        return y

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return self.xp.asarray(g * self.xp.sign(y))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(xp=xp, dtype=dtype, rng=rng)
        yield cls(xp=xp, dtype=dtype), (3, 40, 40)
