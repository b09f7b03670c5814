"""Adadelta."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from mtorch.arrays import Array
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class Adadelta(Optimizer):
    """a := rho a + (1 - rho) g^2,  d = g sqrt(u + eps) / sqrt(a + eps),  then u := rho u + (1 - rho) d^2.

    u is the recent size of the moves themselves, so that a direction has the units of the parameter and the rate none.

    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """

    slots = ("square_avg", "acc_delta")

    def __init__(self, module: Layer, lr: Rate = 1.0, *, rho: float = 0.9, eps: float = 1e-6, **options: Any):
        super().__init__(module, lr, **options)
        self.rho = self.number("rho", rho, below=1)
        self.eps = max(self.number("eps", eps), self.smallest)  # with 0 a gradient of 0 would give 0 / 0

    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        a = state.square_avg = self.rho * state.square_avg + (1 - self.rho) * g * g
        u = state.acc_delta
        d = xp.sqrt(u + self.eps) / xp.sqrt(a + self.eps) * g
        state.acc_delta = self.rho * u + (1 - self.rho) * d * d
        return d

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 1.0}
        yield {"lr": 0.5, "rho": 0.8, "eps": 1e-3}
