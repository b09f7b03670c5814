"""Expressions: formulas over inputs, parameters and layers, which are traced instead of computed.

For example:

    x = Input("x")
    y = exp(x) + Linear(3, 3)(x) * 0.5          # nothing is computed
    net = Graph.of(y)                            # a layer
"""

import copy
from collections.abc import Iterator
from itertools import count
from typing import Any, NoReturn

from mtorch import arrays
from mtorch.checks import shown
from mtorch.graph.table import Constant, leaves, mapped
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Add, Divide, Multiply, Subtract
from mtorch.layers.elementwise import Abs, Negative
from mtorch.layers.get_item import GetItem
from mtorch.layers.matmul import MatMul
from mtorch.layers.power import Pow, Power
from mtorch.layers.slice import Slice
from mtorch.layers.transpose import Transpose
from mtorch.operators import Operand
from mtorch.parameter import Buffer, Parameter

_serial = count()


def _as_leaf(x: Any) -> Any:
    return x if isinstance(x, Expression | Parameter | Buffer | Constant) else Constant(x)


OPERATORS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Add, Subtract, Multiply, Divide, MatMul, Pow, Negative, Abs, Transpose, Slice)
}


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) or (arrays.is_array(x) and x.ndim == 0)


def _is_operand(x: Any) -> bool:
    if isinstance(x, bool):
        return False
    leaf = isinstance(x, Expression | Parameter | Buffer | int | float | list)
    return leaf or arrays.is_array(x, "A constant of Graph")


class Expression(Operand):
    """A layer on operands: other expressions, parameters, numbers and arrays, in tuples where the layer takes tuples.

    Its truth, its size and its entries are not known, so Python cannot branch on it. One that stands for a tuple of
    known length can be unpacked: `a, b = split(x, 2)`.
    """

    def __init__(self, layer: Layer | None, operand: Any, by_operator: bool = False):
        self.layer, self.by_operator = layer, by_operator  # made by an operator or function, not by the user
        self.operand = mapped(_as_leaf, operand)
        self.serial = next(_serial)

    def __getitem__(self, index: Any) -> Any:
        parts = self.layer.parts if self.layer is not None else None
        if parts is None:
            return super().__getitem__(index)
        if not isinstance(index, int) or not -parts <= index < parts:
            raise IndexError(f"{self!r} is a tuple of {parts}, got the index {index!r}")
        return Expression(GetItem(index), self, by_operator=True)

    def __iter__(self) -> Iterator["Expression"]:
        parts = self.layer.parts if self.layer is not None else None
        if parts is None:
            fix = "take the parts of a tuple with GetItem(i)(it), those of an axis with split"
            raise TypeError(f"{self!r} has no known length: {fix}")
        return (self[i] for i in range(parts))

    def _compared(self, other: Any) -> NoReturn:
        fix = "use maximum, minimum, clip, relu or abs, or give `where` its condition as an input"
        raise TypeError(f"{self!r} cannot be compared: its numbers are not there yet; {fix}")

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value: Python cannot branch on data that is not there yet")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and copy look for
            raise AttributeError(name)
        raise AttributeError(
            f"{type(self).__name__} has no {name!r}: it stands for data that is not there yet. Use layers "
            f"(Reshape, Flatten), operators, indexing and the functions of mtorch (mtorch.sum, mtorch.exp)"
        )

    def __repr__(self) -> str:
        return f"<expression {self.layer!r}>"


def _express(layer: Layer | str, operand: Any, *arguments: Any) -> Expression:
    """The layer, or that of an operator, on an operand; NotImplemented where it is none that an operator takes."""
    if isinstance(layer, Layer):
        return Expression(layer, operand)
    if operand.__class__ is tuple and not all(map(_is_operand, operand)):
        return NotImplemented
    if layer == "Pow" and _is_number(operand[1]):
        operand, number = operand
        return Expression(Power(number if isinstance(number, int | float) else number.item()), operand, True)
    return Expression(OPERATORS[layer](*arguments), operand, by_operator=True)


Operand.express = staticmethod(_express)


class Input(Expression):
    """What a Graph will be given. The name is for errors; without one the position is used."""

    def __init__(self, name: str | None = None):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"Input expected a name, got {shown(name)}")
        super().__init__(None, None)
        self.name = name

    def __repr__(self) -> str:
        return f"Input({'' if self.name is None else repr(self.name)})"


def reading_order(result: Any) -> list[Expression]:
    """All expressions that the result is made of, in the order in which they were written."""
    found: dict[int, Expression] = {}
    stack = list(leaves(result))
    while stack:
        expression = stack.pop()
        if id(expression) not in found:
            found[id(expression)] = expression
            stack.extend(leaf for leaf in leaves(expression.operand) if isinstance(leaf, Expression))
    return sorted(found.values(), key=lambda expression: expression.serial)


def table_of(
    result: Any, inputs: tuple[Input, ...] | None, names: dict[int, str]
) -> tuple[tuple[str, ...], dict[str, Any], Any]:
    """(inputs, nodes, outputs) as `Graph` takes them. Without `inputs` they come in the order of first use.

    names: what to call the nodes of the layers with these ids; the others are called after their class.
    """
    written = reading_order(result)
    used = [leaf for each in written for leaf in leaves(each.operand) if isinstance(leaf, Input)]
    found = list(dict.fromkeys(used + [leaf for leaf in leaves(result) if isinstance(leaf, Input)]))
    if not found:
        raise ValueError("Graph.of expected an expression of at least one Input")
    for given in found:
        if inputs is not None and given not in inputs:
            raise ValueError(f"Graph.of met {given!r}, which is not among its inputs")
    inputs = tuple(found) if inputs is None else tuple(inputs)
    called: dict[int, str] = {}
    taken: dict[str, int] = {}
    reserved = set(names.values())

    def give_name(expression: Expression, wish: str, named: bool = False) -> None:
        name, number = wish, taken.get(wish, 0)
        while name in taken or (name in reserved and not named):
            number += 1
            name = f"{wish}{number}"
        taken[name] = taken[wish] = number
        called[id(expression)] = name

    for given in inputs:
        if given.name is not None:
            if given.name in taken:
                raise ValueError(f"Graph.of met two inputs named {given.name!r}")
            give_name(given, given.name, named=True)
    for given in inputs:
        if given.name is None:
            give_name(given, "x")
    first = next((each.layer for each in written if each.layer is not None and not each.by_operator), None)
    nodes: dict[str, Any] = {}
    for each in written:
        if not isinstance(each, Input):
            named = names.get(id(each.layer))
            give_name(each, named or type(each.layer).__name__.lower(), named is not None)
            layer: Any = each.layer
            if each.by_operator:  # each graph gets its own, of the array module and dtype of the user's first layer
                layer = copy.copy(layer)
                if first is not None:
                    layer._adopt(first.xp, first.dtype)
            operand = mapped(lambda leaf: called[id(leaf)] if isinstance(leaf, Expression) else leaf, each.operand)
            nodes[called[id(each)]] = (layer, operand)
    return tuple(called[id(each)] for each in inputs), nodes, mapped(lambda leaf: called[id(leaf)], result)
