# ruff: noqa: I001  the layers stand in families; tools/make_catalogue.py reads the headings
"""All layers, one line a file, and `on`, which binds their array module, dtype and random generator once."""

from mtorch.layers.namespace import on as on

# Linear
from mtorch.layers.linear import Linear as Linear

# Activations
from mtorch.layers.relu import ReLU as ReLU
from mtorch.layers.leaky_relu import LeakyReLU as LeakyReLU
from mtorch.layers.elu import ELU as ELU
from mtorch.layers.gelu import GELU as GELU
from mtorch.layers.silu import SiLU as SiLU
from mtorch.layers.softplus import Softplus as Softplus
from mtorch.layers.hardtanh import Hardtanh as Hardtanh
from mtorch.layers.sigmoid import Sigmoid as Sigmoid
from mtorch.layers.tanh import Tanh as Tanh
from mtorch.layers.softmax import LogSoftmax as LogSoftmax, Softmax as Softmax

# Convolution
from mtorch.layers.conv import Conv1d as Conv1d, Conv2d as Conv2d
from mtorch.layers.conv_transpose import ConvTranspose2d as ConvTranspose2d

# Pooling
from mtorch.layers.pooling import AvgPool1d as AvgPool1d, AvgPool2d as AvgPool2d
from mtorch.layers.pooling import MaxPool1d as MaxPool1d, MaxPool2d as MaxPool2d
from mtorch.layers.adaptive_pooling import AdaptiveAvgPool2d as AdaptiveAvgPool2d

# Normalisation
from mtorch.layers.batchnorm import BatchNorm1d as BatchNorm1d, BatchNorm2d as BatchNorm2d
from mtorch.layers.layernorm import LayerNorm as LayerNorm
from mtorch.layers.groupnorm import GroupNorm as GroupNorm
from mtorch.layers.rmsnorm import RMSNorm as RMSNorm

# Regularisation
from mtorch.layers.dropout import Dropout as Dropout

# Sequences
from mtorch.layers.rnn import RNN as RNN, RNNCell as RNNCell
from mtorch.layers.gru import GRU as GRU, GRUCell as GRUCell
from mtorch.layers.lstm import LSTM as LSTM, LSTMCell as LSTMCell

# Attention and ids
from mtorch.layers.attention import MultiHeadAttention as MultiHeadAttention
from mtorch.layers.positional import PositionalEmbedding as PositionalEmbedding
from mtorch.layers.embedding import Embedding as Embedding

# Operators
from mtorch.layers.arithmetic import Add as Add, Divide as Divide, Multiply as Multiply, Subtract as Subtract
from mtorch.layers.arithmetic import Maximum as Maximum, Minimum as Minimum
from mtorch.layers.matmul import MatMul as MatMul
from mtorch.layers.power import Pow as Pow, Power as Power
from mtorch.layers.elementwise import Abs as Abs, Exp as Exp, Log as Log
from mtorch.layers.elementwise import Negative as Negative, Sqrt as Sqrt, Square as Square
from mtorch.layers.constant_operand import ConstantOperand as ConstantOperand

# Reductions
from mtorch.layers.reductions import Max as Max, Mean as Mean, Min as Min, Sum as Sum

# Shapes
from mtorch.layers.reshape import Flatten as Flatten, Reshape as Reshape
from mtorch.layers.transpose import Transpose as Transpose
from mtorch.layers.slice import Slice as Slice
from mtorch.layers.get_item import GetItem as GetItem
from mtorch.layers.concat import Concat as Concat, Split as Split
from mtorch.layers.identity import Identity as Identity
from mtorch.layers.probe import Probe as Probe

# Other names
from mtorch.aliases import Fixed as Fixed, Linear2 as Linear2, Linear3 as Linear3, Relu as Relu, Select as Select

__all__ = [name for name, item in globals().items() if isinstance(item, type)] + ["on"]
