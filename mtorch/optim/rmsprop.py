"""RMSprop."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_flag
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class RMSprop(Optimizer):
    """a := alpha a + (1 - alpha) g^2 and d = g / (sqrt(a) + eps): the gradient in units of its recent size.

    centered: m := alpha m + (1 - alpha) g and d = g / (sqrt(a - m^2) + eps): the root is of the variance.
    momentum: v := momentum v + d and d = v.
    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Tieleman & Hinton, "Lecture 6.5: RMSprop", COURSERA: Neural Networks for Machine Learning, 2012.
    """

    def __init__(
        self,
        module: Layer,
        lr: Rate = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0,
        centered: bool = False,
        **options: Any,
    ):
        super().__init__(module, lr, **options)
        self.alpha = self.number("alpha", alpha, below=1)
        self.eps = self.safe_eps(eps, weight=1 - self.alpha)
        self.momentum = self.number("momentum", momentum, below=1)
        self.centered = check_flag("RMSprop", "centered", centered)
        self.slots = ("square_avg", *["grad_avg"] * self.centered, *["momentum_buffer"] * (self.momentum > 0))

    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        a = state.square_avg = self.alpha * state.square_avg + (1 - self.alpha) * g * g
        root = xp.sqrt(a)
        if self.centered:
            m = state.grad_avg = self.alpha * state.grad_avg + (1 - self.alpha) * g
            variance = (root + m) * (root - m)  # a - m^2 without a square that may overflow
            root = xp.sqrt(xp.maximum(variance, 0))  # rounding may leave less than 0
        d = g / (root + self.eps)
        if not self.momentum:
            return d
        v = state.momentum_buffer = self.momentum * state.momentum_buffer + d
        return v

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.01}
        yield {"lr": 0.01, "alpha": 0.9, "momentum": 0.5}
        yield {"lr": 0.01, "alpha": 0.9, "centered": True, "eps": 1e-3}
        yield {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-3}
