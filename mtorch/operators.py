"""The operators of formulas, which expressions, parameters and buffers share: `2.0 * w + x @ w.T`."""

from collections.abc import Callable
from typing import Any, NoReturn


def _methods(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """The method of the operator that a layer of that name computes, and the reflected one."""
    return (
        lambda self, other: Operand.express(name, (self, other)),
        lambda self, other: Operand.express(name, (other, self)),
    )


class Operand:
    """What a formula is written over. It knows `+ - * / ** @`, unary minus, `abs`, `.T` and indexing.

    Nothing is computed: the result is an expression, which becomes a `Graph`, in the forward of a `Module` or by
    `Graph.of`. `==` compares identity.
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that NumPy and CuPy leave `array * operand` to the operand

    express: Callable[..., Any]  # (name of the layer, operand, *arguments) -> expression; graph/expression.py sets it

    __add__, __radd__ = _methods("Add")
    __sub__, __rsub__ = _methods("Subtract")
    __mul__, __rmul__ = _methods("Multiply")
    __truediv__, __rtruediv__ = _methods("Divide")
    __matmul__, __rmatmul__ = _methods("MatMul")
    __pow__, __rpow__ = _methods("Pow")

    def __neg__(self) -> Any:
        return Operand.express("Negative", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return Operand.express("Abs", self)

    @property
    def T(self) -> Any:
        """All axes, the batch included, in reverse order."""
        return Operand.express("Transpose", self)

    def __getitem__(self, index: Any) -> Any:
        return Operand.express("Slice", self, index)


class Stored(Operand):
    """An operand that has a value. It is not iterable, and `w *= 2` is an error: it would make an expression of w."""

    __slots__ = ()
    __iter__: Any = None

    def _in_place(self, other: Any) -> NoReturn:
        raise TypeError(f"{self!r} does not change in place: write `w.value *= 2`, or `y = 2 * w` for a formula")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __imatmul__ = __ipow__ = _in_place
