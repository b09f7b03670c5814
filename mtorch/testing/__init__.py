"""Checks for layers: gradients against finite differences, and a fake array module that finds every NumPy call."""

from mtorch.testing import strict
from mtorch.testing.gradients import GradientError, check_gradients, make_value

__all__ = ["GradientError", "check_gradients", "make_value", "strict"]
