"""Long short-term memory."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.kernels import lstm
from mtorch.layer import Layer
from mtorch.layers.recurrent import RecurrentLayer


class LSTM(RecurrentLayer):
    """i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o), g = tanh(z_g) with z = W_ih x_t + b_ih + W_hh h + b_hh;
    c' = f c + i g,  h' = o tanh(c'),  y_t = h'.

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, ((h0, c0), x) or ((h0, c0), x, lengths) with None for a zero state; h0 and c0 are
    (layers directions, N, H), or (N, H) for one layer and one direction. With lengths (N,) the steps beyond a
    sequence's end do not exist: y is 0 there, a second direction starts at the end, the last state is taken there.

    Backward, from the last step to the first, with dh, dc the gradients of h', c':
        dc += dh o (1 - tanh(c')^2)
        dz_i = dc g i (1 - i),  dz_f = dc c f (1 - f),  dz_g = dc i (1 - g^2),  dz_o = dh tanh(c') o (1 - o)
        dx_t = dz W_ih,  dh = dz W_hh + dy_{t-1},  dc = dc f,
        dW_ih = sum_t dz_t^T x_t,  dW_hh = sum_t dz_t^T h_{t-1},  db_ih = db_hh = sum_t dz_t.
    The gradient has the form of what came in: dx, ((dh0, dc0), dx) or ((dh0, dc0), dx, None).

    Parameters weight_ih_l0 (4 H, D), weight_hh_l0 (4 H, H), bias_ih_l0, bias_hh_l0 (4 H,), gates i, f, g, o, then
    ..._l0_reverse, ..._l1, as in torch. `dropout` acts between layers.

    A long sequence goes through in chunks (truncated back-propagation): `final_state` is the last state without
    gradient, to be given to the next chunk. With return_state=True the layer returns (state, y), with gradients
    through both.

        for chunk, target in chunks:
            y = lstm(chunk if lstm.final_state is None else (lstm.final_state, chunk))
            loss_func(y, target).backward()
            optimizer.step()

    Hochreiter & Schmidhuber, "Long short-term memory", 1997; Gers et al., "Learning to forget", 2000.
    """

    kernel = lstm
    gates = 4
    state_arrays = 2

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
