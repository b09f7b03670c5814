"""The gated recurrent unit."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.kernels import gru
from mtorch.layer import Layer
from mtorch.layers.recurrent import RecurrentLayer


class GRU(RecurrentLayer):
    """r, z = sigmoid(a_r), sigmoid(a_z) with a = W_ih x_t + b_ih + W_hh h + b_hh;  q = W_hn h + b_hn,
    n = tanh(W_in x_t + b_in + r q),  h' = (1 - z) n + z h,  y_t = h'.

    The reset gate acts after the product, as in torch.

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, (h0, x) or (h0, x, lengths) with None for a zero state; h0 is (layers directions, N, H), or (N, H) for one
    layer and one direction. Lengths, `final_state`, `return_state`, `dropout` and chunks are as in `LSTM`.

    Backward, from the last step to the first, with dh the gradient of h':
        da_z = dh (h - n) z (1 - z),  da_n = dh (1 - z) (1 - n^2),  dq = da_n r,  da_r = da_n q r (1 - r)
        dx_t = (da_r, da_z, da_n) W_ih,  dh = (da_r, da_z, dq) W_hh + dh z + dy_{t-1}
    and the weights collect these products with x_t and h_{t-1} over all steps. The gradient has the form of what came
    in: dx, (dh0, dx) or (dh0, dx, None).

    Parameters weight_ih_l0 (3 H, D), weight_hh_l0 (3 H, H), bias_ih_l0, bias_hh_l0 (3 H,), gates r, z, n, then
    ..._l0_reverse, ..._l1, as in torch.

    Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, arXiv:1406.1078.
    """

    kernel = gru
    gates = 3

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
