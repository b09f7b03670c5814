"""A body with a way around it."""

from collections.abc import Iterator
from typing import Any

from mtorch import arrays, guards
from mtorch.arrays import Value
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class Residual(Container):
    """y = body(x) + shortcut(x); without a shortcut, y = body(x) + x.

    Shapes: those of the body; both branches must return the same shape, nothing broadcasts.

    Backward: x feeds both branches, so their input gradients add: dx = body'(output_grad) + shortcut'(output_grad).

    He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None):
        branches = self.cores((body,) if shortcut is None else (body, shortcut))
        super().__init__(branches)
        self.body, self.takes = branches[0], branches[0].takes
        self.shortcut = None if shortcut is None else branches[1]

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        out = self.body.infer_shape(known)
        around = known if self.shortcut is None else self.shortcut.infer_shape(known)
        for axis, size in out.items():
            if around.get(axis, size) != size:
                got = f"{size} and {around[axis]} entries on axis {axis}"
                raise ShapeMismatchError(self, f"expected both branches to return one shape, got {got}")
        return around | out

    def cast_input(self, x: Value) -> Value:
        return self.body.cast_input(x)

    def forward(self, x: Value) -> Value:
        tape = Tape(self)
        around = x if self.shortcut is None else tape.call(self.shortcut, x)
        y = tape.call(self.body, x)
        if arrays.shape_value(y) != arrays.shape_value(around):
            tape.undo()
            got = f"{arrays.shape_value(y)} and {arrays.shape_value(around)}"
            raise ShapeMismatchError(self, f"expected both branches to return one shape, got {got}")
        self.remember(tape)
        return self.returns(guards.as_value(self, arrays.add_values(y, around)))

    def backward(self, output_grad: Value) -> Value:
        g = self.cast_grad(output_grad)
        tape = self.recall()
        through = tape.pull(g)
        around = g if self.shortcut is None else tape.pull(g)
        return guards.as_grad(arrays.add_values(through, around))

    def backward_parameters(self, output_grad: Value) -> None:
        g = self.cast_grad(output_grad)
        tape = self.recall()
        while tape.calls:
            tape.pull_parameters(g)

    def details(self) -> str:
        return f"{self.body!r}" + ("" if self.shortcut is None else f", {self.shortcut!r}")

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.Linear(3, 3)), (4, 3)
        yield cls(nn.Linear(3, 2), shortcut=nn.Linear(3, 2, bias=False)), (2, 5, 3)
        yield cls(nn.Identity()), (2, 3)
