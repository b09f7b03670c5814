"""Networks whose layers form a directed acyclic graph."""

from mtorch.graph.expression import Expression, Input
from mtorch.graph.graph import Graph

__all__ = ["Expression", "Graph", "Input"]
