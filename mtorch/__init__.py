"""mtorch: a neural-network library in which every layer carries its own hand-written derivative."""

from mtorch import layers, losses, optim
from mtorch.checkpoint import load, save
from mtorch.containers import Bidirectional, Fork, Parallel, Recurrent, Residual, Sequential
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.initializers import seed
from mtorch.layer import Layer
from mtorch.losses import *  # noqa: F403
from mtorch.losses import __all__ as _losses
from mtorch.module import Module
from mtorch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from mtorch.parameter import Buffer, Parameter

__version__ = "0.1.0"

# The original mtorch's name.
ShapeNotMatchException = ShapeMismatchError

__all__ = [
    "Adadelta", "Adagrad", "Adam", "AdamW", "BackwardError", "Bidirectional", "Buffer", "Fork", "Layer", "Module",
    "Parallel", "Parameter", "RMSprop", "Recurrent", "Residual", "SGD", "Sequential", "ShapeMismatchError",
    "ShapeNotMatchException", "layers", "load", "losses", "optim", "save", "seed", *_losses,
]  # fmt: skip
