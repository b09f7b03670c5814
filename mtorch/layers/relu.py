"""The rectifier."""

from mtorch.arrays import Array
from mtorch.kernels.relu import relu, relu_grad
from mtorch.layers.activation import Activation


class ReLU(Activation):
    """y = max(x, 0), elementwise.

    Shapes: any -> the same.  Remembers y.

    Backward: y grows with x where it is positive and rests elsewhere: dx = output_grad * [y > 0]; 0 at the kink.

    Nair & Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """

    new_grad = overwrites = True

    def forward(self, x: Array, spare: Array | None = None) -> Array:
        y = relu(self.xp, x, spare)
        self.remember(y)
        return y

    def backward(self, output_grad: Array, spare: Array | None = None) -> Array:
        return relu_grad(self.xp, self.recall(), output_grad, spare)
