"""Old names of classes and modules, which stay for those who use them."""

import sys

from mtorch.errors import ShapeMismatchError
from mtorch.insight import summary
from mtorch.layers.constant_operand import ConstantOperand
from mtorch.layers.get_item import GetItem
from mtorch.layers.linear import Linear
from mtorch.layers.relu import ReLU

Fixed = ConstantOperand
Select = GetItem

# The names of the original mtorch.
Linear2 = Linear3 = Linear
Relu = ReLU
ShapeNotMatchException = ShapeMismatchError

# `from mtorch.summary import count_parameters`, though the attribute `mtorch.summary` is the function.
sys.modules["mtorch.summary"] = summary
