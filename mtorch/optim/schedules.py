"""Learning rates in closed form: `schedule(k)` is the rate of the step with number k, counted from 0.

A schedule is passed as `lr=` to an optimizer, whose k-th `step()` uses `schedule(k - 1)`. It keeps nothing between
calls, so it can be asked in any order and there is nothing to save: resuming needs only the optimizer's step count.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from mtorch.checks import check_integer, check_number, shown


class Schedule(ABC):
    """A function from step number to rate; `lr` is the rate it starts from, or rises to."""

    lr: Any

    def __init__(self, lr: float):
        self.lr = self._number("lr", lr)

    @abstractmethod
    def __call__(self, k: int) -> float:
        """The rate of step k."""

    def _number(self, argument: str, number: Any) -> float:
        return check_number(type(self).__name__, argument, number, least=0)

    def _count(self, argument: str, number: Any, least: int = 1) -> int:
        return check_integer(type(self).__name__, argument, number, least)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _grown(lr: float, gamma: float, n: int) -> float:
    try:
        return lr * gamma**n
    except OverflowError:  # with gamma > 1; the optimizer says that such a rate is not finite
        return math.inf


class StepLR(Schedule):
    """lr * gamma^floor(k / step_size): the rate falls by the factor gamma every step_size steps."""

    def __init__(self, lr: float, step_size: int, gamma: float = 0.1):
        super().__init__(lr)
        self.step_size, self.gamma = self._count("step_size", step_size), self._number("gamma", gamma)

    def __call__(self, k: int) -> float:
        return _grown(self.lr, self.gamma, k // self.step_size)


class MultiStepLR(Schedule):
    """lr * gamma^m with m = count(milestones <= k), how many milestones have been reached."""

    def __init__(self, lr: float, milestones: Sequence[int], gamma: float = 0.1):
        super().__init__(lr)
        try:
            milestones = list(milestones)
        except (TypeError, MemoryError):
            wanted = "a list of integers as milestones"
            raise TypeError(f"MultiStepLR expected {wanted}, got {shown(milestones)}") from None
        self.milestones = sorted(self._count("milestones", milestone, least=0) for milestone in milestones)
        self.gamma = self._number("gamma", gamma)

    def __call__(self, k: int) -> float:
        return _grown(self.lr, self.gamma, bisect_right(self.milestones, k))


class ExponentialLR(Schedule):
    """lr * gamma^k: the rate falls by the factor gamma with every step."""

    def __init__(self, lr: float, gamma: float):
        super().__init__(lr)
        self.gamma = self._number("gamma", gamma)

    def __call__(self, k: int) -> float:
        return _grown(self.lr, self.gamma, k)


class CosineAnnealingLR(Schedule):
    """eta_min + (lr - eta_min) (1 + cos(pi k / T_max)) / 2: down to eta_min at T_max, up again to lr at 2 T_max.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """

    def __init__(self, lr: float, T_max: int, eta_min: float = 0.0):
        super().__init__(lr)
        self.T_max, self.eta_min = self._count("T_max", T_max), self._number("eta_min", eta_min)

    def __call__(self, k: int) -> float:
        return self.eta_min + (self.lr - self.eta_min) * (1 + math.cos(math.pi * k / self.T_max)) / 2


class LinearWarmup(Schedule):
    """lr * min(1, (k + 1) / steps): the first step has lr / steps, step number steps - 1 and all later ones lr.

    lr may be another schedule, whose rate at k is then the one to rise to.
    """

    def __init__(self, lr: "float | Schedule", steps: int):
        self.lr = lr if isinstance(lr, Schedule) else self._number("lr", lr)
        self.steps = self._count("steps", steps)

    def __call__(self, k: int) -> float:
        full = self.lr(k) if isinstance(self.lr, Schedule) else self.lr
        return full * min(1.0, (k + 1) / self.steps)


class InverseSqrt(Schedule):
    """lr / sqrt(k + 1), the decay of the original mtorch."""

    def __call__(self, k: int) -> float:
        return self.lr / math.sqrt(k + 1)
