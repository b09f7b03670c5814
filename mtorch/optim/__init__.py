"""Optimizers: rewrites of the gradient into a direction, then the same `module.step(lr)`."""

from mtorch.optim.sgd import SGD

__all__ = ["SGD"]
