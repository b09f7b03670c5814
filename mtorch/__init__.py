"""mtorch: a neural-network library in which every layer carries its own hand-written derivative."""

from typing import TYPE_CHECKING

from mtorch import fast, layers, losses, optim
from mtorch.aliases import ShapeNotMatchException
from mtorch.bidirectional import Bidirectional
from mtorch.container import Container
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.fork import Fork, Parallel
from mtorch.graph import Graph, Input
from mtorch.graph.functions import *  # noqa: F403
from mtorch.graph.functions import __all__ as _functions
from mtorch.graph.functions import abs, max, min, sum  # noqa: F401
from mtorch.initializers import seed
from mtorch.insight.summary import summary
from mtorch.layer import Layer
from mtorch.losses import *  # noqa: F403
from mtorch.losses import __all__ as _losses
from mtorch.module import Module
from mtorch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from mtorch.parallel import DataParallel
from mtorch.parameter import Buffer, Parameter
from mtorch.residual import Residual
from mtorch.sequential import Sequential
from mtorch.unroll import Recurrent

if TYPE_CHECKING:
    from mtorch.insight.inspection import inspect as inspect

__version__ = "0.1.0"

__all__ = [
    "Adadelta", "Adagrad", "Adam", "AdamW", "BackwardError", "Bidirectional", "Buffer", "Container", "DataParallel",
    "Fork", "Graph", "Input", "Layer", "Module", "Parallel", "Parameter", "RMSprop", "Recurrent", "Residual", "SGD",
    "Sequential", "ShapeMismatchError", "ShapeNotMatchException", "fast", "layers", "load", "losses", "optim", "save",  # noqa: F405
    "seed", "summary", *_functions, *_losses,
]  # fmt: skip


def __getattr__(name: str):
    """`save`, `load` and `inspect` are fetched when first asked for: they would be a fifth of the import."""
    if name == "inspect":
        from mtorch.insight.inspection import inspect

        return inspect
    if name in ("load", "save"):
        from mtorch import checkpoint

        return getattr(checkpoint, name)
    from mtorch.keywords import NAMES

    ours = f": it is mtorch.{NAMES[name]}" if name in NAMES else ""
    raise AttributeError(f"module 'mtorch' has no attribute {name!r}{ours}")
