"""Layers made of layers."""

from mtorch.containers.expression import Expression, Input
from mtorch.containers.fork import Fork, Parallel
from mtorch.containers.graph import Graph
from mtorch.containers.residual import Residual
from mtorch.containers.sequential import Sequential

__all__ = ["Expression", "Fork", "Graph", "Input", "Parallel", "Residual", "Sequential"]
