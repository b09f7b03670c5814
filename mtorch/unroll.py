"""A cell unrolled over time."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays, guards
from mtorch.arrays import Array, Value
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.recurrent import Cell
from mtorch.states import Recurrence


class Recurrent(Recurrence, Container):
    """s_{t+1}, y_t = cell((s_t, x_t)) for t = 0 ... T-1: any layer that takes (state, x) and returns (state, y).

    Shapes: x (T, N, ...) -> y (T, N, ...).  Takes x, where the cell has an `initial_state`, or (s_0, x). With a cell
    of `mtorch.layers` s_0 may also be (1, N, H), as for `RNN`. `final_state` is s_T, without gradient.

    Backward: the one cell stands at every step, with that step's memory; from the last step to the first
        (ds_t, dx_t) = cell'((ds_{t+1}, dy_t)),  ds_T = 0,
    and its parameters collect the gradients of all steps. The gradient is dx, or (ds_0, dx).
    """

    def __init__(self, cell: Layer):
        (self.cell,) = cells = self.cores((cell,))
        super().__init__(cells)
        self.takes, self.final_state = self.cell.takes, None

    def cast_input(self, value: Value) -> Value:
        paired = isinstance(value, tuple) and len(value) == 2 and value[0] is not None
        return self.cell.cast_input(value) if paired else guards.cast(self, value, "floats")

    def forward(self, value: Value) -> Value:
        state, x = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        if isinstance(x, tuple) or x is None or x.ndim < 2 or not len(x):
            raise ShapeMismatchError(self, f"expected x (T, N, ...) or (state, x), got {arrays.shape_value(value)}")
        state = self.begin_with(state)
        given, stacked = state is not None, _is_stacked(self.cell, state)
        state = _first(state) if stacked else state if given else self._zeros(x)
        start, tape, outputs = state, Tape(self), []
        for x_t in x:
            result = tape.call(self.cell, (state, x_t))
            if not isinstance(result, tuple) or len(result) != 2:
                raise ShapeMismatchError(self, f"expected (state, y) from the cell, got {arrays.shape_value(result)}")
            state, y = result
            outputs.append(y)
        self.end_with(_as_stack(state) if stacked else state)
        self.remember(tape, start, x is not value, given, stacked)
        return self.returns(self.xp.stack(outputs))

    def backward(self, output_grad: Array) -> Value:
        output_grad = self.cast_grad(output_grad)
        tape, start, paired, given, stacked = self.recall()
        dstate, grads = arrays.map_value(self.xp.zeros_like, start), []
        for t in range(len(output_grad) - 1, -1, -1):
            dstate, dx = tape.pull((dstate, output_grad[t]))
            grads.append(dx)
        dx = None if grads[0] is None else self.xp.stack(grads[::-1])
        dstate = _as_stack(dstate) if stacked else dstate if given else None
        return (dstate, dx) if paired else dx

    def _zeros(self, x: Array) -> Value:
        if not isinstance(self.cell, Cell):
            raise ShapeMismatchError(self, "expected (state, x), because the cell has no initial state, got x alone")
        return self.cell.initial_state(x.shape[1])

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        if not isinstance(self.cell, Cell):
            return {}
        self.check_dim(known, -1, self.cell.in_dim)
        return {-1: self.cell.out_dim}

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        super()._adopt(xp, dtype)
        self.final_state = None

    def details(self) -> str:
        return repr(self.cell)

    def place(self, layer: Layer, position: int) -> str:
        return f"step {position} of Recurrent"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.RNNCell(3, 2)), (4, 2, 3)
        yield cls(nn.LSTMCell(2, 3)), (((2, 3), (2, 3)), (5, 2, 2))
        yield cls(nn.GRUCell(2, 3)), ((1, 2, 3), (3, 2, 2))


def _is_stacked(cell: Layer, state: Value) -> bool:
    parts = state if isinstance(state, tuple) else (state,)
    return isinstance(cell, Cell) and all(getattr(part, "ndim", 0) == 3 and len(part) == 1 for part in parts)


def _first(state: Value) -> Value:
    return arrays.map_value(lambda part: part[0], state)


def _as_stack(state: Value) -> Value:
    return arrays.map_value(lambda part: part[None], state)
