"""All layers, and `on`, which binds their array module, dtype and random generator once."""

from mtorch.aliases import Fixed, Linear2, Linear3, Relu, Select
from mtorch.layers.adaptive_pooling import AdaptiveAvgPool2d
from mtorch.layers.arithmetic import Add, Divide, Maximum, Minimum, Multiply, Subtract
from mtorch.layers.attention import MultiHeadAttention
from mtorch.layers.batchnorm import BatchNorm1d, BatchNorm2d
from mtorch.layers.cells import GRUCell, LSTMCell, RNNCell
from mtorch.layers.concat import Concat, Split
from mtorch.layers.constant_operand import ConstantOperand
from mtorch.layers.conv import Conv1d, Conv2d
from mtorch.layers.conv_transpose import ConvTranspose2d
from mtorch.layers.dropout import Dropout
from mtorch.layers.elementwise import Abs, Exp, Log, Negative, Sqrt, Square
from mtorch.layers.elu import ELU
from mtorch.layers.embedding import Embedding
from mtorch.layers.gelu import GELU
from mtorch.layers.get_item import GetItem
from mtorch.layers.groupnorm import GroupNorm
from mtorch.layers.gru import GRU
from mtorch.layers.hardtanh import Hardtanh
from mtorch.layers.identity import Identity
from mtorch.layers.layernorm import LayerNorm
from mtorch.layers.leaky_relu import LeakyReLU
from mtorch.layers.linear import Linear
from mtorch.layers.lstm import LSTM
from mtorch.layers.matmul import MatMul
from mtorch.layers.namespace import on
from mtorch.layers.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from mtorch.layers.positional import PositionalEmbedding
from mtorch.layers.power import Pow, Power
from mtorch.layers.reductions import Max, Mean, Min, Sum
from mtorch.layers.relu import ReLU
from mtorch.layers.reshape import Flatten, Reshape
from mtorch.layers.rmsnorm import RMSNorm
from mtorch.layers.rnn import RNN
from mtorch.layers.sigmoid import Sigmoid
from mtorch.layers.silu import SiLU
from mtorch.layers.slice import Slice
from mtorch.layers.softmax import LogSoftmax, Softmax
from mtorch.layers.softplus import Softplus
from mtorch.layers.tanh import Tanh
from mtorch.layers.transpose import Transpose

__all__ = [
    "Abs", "AdaptiveAvgPool2d", "Add", "AvgPool1d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Concat",
    "ConstantOperand", "Conv1d", "Conv2d", "ConvTranspose2d", "Divide", "Dropout", "ELU", "Embedding", "Exp",
    "Fixed", "Flatten", "GELU", "GRU", "GRUCell", "GetItem", "GroupNorm", "Hardtanh", "Identity", "LSTM",
    "LSTMCell", "LayerNorm", "LeakyReLU", "Linear", "Linear2", "Linear3", "Log", "LogSoftmax", "MatMul", "Max",
    "MaxPool1d", "MaxPool2d", "Maximum", "Mean", "Min", "Minimum", "MultiHeadAttention", "Multiply", "Negative",
    "PositionalEmbedding", "Pow", "Power", "RMSNorm", "RNN", "RNNCell", "ReLU", "Relu", "Reshape", "Select", "SiLU",
    "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Square", "Subtract", "Sum", "Tanh", "Transpose",
    "on",
]  # fmt: skip
