"""The clipped identity."""

from mtorch.arrays import Array, as_array
from mtorch.layers.activation import Activation


class Hardtanh(Activation):
    """y = min(max(x, -1), 1), elementwise.

    Shapes: any -> the same.  Remembers y.

    Backward: y moves with x strictly between the bounds only: dx = output_grad * [|y| < 1]; 0 at both kinks.

    Collobert, "Large Scale Machine Learning", 2004.
    """

    def forward(self, x: Array) -> Array:
        y = self.xp.clip(x, -1, 1)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        y = self.recall()
        return as_array(self.xp, g * (self.xp.absolute(y) < 1))
