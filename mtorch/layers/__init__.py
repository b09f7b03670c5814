"""All layers, and `on`, which binds their array module, dtype and random generator once."""

from mtorch.layers.identity import Identity
from mtorch.layers.linear import Linear
from mtorch.layers.namespace import on
from mtorch.layers.relu import ReLU
from mtorch.layers.reshape import Flatten, Reshape
from mtorch.layers.sigmoid import Sigmoid
from mtorch.layers.tanh import Tanh

# The original mtorch's names.
Relu = ReLU
Linear2 = Linear3 = Linear

__all__ = ["Flatten", "Identity", "Linear", "Linear2", "Linear3", "ReLU", "Relu", "Reshape", "Sigmoid", "Tanh", "on"]
