"""The logistic function."""

from mtorch.arrays import Array, constant
from mtorch.layers.activation import SizedActivation
from mtorch.math.logistic import sigmoid


class Sigmoid(SizedActivation):
    """y = 1 / (1 + exp(-x)), elementwise, without overflow for any x.

    Shapes: any -> the same; with `dim`, (..., dim).  Remembers y.

    Backward: dy/dx = exp(-x) / (1 + exp(-x))^2 = y (1 - y), so dx = output_grad * y (1 - y).
    """

    def forward(self, x: Array) -> Array:
        if self.dim is not None:
            self.check_size(x)
        y = sigmoid(self.xp, x)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        one = constant(self.xp, 1.0, y.dtype)
        return self.xp.asarray(g * (y * (one - y)))
