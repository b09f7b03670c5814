"""Stochastic gradient descent."""

from typing import Any

from mtorch.arrays import Array
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer
from mtorch.parameter import Parameter


class SGD(Optimizer):
    """d = g; with momentum v := momentum * v + g and d = v, or with Nesterov d = g + momentum * v.

    Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """

    slots = ("velocity",)

    def __init__(self, module: Layer, lr: Any, *, momentum: float = 0, nesterov: bool = False, **options: Any):
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(module, lr, **options)
        self.check(0 <= momentum < 1, "momentum", "in [0, 1)", momentum)
        if nesterov and not momentum:
            raise ValueError("SGD expected a momentum > 0 with nesterov=True, got 0")

    def rewrites(self) -> bool:
        return bool(self.momentum or self.weight_decay or self.factors or self.clip_norm or self.clip_value)

    def rule(self, parameter: Parameter, grad: Array, state: dict[str, Any]) -> Array:
        if not self.momentum:
            return grad
        velocity = state["velocity"]
        velocity *= self.momentum
        velocity += grad
        return grad + self.momentum * velocity if self.nesterov else velocity
