"""Adam, and AdamW, which keeps weight decay out of the averages."""

import math
from typing import Any

from mtorch.kernels import update
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class _Adaptive(Optimizer):
    """What both have in common: the averages of g and g^2, each divided by what it still lacks of its full weight."""

    slots = ("gradient_sum", "square_sum")

    def __init__(
        self,
        module: Layer,
        lr: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **options: Any,
    ):
        super().__init__(module, lr, **options)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"{type(self).__name__} expected betas to be two numbers, got {betas!r}")
        self.betas = tuple(self.number(f"betas[{i}]", beta, below=1) for i, beta in enumerate(betas))
        self.eps = self.number("eps", eps)

    def rule(self, steps: int) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        c = math.sqrt((1 - beta2) / (1 - beta2**steps))
        return update.adam, (1 - beta1) / (1 - beta1**steps) / c, beta1, beta2, self.root_eps / c


class Adam(_Adaptive):
    """m := beta1 m + (1 - beta1) g,  v := beta2 v + (1 - beta2) g^2 and, at the parameter's step t counted from 1,

        d = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    Both averages begin at 0; dividing by 1 - beta^t makes them averages of the t gradients there were.

    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980.
    """


class AdamW(_Adaptive):
    """Adam with decoupled weight decay: d of Adam + weight_decay * value, so that the averages see the gradient alone.

    options: those of Adam.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """

    decoupled = True

    def __init__(self, module: Layer, lr: Rate = 1e-3, *, weight_decay: float = 1e-2, **options: Any):
        super().__init__(module, lr, weight_decay=weight_decay, **options)
