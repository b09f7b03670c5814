"""Adadelta."""

from typing import Any

from mtorch.kernels import update
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class Adadelta(Optimizer):
    """a := rho a + (1 - rho) g^2,  d = g sqrt(u + eps) / sqrt(a + eps),  then u := rho u + (1 - rho) d^2.

    u is the recent size of the moves themselves, so that a direction has the units of the parameter and the rate none.

    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """

    slots = ("square_sum", "move_sum")

    def __init__(self, module: Layer, lr: Rate = 1.0, *, rho: float = 0.9, eps: float = 1e-6, **options: Any):
        super().__init__(module, lr, **options)
        self.rho, self.eps = self.number("rho", rho, below=1), self.number("eps", eps)

    def rule(self, steps: int) -> tuple[Any, ...]:
        return update.adadelta, 1.0, self.rho, max(self.eps, self.smallest) / (1 - self.rho)
