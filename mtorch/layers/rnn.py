"""The simple recurrent layer."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.kernels import rnn
from mtorch.layer import Layer
from mtorch.layers.recurrent import RecurrentLayer


class RNN(RecurrentLayer):
    """h' = f(W_ih x_t + b_ih + W_hh h + b_hh) with f = tanh or relu;  y_t = h'.

    Shapes: x (T, N, D) -> y (T, N, directions H); with batch_first (N, T, D) -> (N, T, directions H).
    Takes x, (h0, x) or (h0, x, lengths) with None for a zero state; h0 is (layers directions, N, H), or (N, H) for one
    layer and one direction. Lengths, `final_state`, `return_state`, `dropout` and chunks are as in `LSTM`.

    Backward: h_t feeds y_t and h_{t+1}, so from the last step to the first, with dh the sum of both gradients,
        dz = dh f'(z)  (1 - h'^2 for tanh, 1 where h' > 0 for relu),  dx_t = dz W_ih,  dh = dz W_hh + dy_{t-1},
        dW_ih = sum_t dz_t^T x_t,  dW_hh = sum_t dz_t^T h_{t-1},  db_ih = db_hh = sum_t dz_t.
    The gradient has the form of what came in: dx, (dh0, dx) or (dh0, dx, None).

    Parameters weight_ih_l0 (H, D), weight_hh_l0 (H, H), bias_ih_l0, bias_hh_l0 (H,), then ..._l0_reverse, ..._l1, as
    in torch.

    Elman, "Finding structure in time", 1990.
    """

    kernel = rnn
    gates = 1

    def __init__(
        self, in_dim: int, out_dim: int, num_layers: int = 1, nonlinearity: str = "tanh", *options: Any, **more: Any
    ):
        super().__init__(in_dim, out_dim, num_layers, *options, **more)
        self.nonlinearity = check_nonlinearity("RNN", nonlinearity)
        self.options = (nonlinearity,)

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


def check_nonlinearity(layer: str, name: str) -> str:
    """The name; ValueError unless it is one of the two."""
    if name not in ("tanh", "relu"):
        raise ValueError(f"{layer} expected nonlinearity 'tanh' or 'relu', got {name!r}")
    return name
