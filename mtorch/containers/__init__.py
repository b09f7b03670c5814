"""Layers made of layers."""

from mtorch.containers.fork import Fork, Parallel
from mtorch.containers.residual import Residual
from mtorch.containers.sequential import Sequential

__all__ = ["Fork", "Parallel", "Residual", "Sequential"]
