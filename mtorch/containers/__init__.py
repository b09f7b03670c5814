"""Layers made of layers."""

from mtorch.containers.bidirectional import Bidirectional
from mtorch.containers.data_parallel import DataParallel
from mtorch.containers.expression import Expression, Input
from mtorch.containers.fork import Fork, Parallel
from mtorch.containers.graph import Graph
from mtorch.containers.recurrent import Recurrent
from mtorch.containers.residual import Residual
from mtorch.containers.sequential import Sequential

__all__ = [
    "Bidirectional", "DataParallel", "Expression", "Fork", "Graph", "Input", "Parallel", "Recurrent", "Residual",
    "Sequential",
]  # fmt: skip
