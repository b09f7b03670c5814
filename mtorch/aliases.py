"""Old names of classes, which stay for those who use them."""

from mtorch.errors import ShapeMismatchError
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
