"""One value to several branches, and several values to one branch each."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

from mtorch import arrays
from mtorch.arrays import Value
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer


class _Branches(Container):
    """Layers side by side, named by position."""

    def __init__(self, *branches: Layer):
        if not branches:
            raise ValueError(f"{type(self).__name__} needs at least one branch")
        self.branches = self.cores(branches)
        self.parts = len(self.branches)
        super().__init__(self.branches)

    def children(self) -> Iterator[tuple[str, Layer]]:
        return ((str(i), branch) for i, branch in enumerate(self.branches))

    def backward_parameters(self, output_grad: tuple[Value, ...]) -> None:
        grads = self.cast_grad(output_grad)
        tape = self.recall()
        for g in reversed(grads):
            tape.pull_parameters(g)

    def place(self, layer: Layer, position: int) -> str:
        return f"branch {position} of {type(self).__name__}"

    def details(self) -> str:
        return ", ".join(map(repr, self.branches))


class Fork(_Branches):
    """y = (f_1(x), ..., f_n(x)): one value to every branch, a tuple comes back.

    Shapes: what every branch takes -> a tuple of what the branches return.

    Backward: x feeds every branch, so their input gradients add: dx = f_1'(g_1) + ... + f_n'(g_n) with output_grad =
    (g_1, ..., g_n).
    """

    def __init__(self, *branches: Layer):
        super().__init__(*branches)
        self.first_computing = next((branch for branch in self.branches if not branch.moves_data), self.branches[0])
        self.takes = self.first_computing.takes

    def cast_input(self, x: Value) -> Value:
        return self.first_computing.cast_input(x)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        for branch in self.branches:
            branch.infer_shape(known)
        return {}

    def forward(self, x: Value) -> tuple[Value, ...]:
        tape = Tape(self)
        y = tuple([tape.call(branch, x) for branch in self.branches])
        self.remember(tape)
        return self.returns(y)

    def backward(self, output_grad: tuple[Value, ...]) -> Value:
        grads = self.cast_grad(output_grad)
        tape = self.recall()
        return reduce(arrays.add_values, [tape.pull(g) for g in reversed(grads)])

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.Linear(3, 2), nn.Identity(), nn.Tanh()), (4, 3)


class Parallel(_Branches):
    """y = (f_1(x_1), ..., f_n(x_n)): a tuple of as many values as branches, each to its own.

    Shapes: a tuple of what the branches take -> a tuple of what they return.

    Backward: no branch sees another's value, so each branch answers for its own value, dx_i = f_i'(output_grad_i).
    """

    def _parts(self, x: Value) -> tuple[Value, ...]:
        if not isinstance(x, tuple) or len(x) != len(self.branches):
            got = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
            raise ShapeMismatchError(self, f"expected a tuple of {len(self.branches)}, got {got}")
        return x

    def __init__(self, *branches: Layer):
        super().__init__(*branches)
        self.takes = tuple(branch.takes for branch in self.branches)

    def cast_input(self, x: Value) -> Value:
        return tuple(branch.cast_input(part) for branch, part in zip(self.branches, self._parts(x), strict=True))

    def forward(self, x: tuple[Value, ...]) -> tuple[Value, ...]:
        tape = Tape(self)
        y = tuple([tape.call(branch, part) for branch, part in zip(self.branches, self._parts(x), strict=True)])
        self.remember(tape)
        return self.returns(y)

    def backward(self, output_grad: tuple[Value, ...]) -> tuple[Value, ...]:
        grads = self.cast_grad(output_grad)
        tape = self.recall()
        return tuple([tape.pull(g) for g in reversed(grads)][::-1])

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.Linear(3, 2), nn.Tanh()), ((4, 3), (2, 5))
