"""The gated recurrent unit: its equations, the cell, and the layer over time."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, Value
from mtorch.layer import Layer
from mtorch.layers.recurrent import Cell, RecurrentLayer, State, affine, back_over_time, gates, over_time
from mtorch.math.logistic import sigmoid


def step(xp: ModuleType, a: Array, state: State, weight_hh: Array, bias_hh: Array | None) -> tuple[State, Any]:
    """(h',) from a = W_ih x_t + b_ih and (h,), by the equations of `GRU`; and what `step_backward` needs."""
    (h,) = state
    a, s = gates(xp, a, 3), gates(xp, affine(h, weight_hh, bias_hh), 3)
    r, z = sigmoid(xp, a[:2] + s[:2])
    a_n, s_n = a[2], s[2]
    n = xp.tanh(a_n + r * s_n)
    return ((1 - z) * n + z * h,), (h, r, z, n, s_n)


def step_backward(xp: ModuleType, memory: Any, state_grad: State, weight_hh: Array) -> tuple[tuple, State]:
    """The gradients of a, of s = W_hh h + b_hh and of (h,), given dh, that of h'."""
    h, r, z, n, s_n = memory
    (dh,) = state_grad
    # in forward this was h' = (1 - z) n + z h
    da_z = dh * (h - n) * z * (1 - z)
    da_n = dh * (1 - z) * (1 - n * n)
    # n = tanh(a_n + r s_n)
    ds_n = da_n * r
    da_r = da_n * s_n * r * (1 - r)
    da, ds = xp.concatenate((da_r, da_z, da_n), axis=1), xp.concatenate((da_r, da_z, ds_n), axis=1)
    return (da, ds), (ds.dot(weight_hh) + dh * z,)


class GRU(RecurrentLayer):
    """r, z = sigmoid(a_r + s_r), sigmoid(a_z + s_z),  n = tanh(a_n + r s_n),  h' = (1 - z) n + z h,  y_t = h'
    with a = W_ih x_t + b_ih and s = W_hh h + b_hh.

    The reset gate acts after the product, as in torch and cuDNN (Cho et al. have it before).

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, (h0, x) or (h0, x, lengths) with None for a zero state; h0 is (layers directions, N, H), or (N, H) for one
    layer and one direction. Lengths, `final_state`, `return_state`, `dropout` and chunks are as in `LSTM`.

    Backward, from the last step to the first, with dh the gradient of h':
        da_z = dh (h - n) z (1 - z),  da_n = dh (1 - z) (1 - n^2),  ds_n = da_n r,  da_r = da_n s_n r (1 - r)
        da = (da_r, da_z, da_n),  ds = (da_r, da_z, ds_n),
        dW_ih = sum_t da_t^T x_t,  dW_hh = sum_t ds_t^T h_{t-1},  db_ih = sum_t da_t,  db_hh = sum_t ds_t,
        dx_t = da W_ih,  dh = ds W_hh + dh z + dy_{t-1}.
    The gradient has the form of what came in: dx, (dh0, dx) or (dh0, dx, None).

    Parameters weight_ih_l0 (3 H, D), weight_hh_l0 (3 H, H), bias_ih_l0, bias_hh_l0 (3 H,), gates r, z, n, then
    ..._l0_reverse, ..._l1, as in torch.

    Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, arXiv:1406.1078.
    """

    gates = 3

    @accelerated
    def forward(self, x: Value) -> Value:
        y, memory = self.through_layers(x, partial(over_time, step))
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

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        on = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(3, 4, **on), (5, 2, 3)
        yield cls(3, 2, return_state=True, **on), ((2, 2), (4, 2, 3))
        yield cls(2, 3, num_layers=2, bidirectional=True, batch_first=True, **on), ((4, 2, 3), (2, 4, 2))
        yield cls(3, 2, num_layers=2, bias=False, dropout=0.5, **on), (3, 4, 3)

        def padded(xp: ModuleType, rng: Any) -> tuple:
            return None, xp.asarray(rng.standard_normal((4, 3, 2))), xp.asarray([2, 4, 1])

        yield cls(2, 2, num_layers=2, bidirectional=True, return_state=True, **on), padded


class GRUCell(Cell):
    """One step of `GRU`, by the same equations: (h, x) -> (h', h').

    Shapes: ((N, H), (N, D)) -> ((N, H), (N, H)).

    Backward: h' is returned twice, as state and as output, so that dh is the sum of both gradients; what follows is
    one step of `GRU`'s.
    """

    gates = 3

    def forward(self, value: Value) -> Value:
        return self.one_step(value, step)

    def backward(self, output_grad: Value) -> Value:
        return self.one_step_back(output_grad, step_backward)
