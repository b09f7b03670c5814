"""The sigmoid linear unit."""

from mtorch.arrays import Array
from mtorch.kernels.activations import silu
from mtorch.layers.activation import Activation


class SiLU(Activation):
    """y = x s with s = 1 / (1 + exp(-x)), elementwise.

    Shapes: any -> the same.  Remembers dy/dx, which forward gets almost free beside y.

    Backward: ds/dx = s (1 - s), so dy/dx = s + x s (1 - s) and dx = output_grad * dy/dx.

    Elfwing, Uchibe & Doya, "Sigmoid-Weighted Linear Units", 2017, arXiv:1702.03118.
    """

    def forward(self, x: Array) -> Array:
        y, slope = silu(self.xp, x)
        self.remember(slope)
        return y

    def backward(self, output_grad: Array) -> Array:
        return output_grad * self.recall()
