"""Adam's rule in place: without the large arrays that each line of the reference makes anew."""

import inspect
import math
from types import ModuleType, SimpleNamespace

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.optim.adam import Adam


def adam(self: Adam, xp: ModuleType, g: Array, state: SimpleNamespace, t: int) -> Array:
    """With c = sqrt(1 - beta2^t), d = (m / (sqrt(v) + c eps)) * c / (1 - beta1^t): the divisions join constants."""
    if not g.ndim:  # numbers, which cannot be renewed in place
        return reference(self, xp, g, state, t)
    (beta1, beta2), m, v = self.betas, state.exp_avg, state.exp_avg_sq
    d = g * (1 - beta1)
    m *= beta1
    m += d
    numpy.multiply(g, 1 - beta2, d)
    d *= g
    v *= beta2
    v += d
    c = math.sqrt(1 - beta2**t)
    numpy.sqrt(v, d)
    d += c * self.eps
    numpy.divide(m, d, d)
    d *= c / (1 - beta1**t)
    return d


reference = inspect.unwrap(Adam.rule)
replace(Adam.rule, numpy, adam)
