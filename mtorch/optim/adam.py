"""Adam, and AdamW, which keeps weight decay out of the averages."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from mtorch.accelerate import accelerated
from mtorch.arrays import Array
from mtorch.checks import check_flag, shown
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate


class _Adam(Optimizer):
    """The base of Adam and AdamW: their rule."""

    slots: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        module: Layer,
        lr: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        **options: Any,
    ):
        super().__init__(module, lr, **options)
        self.amsgrad = check_flag(type(self).__name__, "amsgrad", amsgrad)
        if amsgrad:
            self.slots = (*self.slots, "max_exp_avg_sq")
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"{type(self).__name__} expected betas to be two numbers, got {shown(betas)}")
        self.betas = tuple(self.number(f"betas[{i}]", beta, below=1) for i, beta in enumerate(betas))
        self.eps = self.safe_eps(eps, weight=1 - self.betas[1])

    @accelerated
    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        beta1, beta2 = self.betas
        m = state.exp_avg = beta1 * state.exp_avg + (1 - beta1) * g
        v = state.exp_avg_sq = beta2 * state.exp_avg_sq + (1 - beta2) * g * g
        if self.amsgrad:
            v = state.max_exp_avg_sq = xp.maximum(state.max_exp_avg_sq, v)
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        return m_hat / (xp.sqrt(v_hat) + self.eps)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.05}
        yield {"lr": 0.05, "betas": (0.5, 0.75), "eps": 1e-2, "weight_decay": 0.1}
        yield {"lr": 0.05, "betas": (0.5, 0.75), "amsgrad": True}


class Adam(_Adam):
    """m := beta1 m + (1 - beta1) g,  v := beta2 v + (1 - beta2) g^2 and, at the parameter's step t counted from 1,

        d = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    Both averages begin at 0; dividing by 1 - beta^t makes them averages of the t gradients there were.

    amsgrad: u := max(u, v), the largest v of all steps, takes its place:
        d = m / (1 - beta1^t) / (sqrt(u / (1 - beta2^t)) + eps).
    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980; Reddi, Kale & Kumar, "On the
    Convergence of Adam and Beyond", 2019, arXiv:1904.09237 (amsgrad).
    """


class AdamW(_Adam):
    """m := beta1 m + (1 - beta1) g,  v := beta2 v + (1 - beta2) g^2 and, at the parameter's step t counted from 1,

        d = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w.

    This is `Adam` with decoupled weight decay: the value w of the parameter comes in after the averages, which do not
    contain it, so that every entry decays at the same rate.

    amsgrad: u := max(u, v), the largest v of all steps, takes its place:
        d = m / (1 - beta1^t) / (sqrt(u / (1 - beta2^t)) + eps) + weight_decay w.
    options: those of Adam.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """

    decoupled = True

    def __init__(self, module: Layer, lr: Rate = 1e-3, *, weight_decay: float = 1e-2, **options: Any):
        super().__init__(module, lr, weight_decay=weight_decay, **options)
