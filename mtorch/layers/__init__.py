"""All layers, and `on`, which binds their array module, dtype and random generator once."""

from mtorch.layers.conv import Conv1d, Conv2d
from mtorch.layers.conv_transpose import ConvTranspose2d
from mtorch.layers.dropout import Dropout
from mtorch.layers.elu import ELU
from mtorch.layers.gelu import GELU
from mtorch.layers.hardtanh import Hardtanh
from mtorch.layers.identity import Identity
from mtorch.layers.leaky_relu import LeakyReLU
from mtorch.layers.linear import Linear
from mtorch.layers.namespace import on
from mtorch.layers.pooling import AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from mtorch.layers.relu import ReLU
from mtorch.layers.reshape import Flatten, Reshape
from mtorch.layers.sigmoid import Sigmoid
from mtorch.layers.silu import SiLU
from mtorch.layers.softmax import LogSoftmax, Softmax
from mtorch.layers.softplus import Softplus
from mtorch.layers.tanh import Tanh

# The original mtorch's names.
Relu = ReLU
Linear2 = Linear3 = Linear

__all__ = [
    "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "Conv1d", "Conv2d", "ConvTranspose2d", "Dropout", "ELU", "Flatten",
    "GELU", "Hardtanh", "Identity", "LeakyReLU", "Linear", "Linear2", "Linear3", "LogSoftmax", "MaxPool1d",
    "MaxPool2d", "ReLU", "Relu", "Reshape", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "on",
]  # fmt: skip
