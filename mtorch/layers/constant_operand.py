"""An operator one of whose operands is a constant."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, as_array, unbroadcast
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Divide, Multiply, Operator, Subtract, named
from mtorch.layers.matmul import MatMul
from mtorch.layers.power import Pow
from mtorch.parameter import Buffer


class ConstantOperand(Layer):
    """y = f(x, c), or f(c, x) with `left=c`: an operator on one array, because the other operand is a constant.

    operator: Add, Multiply, MatMul, ...  left, right: the constant, one of both: a number or an array. It is no
    parameter and not part of the state dict; a copy in another dtype casts it anew from what was given.

    Shapes: as the operator's.

    Backward: c does not move, so with g = output_grad  dx = g df/dx as in the operator's backward, summed over the axes
    on which x was stretched; c has no gradient.
    """

    array_only = True

    def __init__(
        self,
        operator: Operator,
        *,
        left: Any = None,
        right: Any = None,
        xp: ModuleType | None = None,
        dtype: Any = None,
        rng: Any = None,
    ):
        if not isinstance(operator, Operator):
            raise TypeError(f"ConstantOperand expected an operator of two arrays, got {shown(operator)}")
        if (left is None) == (right is None):
            raise ValueError("ConstantOperand expected one constant, left or right")
        super().__init__(xp=operator.xp if xp is None else xp, dtype=operator.dtype if dtype is None else dtype)
        who, given = ("ConstantOperand right:", right) if left is None else ("ConstantOperand left:", left)
        if arrays.array_module(given, who) in (None, numpy):
            given = arrays.host_array(given, who)
        self.operator, self.on_left = operator, left is not None
        self.given = given.copy()
        self.constant = Buffer(self.given, persistent=False)
        self._adopt(self.xp, self.dtype)

    def _adopt(self, xp: ModuleType, dtype: Any) -> None:
        self.xp, self.dtype = xp, dtype
        self.operator._adopt(xp, dtype)
        here = arrays.array_module(self.given) is xp
        self.constant.value = xp.asarray(self.given if here else arrays.as_numpy(self.given), dtype=dtype)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        shape = self.given.shape
        if not shape:
            return known
        sizes = known, {axis - len(shape): n for axis, n in enumerate(shape)}
        return self.operator.broadcast_shapes(*(sizes[::-1] if self.on_left else sizes))

    def forward(self, x: Array) -> Array:
        operator, c = self.operator, self.constant.value
        a, b = (c, x) if self.on_left else (x, c)
        y = operator.combine(a, b)
        self.remember(x.shape, named(operator.right_reads if self.on_left else operator.left_reads, a, b, y))
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape, known = self.recall()
        product = self.operator.right if self.on_left else self.operator.left
        return as_array(self.xp, unbroadcast(product(g, *known), shape))

    def details(self) -> str:
        c = self.given
        text = c.item() if c.ndim == 0 and isinstance(c, numpy.ndarray) else f"an array of shape {c.shape}"
        return f"{type(self.operator).__name__}, {'left' if self.on_left else 'right'}={text}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        options = {"xp": xp, "dtype": dtype}
        yield cls(Multiply(**options), right=2.5), (4, 3)
        yield cls(Subtract(**options), left=[[1.0, 2.0, 3.0]] * 2), (3,)
        yield cls(Divide(**options), left=3), lambda xp, rng: xp.asarray(rng.uniform(0.5, 1.5, (2, 3)))
        yield cls(MatMul(**options), right=[[1.0, -1.0], [0.5, 2.0], [3.0, 0.1]]), (2, 4, 3)
        yield cls(MatMul(**options), left=[[1.0, -1.0, 2.0]]), (2, 3, 4)
        yield cls(Pow(**options), left=2.0), (2, 3)
