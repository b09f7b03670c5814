"""Adam's rule in place: without the large arrays that each line of the reference makes anew.

The step uses up the gradient, so its memory serves for what lies between: first g^2, then d.
"""

import inspect
import math
from functools import lru_cache
from types import ModuleType, SimpleNamespace

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.fast.axpby import axpby
from mtorch.optim.adam import Adam


def adam(self: Adam, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
    """d = (m / (sqrt(v) + c eps)) * c / (1 - beta1^t) with c = sqrt(1 - beta2^t), both corrections in two constants."""
    if not g.ndim or self.amsgrad:  # of an array without axes NumPy makes new numbers
        return reference(self, xp, g, state, t)
    beta1, rest1, beta2, root, eps, factor = constants(*self.betas, self.eps, t, g.dtype)
    m, v = state.exp_avg, state.exp_avg_sq
    average(m, beta1, g, rest1)
    g *= root  # before it is squared, which may overflow
    g *= g
    average(v, beta2, g)
    d = numpy.sqrt(v, g)
    d += eps
    numpy.divide(m, d, d)
    d *= factor
    return d


def average(mean: Array, beta: Array, x: Array, rest: Array | float = 1.0) -> None:
    """mean := beta mean + rest x."""
    if not axpby(rest, x, beta, mean):
        mean *= beta
        mean += rest * x


@lru_cache(maxsize=16)
def constants(beta1: float, beta2: float, eps: float, t: int, dtype: numpy.dtype) -> list[Array]:
    """As arrays without axes, which NumPy takes faster than numbers."""
    c = math.sqrt(1 - beta2**t)
    numbers = beta1, 1 - beta1, beta2, math.sqrt(1 - beta2), c * eps, c / (1 - beta1**t)
    return [numpy.array(number, dtype) for number in numbers]


reference = inspect.unwrap(Adam.rule)
replace(Adam.rule, numpy, adam)
