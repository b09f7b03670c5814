"""The simple recurrent layer: its equation, the cell, and the layer over time."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, Value
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.layers.recurrent import Cell, RecurrentLayer, State, affine, back_over_time, over_time


def step(
    xp: ModuleType, a: Array, state: State, weight_hh: Array, bias_hh: Array | None, nonlinearity: str
) -> tuple[State, Any]:
    """(h',) from a = W_ih x_t + b_ih and (h,), by the equation of `RNN`; and what `step_backward` needs."""
    z = a + affine(state[0], weight_hh, bias_hh)
    h = xp.tanh(z) if nonlinearity == "tanh" else xp.maximum(z, 0)
    return (h,), (h, nonlinearity)


def step_backward(xp: ModuleType, memory: Any, state_grad: State, weight_hh: Array) -> tuple[tuple, State]:
    """The gradients of z and of (h,), given dh, that of h'."""
    h, nonlinearity = memory
    (dh,) = state_grad
    dz = dh * (1 - h * h) if nonlinearity == "tanh" else dh * (h > 0)
    return (dz,), (dz.dot(weight_hh),)


class RNN(RecurrentLayer):
    """h' = f(W_ih x_t + b_ih + W_hh h + b_hh) with f = tanh or relu;  y_t = h'.

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, (h0, x) or (h0, x, lengths) with None for a zero state; h0 is (layers directions, N, H), or (N, H) for one
    layer and one direction. Lengths, `final_state`, `return_state`, `dropout` and chunks are as in `LSTM`.

    Backward: h_t feeds y_t and h_{t+1}, so from the last step to the first, with dh the sum of both gradients,
        dz = dh f'(z) with f'(z) = 1 - h'^2 for tanh, [h' > 0] for relu,
        dW_ih = sum_t dz_t^T x_t,  dW_hh = sum_t dz_t^T h_{t-1},  db_ih = db_hh = sum_t dz_t,
        dx_t = dz W_ih,  dh = dz W_hh + dy_{t-1}.
    The gradient has the form of what came in: dx, (dh0, dx) or (dh0, dx, None).

    Parameters weight_ih_l0 (H, D), weight_hh_l0 (H, H), bias_ih_l0, bias_hh_l0 (H,), then ..._l0_reverse, ..._l1, as
    in torch.

    Elman, "Finding structure in time", 1990.
    """

    gates = 1

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
        return_state: bool = False,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        more = (bias, batch_first, dropout, bidirectional, return_state)
        super().__init__(in_dim, out_dim, num_layers, *more, xp=xp, dtype=dtype, rng=rng)
        self.nonlinearity = check_nonlinearity("RNN", nonlinearity)

    @accelerated
    def forward(self, x: Value) -> Value:
        y, memory = self.through_layers(x, partial(over_time, partial(step, nonlinearity=self.nonlinearity)))
        self.remember(memory)
        return y

    @accelerated
    def backward(self, output_grad: Value) -> Value:
        g = self.cast_grad(output_grad)
        return self.back_through_layers(self.recall(), g, partial(back_over_time, step_backward), input_grad=True)

    @accelerated
    def backward_parameters(self, output_grad: Value) -> None:
        g = self.cast_grad(output_grad)
        self.back_through_layers(self.recall(), g, partial(back_over_time, step_backward), input_grad=False)

    def details(self) -> str:
        return super().details() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity!r}")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        on = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(3, 4, **on), (5, 2, 3)
        yield cls(3, 2, nonlinearity="relu", **on), ((2, 2), (4, 2, 3))
        yield cls(2, 3, num_layers=2, bidirectional=True, batch_first=True, **on), ((4, 2, 3), (2, 4, 2))
        yield cls(2, 2, nonlinearity="relu", num_layers=2, return_state=True, **on), (3, 2, 2)
        yield cls(3, 2, num_layers=3, bias=False, dropout=0.5, **on), (3, 4, 3)

        def padded(xp: ModuleType, rng: Any) -> tuple:
            h0 = xp.asarray(rng.standard_normal((2, 3, 2)))
            return h0, xp.asarray(rng.standard_normal((4, 3, 2))), xp.asarray([2, 4, 1])

        yield cls(2, 2, bidirectional=True, **on), padded


class RNNCell(Cell):
    """One step of `RNN`, by the same equation: (h, x) -> (h', h').

    Shapes: ((N, H), (N, D)) -> ((N, H), (N, H)).

    Backward: h' is returned twice, as state and as output, so that dh is the sum of both gradients; what follows is
    one step of `RNN`'s.
    """

    gates = 1

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(in_dim, out_dim, bias, xp=xp, dtype=dtype, rng=rng)
        self.nonlinearity = check_nonlinearity("RNNCell", nonlinearity)

    def forward(self, value: Value) -> Value:
        return self.one_step(value, partial(step, nonlinearity=self.nonlinearity))

    def backward(self, output_grad: Value) -> Value:
        return self.one_step_back(output_grad, step_backward)

    @classmethod
    def examples(cls, **options: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(**options)
        yield cls(3, 4, nonlinearity="relu", **options), ((2, 4), (2, 3))


def check_nonlinearity(layer: str, name: str) -> str:
    """The name; ValueError unless it is one of the two."""
    if not isinstance(name, str) or name not in ("tanh", "relu"):
        raise ValueError(f"{layer} expected nonlinearity 'tanh' or 'relu', got {shown(name)}")
    return name
