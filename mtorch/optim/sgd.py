"""Stochastic gradient descent."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_flag
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class SGD(Optimizer):
    """d = g, the gradient itself.  options: weight_decay, clip_norm, ..., as in every `Optimizer`.

    momentum: v := momentum v + (1 - dampening [t > 1]) g and d = v, at first g.  nesterov: d = g + momentum v.

    Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """

    def __init__(
        self,
        module: Layer,
        lr: Rate = 1e-3,
        *,
        momentum: float = 0,
        dampening: float = 0,
        nesterov: bool = False,
        **options: Any,
    ):
        super().__init__(module, lr, **options)
        self.momentum = self.number("momentum", momentum, below=1)
        self.dampening = self.number("dampening", dampening)
        self.nesterov = check_flag("SGD", "nesterov", nesterov)
        if nesterov and not momentum:
            raise ValueError("SGD expected a momentum > 0 with nesterov=True, got 0")
        if nesterov and dampening:
            raise ValueError(f"SGD expected a dampening of 0 with nesterov=True, got {dampening}")
        self.slots = ("momentum_buffer",) if momentum else ()
        self.has_rule = momentum > 0 or type(self).rule is not SGD.rule  # or a subclass has a rule of its own

    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        if not self.momentum:
            return g
        new = g if t == 1 or not self.dampening else (1 - self.dampening) * g
        v = state.momentum_buffer = self.momentum * state.momentum_buffer + new
        return g + self.momentum * v if self.nesterov else v

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.1}
        yield {"lr": 0.1, "momentum": 0.9}
        yield {"lr": 0.1, "momentum": 0.9, "nesterov": True}
        yield {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}
