"""mtorch: a neural-network library in which every layer carries its own hand-written derivative."""

from mtorch import layers, losses, optim
from mtorch.containers import Bidirectional, DataParallel, Fork, Graph, Input, Parallel, Recurrent, Residual, Sequential
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.functions import *  # noqa: F403
from mtorch.functions import __all__ as _functions
from mtorch.functions import abs, max, min, sum  # noqa: F401
from mtorch.initializers import seed
from mtorch.layer import Layer
from mtorch.losses import *  # noqa: F403
from mtorch.losses import __all__ as _losses
from mtorch.module import Module
from mtorch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from mtorch.parameter import Buffer, Parameter
from mtorch.summary import summary

__version__ = "0.1.0"

# The original mtorch's name.
ShapeNotMatchException = ShapeMismatchError

__all__ = [
    "Adadelta", "Adagrad", "Adam", "AdamW", "BackwardError", "Bidirectional", "Buffer", "DataParallel", "Fork", "Graph",
    "Input", "Layer", "Module", "Parallel", "Parameter", "RMSprop", "Recurrent", "Residual", "SGD", "Sequential",
    "ShapeMismatchError", "ShapeNotMatchException", "layers", "load", "losses", "optim", "save", "seed", "summary",  # noqa: F405
    *_functions, *_losses,
]  # fmt: skip


def __getattr__(name: str):
    """`save` and `load` are fetched when first asked for: pathlib and json would be a fifth of the import."""
    if name in ("load", "save"):
        from mtorch import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module 'mtorch' has no attribute {name!r}")
