"""The smooth rectifier."""

from mtorch.arrays import Array, as_array
from mtorch.layers.activation import Activation
from mtorch.math.logistic import sigmoid


class Softplus(Activation):
    """y = log(1 + exp(x)), elementwise, computed as max(x, 0) + log(1 + exp(-|x|)), which never overflows.

    Shapes: any -> the same.  Remembers x.

    Backward: dy/dx = exp(x) / (1 + exp(x)), the logistic function, so dx = output_grad / (1 + exp(-x)).

    Dugas, Bengio, Belisle, Nadeau & Garcia, "Incorporating Second-Order Functional Knowledge ...", 2000.
    """

    def forward(self, x: Array) -> Array:
        xp = self.xp
        self.remember(x)
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(x)))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        return as_array(self.xp, g * sigmoid(self.xp, x))
