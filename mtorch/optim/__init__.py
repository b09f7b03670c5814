"""Optimizers: rewrites of the gradient into a direction, then the same `module.step(lr)`."""

from mtorch.optim import schedules
from mtorch.optim.adadelta import Adadelta
from mtorch.optim.adagrad import Adagrad
from mtorch.optim.adam import Adam, AdamW
from mtorch.optim.base import Optimizer
from mtorch.optim.rmsprop import RMSprop
from mtorch.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "schedules"]
