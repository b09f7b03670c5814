"""Long short-term memory: its equations, the cell, and the layer over time."""

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
    """(h', c') from a = W_ih x_t + b_ih and (h, c), by the equations of `LSTM`; and what `step_backward` needs."""
    h, c = state
    z = gates(xp, a + affine(h, weight_hh, bias_hh), 4)
    i, f, _, o = sigmoid(xp, z)  # the third is not used: g is a tanh
    g = xp.tanh(z[2])
    c_new = f * c + i * g
    tanh_c = xp.tanh(c_new)
    return (o * tanh_c, c_new), (c, i, f, g, o, tanh_c)


def step_backward(xp: ModuleType, memory: Any, state_grad: State, weight_hh: Array) -> tuple[tuple, State]:
    """The gradients of z and of (h, c), given dh and dc, those of (h', c')."""
    c, i, f, g, o, tanh_c = memory
    dh, dc = state_grad
    # in forward this was h' = o tanh(c')
    dz_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    # c' = f c + i g
    dz_i = dc * g * i * (1 - i)
    dz_f = dc * c * f * (1 - f)
    dz_g = dc * i * (1 - g * g)
    # z = a + W_hh h + b_hh
    dz = xp.concatenate((dz_i, dz_f, dz_g, dz_o), axis=1)
    return (dz,), (dz.dot(weight_hh), dc * f)


class LSTM(RecurrentLayer):
    """i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o), g = tanh(z_g) with z = W_ih x_t + b_ih + W_hh h + b_hh;
    c' = f c + i g,  h' = o tanh(c'),  y_t = h'.

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, ((h0, c0), x) or ((h0, c0), x, lengths) with None for a zero state; h0 and c0 are
    (layers directions, N, H), or (N, H) for one layer and one direction. With lengths (N,) the steps beyond a
    sequence's end do not count: y is 0 there, the last state is that at the end, the reverse direction starts there.

    Backward, from the last step to the first, with dh, dc the gradients of h', c':
        dc += dh o (1 - tanh(c')^2)
        dz_i = dc g i (1 - i),  dz_f = dc c f (1 - f),  dz_g = dc i (1 - g^2),  dz_o = dh tanh(c') o (1 - o)
        dW_ih = sum_t dz_t^T x_t,  dW_hh = sum_t dz_t^T h_{t-1},  db_ih = db_hh = sum_t dz_t,
        dx_t = dz W_ih,  dh = dz W_hh + dy_{t-1},  dc = dc f.
    The gradient has the form of what came in: dx, ((dh0, dc0), dx) or ((dh0, dc0), dx, None).

    Parameters weight_ih_l0 (4 H, D), weight_hh_l0 (4 H, H), bias_ih_l0, bias_hh_l0 (4 H,), gates i, f, g, o, then
    ..._l0_reverse, ..._l1, as in torch. `dropout` acts between layers.

    A long sequence can be processed in chunks (truncated backpropagation): give `final_state`, the last state of the
    last forward, to the next chunk; no gradient flows back through it. With return_state=True the layer returns
    (state, y), with gradients through both.

        for chunk, target in chunks:
            y = lstm(chunk if lstm.final_state is None else (lstm.final_state, chunk))
            loss_func(y, target).backward()
            optimizer.step()

    A net writes step by step with `y, state = net.predict(x, state=state)`: see docs/sampling.md.

    Hochreiter & Schmidhuber, "Long short-term memory", 1997; Gers et al., "Learning to forget", 2000.
    """

    gates = 4
    state_arrays = 2

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
        yield cls(3, 2, return_state=True, **on), (((2, 2), (2, 2)), (4, 2, 3))
        yield cls(2, 3, num_layers=2, bidirectional=True, batch_first=True, **on), (((4, 2, 3), (4, 2, 3)), (2, 4, 2))
        yield cls(3, 2, num_layers=2, bias=False, dropout=0.5, **on), (3, 4, 3)

        def padded(xp: ModuleType, rng: Any) -> tuple:
            state = tuple(xp.asarray(rng.standard_normal((2, 3, 2))) for _ in range(2))
            return state, xp.asarray(rng.standard_normal((4, 3, 2))), xp.asarray([2, 4, 1])

        yield cls(2, 2, bidirectional=True, return_state=True, **on), padded


class LSTMCell(Cell):
    """One step of `LSTM`, by the same equations: ((h, c), x) -> ((h', c'), h').

    Shapes: (((N, H), (N, H)), (N, D)) -> (((N, H), (N, H)), (N, H)).

    Backward: h' is returned twice, as state and as output, so that dh is the sum of both gradients; what follows is
    one step of `LSTM`'s, with dx = dz W_ih and dh = dz W_hh.
    """

    gates = 4
    state_arrays = 2

    def forward(self, value: Value) -> Value:
        return self.one_step(value, step)

    def backward(self, output_grad: Value) -> Value:
        return self.one_step_back(output_grad, step_backward)
