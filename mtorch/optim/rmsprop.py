"""RMSprop."""

import math
from typing import Any

from mtorch.checks import check_flag
from mtorch.kernels import update
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class RMSprop(Optimizer):
    """a := alpha a + (1 - alpha) g^2 and d = g / (sqrt(a) + eps): the gradient in units of its recent size.

    centered: the root is of the variance a - m^2, with m := alpha m + (1 - alpha) g.
    momentum: v := momentum * v + d takes the place of d.
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
        self.alpha, self.eps = self.number("alpha", alpha, below=1), self.number("eps", eps)
        self.momentum = self.number("momentum", momentum, below=1)
        self.centered = check_flag("RMSprop", "centered", centered)
        self.slots = ("square_sum", *["gradient_sum"] * self.centered, *["velocity"] * (self.momentum > 0))

    def rule(self, steps: int) -> tuple[Any, ...]:
        c, kernel = math.sqrt(1 - self.alpha), update.rmsprop_centered if self.centered else update.rmsprop
        return kernel, 1 / c, self.alpha, self.root_eps / c, self.momentum
