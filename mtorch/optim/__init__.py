"""Optimizers: rewrites of the gradient into a direction, then the same `module.step(lr)`."""

from mtorch.optim import schedules as schedules
from mtorch.optim.adadelta import Adadelta as Adadelta
from mtorch.optim.adagrad import Adagrad as Adagrad
from mtorch.optim.adam import Adam as Adam
from mtorch.optim.adam import AdamW as AdamW
from mtorch.optim.base import Optimizer as Optimizer
from mtorch.optim.rmsprop import RMSprop as RMSprop
from mtorch.optim.sgd import SGD as SGD

__all__ = [name for name, item in globals().items() if isinstance(item, type)] + ["schedules"]
