"""The hyperbolic tangent."""

from mtorch.arrays import Array, as_array
from mtorch.layers.activation import SizedActivation


class Tanh(SizedActivation):
    """y = tanh(x), elementwise.

    Shapes: any -> the same; with `dim`, (..., dim).  Remembers y.

    Backward: dy/dx = 1 - tanh(x)^2, so dx = output_grad * (1 - y^2).
    """

    def forward(self, x: Array) -> Array:
        if self.dim is not None:
            self.check_size(x)
        y = self.xp.tanh(x)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return as_array(self.xp, g * (1 - y * y))
