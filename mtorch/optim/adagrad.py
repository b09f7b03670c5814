"""Adagrad."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from mtorch.arrays import Array
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer, Rate
from mtorch.parameter import Parameter


class Adagrad(Optimizer):
    """s := s + g^2 and d = g / (sqrt(s) + eps) / (1 + lr_decay (t - 1)) at the parameter's step t, counted from 1.

    Each entry has a rate of its own, which falls the faster the larger its gradients were. s begins at
    `initial_accumulator_value`.

    options: weight_decay, clip_norm, clip_value and scale, as in every `Optimizer`.

    Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    """

    slots = ("sum",)

    def __init__(
        self,
        module: Layer,
        lr: Rate = 1e-2,
        *,
        lr_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        **options: Any,
    ):
        super().__init__(module, lr, **options)
        self.lr_decay, self.eps = self.number("lr_decay", lr_decay), self.safe_eps(eps)
        self.initial_accumulator_value = self.number("initial_accumulator_value", initial_accumulator_value)

    def rule(self, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
        s = state.sum = state.sum + g * g
        return g / (xp.sqrt(s) + self.eps) / (1 + self.lr_decay * (t - 1))

    def fresh(self, parameter: Parameter) -> SimpleNamespace:
        state = super().fresh(parameter)
        state.sum += self.initial_accumulator_value
        return state

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.1}
        yield {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4}
