"""The smooth rectifier."""

from mtorch.arrays import Array
from mtorch.kernels.activations import softplus
from mtorch.layers.activation import Activation


class Softplus(Activation):
    """y = log(1 + exp(x)), elementwise, computed as max(x, 0) + log(1 + exp(-|x|)), which never overflows.

    Shapes: any -> the same.  Remembers dy/dx, which shares the exponential with y.

    Backward: dy/dx = exp(x) / (1 + exp(x)), the logistic function, so dx = output_grad / (1 + exp(-x)).

    Dugas, Bengio, Belisle, Nadeau & Garcia, "Incorporating Second-Order Functional Knowledge ...", 2000.
    """

    def forward(self, x: Array) -> Array:
        y, slope = softplus(self.xp, x)
        self.remember(slope)
        return y

    def backward(self, output_grad: Array) -> Array:
        return output_grad * self.recall()
