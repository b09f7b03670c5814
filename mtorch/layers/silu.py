"""The sigmoid linear unit."""

from mtorch.arrays import Array, as_array
from mtorch.layers.activation import Activation
from mtorch.math.logistic import sigmoid

FAR = 1000.0  # beyond it s is 0 or 1, and y is 0 or x


class SiLU(Activation):
    """y = x s with s = 1 / (1 + exp(-x)), elementwise.

    Shapes: any -> the same.  Remembers x, where it is not far out, and s.

    Backward: ds/dx = s (1 - s), so dy/dx = s + x s (1 - s) and dx = output_grad * dy/dx.

    Elfwing, Uchibe & Doya, "Sigmoid-Weighted Linear Units", 2017, arXiv:1702.03118.
    """

    def forward(self, x: Array) -> Array:
        near = self.xp.clip(x, -FAR, FAR)  # so that no product is 0 * inf
        s = sigmoid(self.xp, near)
        self.remember(near, s)
        return self.xp.maximum(x, near) * s

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x, s = self.recall()
        return as_array(self.xp, g * (s + x * s * (1 - s)))
