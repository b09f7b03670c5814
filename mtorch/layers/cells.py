"""Recurrent cells: one step, with the state going in and out."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, Value, shape_value
from mtorch.checks import check_size
from mtorch.errors import ShapeMismatchError
from mtorch.initializers import as_generator
from mtorch.kernels.sigmoid import sigmoid
from mtorch.layer import Layer
from mtorch.layers.recurrent import add_parameters
from mtorch.layers.rnn import check_nonlinearity


class Cell(Layer):
    """(state, x) -> (state, y): one step of a recurrence, written plainly. `Recurrent(cell)` runs it over time.

    Parameters weight_ih (G H, D), weight_hh (G H, H), bias_ih and bias_hh (G H,), as torch names and draws them.
    """

    gates: int
    state_arrays = 1
    parts = 2

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        bias: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.in_dim, self.out_dim = check_size(name, "in_dim", in_dim), check_size(name, "out_dim", out_dim)
        add_parameters(self, as_generator(rng, name), self.gates, self.in_dim, self.out_dim, bias)

    def initial_state(self, n: int) -> Value:
        """Zeros for n sequences: h, or (h, c)."""
        n = check_size(type(self).__name__, "n", n, least=0)
        parts = tuple(self.xp.zeros((n, self.out_dim), self.dtype) for _ in range(self.state_arrays))
        return parts[0] if self.state_arrays == 1 else parts

    def _parts(self, value: Value) -> tuple[Value, Array]:
        """(state, x) with the shapes checked."""
        x = value[1] if isinstance(value, tuple) and len(value) == 2 else None
        n = x.shape[0] if isinstance(x, self.xp.ndarray) and x.ndim == 2 else 0
        state = (n, self.out_dim) if self.state_arrays == 1 else ((n, self.out_dim),) * self.state_arrays
        if shape_value(value) != (state, (n, self.in_dim)):
            s = f"(N, {self.out_dim})"
            s = s if self.state_arrays == 1 else f"({s}, {s})"
            got = shape_value(value)
            raise ShapeMismatchError(self, f"expected (state, x) of shapes ({s}, (N, {self.in_dim})), got {got}")
        return value

    def _gates(self, x: Array, h: Array) -> tuple[list[Array], list[Array]]:
        """W_ih x + b_ih and W_hh h + b_hh, each cut into its gates."""
        a, s = x.dot(self.weight_ih.value.T), h.dot(self.weight_hh.value.T)
        if self.bias_ih is not None:
            a, s = a + self.bias_ih.value, s + self.bias_hh.value
        size = self.out_dim
        cuts = [slice(k * size, (k + 1) * size) for k in range(self.gates)]
        return [a[:, cut] for cut in cuts], [s[:, cut] for cut in cuts]

    def _answer(self, x: Array, h: Array, da: list[Array], ds: list[Array]) -> tuple[Array, Array]:
        """Adds the parameters' gradients; returns those of h and x. da and ds are those of `_gates`."""
        da, ds = self.xp.concatenate(da, axis=1), self.xp.concatenate(ds, axis=1)
        self.weight_ih.accumulate(da.T.dot(x))
        self.weight_hh.accumulate(ds.T.dot(h))
        if self.bias_ih is not None:
            self.bias_ih.accumulate(da.sum(axis=0))
            self.bias_hh.accumulate(ds.sum(axis=0))
        return ds.dot(self.weight_hh.value), da.dot(self.weight_ih.value)

    def details(self) -> str:
        return f"{self.in_dim} -> {self.out_dim}" + ("" if self.bias_ih is not None else ", bias=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for bias in (True, False):
            state = (3, 4) if cls.state_arrays == 1 else ((3, 4), (3, 4))
            yield cls(2, 4, bias=bias, xp=xp, dtype=dtype, rng=rng), (state, (3, 2))


class RNNCell(Cell):
    """h' = f(W_ih x + b_ih + W_hh h + b_hh) with f = tanh or relu;  (h, x) -> (h', h').

    Shapes: ((N, H), (N, D)) -> ((N, H), (N, H)).

    Backward: h' leaves twice, as state and as output, so dz = (dh' + dy) f'(z); dh = dz W_hh, dx = dz W_ih.
    """

    gates = 1

    def __init__(self, in_dim: int, out_dim: int, bias: bool = True, nonlinearity: str = "tanh", **more: Any):
        super().__init__(in_dim, out_dim, bias, **more)
        self.nonlinearity = check_nonlinearity("RNNCell", nonlinearity)

    def forward(self, value: Value) -> Value:
        h, x = self._parts(value)
        (a,), (s,) = self._gates(x, h)
        new = self.xp.tanh(a + s) if self.nonlinearity == "tanh" else self.xp.maximum(a + s, 0)
        self.remember(x, h, new)
        return new, new.copy()

    def backward(self, output_grad: Value) -> Value:
        x, h, new = self.recall()
        d = output_grad[0] + output_grad[1]
        dz = d * (1 - new * new) if self.nonlinearity == "tanh" else d * (new > 0)
        return self._answer(x, h, [dz], [dz])

    @classmethod
    def examples(cls, **options: Any) -> Iterator[tuple[Layer, Any]]:
        yield from super().examples(**options)
        yield cls(3, 4, nonlinearity="relu", **options), ((2, 4), (2, 3))


class GRUCell(Cell):
    """r, z = sigmoid(a_r + s_r), sigmoid(a_z + s_z), n = tanh(a_n + r s_n), h' = (1 - z) n + z h;  (h, x) -> (h', h'),
    with a = W_ih x + b_ih and s = W_hh h + b_hh.

    Shapes: ((N, H), (N, D)) -> ((N, H), (N, H)).

    Backward: with d = dh' + dy,  da_n = d (1 - z) (1 - n^2),  ds_n = da_n r,  da_r = da_n s_n r (1 - r),
    da_z = d (h - n) z (1 - z);  dh = ds W_hh + d z,  dx = da W_ih.
    """

    gates = 3

    def forward(self, value: Value) -> Value:
        h, x = self._parts(value)
        (a_r, a_z, a_n), (s_r, s_z, s_n) = self._gates(x, h)
        r, z = sigmoid(self.xp, a_r + s_r), sigmoid(self.xp, a_z + s_z)
        n = self.xp.tanh(a_n + r * s_n)
        new = (1 - z) * n + z * h
        self.remember(x, h, r, z, n, s_n)
        return new, new.copy()

    def backward(self, output_grad: Value) -> Value:
        x, h, r, z, n, s_n = self.recall()
        d = output_grad[0] + output_grad[1]
        da_n = d * (1 - z) * (1 - n * n)
        da_r, da_z = da_n * s_n * r * (1 - r), d * (h - n) * z * (1 - z)
        dh, dx = self._answer(x, h, [da_r, da_z, da_n], [da_r, da_z, da_n * r])
        return dh + d * z, dx


class LSTMCell(Cell):
    """i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o), g = tanh(z_g), c' = f c + i g, h' = o tanh(c');
    ((h, c), x) -> ((h', c'), h'), with z = W_ih x + b_ih + W_hh h + b_hh.

    Shapes: (((N, H), (N, H)), (N, D)) -> (((N, H), (N, H)), (N, H)).

    Backward: with d = dh' + dy and e = dc' + d o (1 - tanh(c')^2),
    dz_i = e g i (1 - i),  dz_f = e c f (1 - f),  dz_g = e i (1 - g^2),  dz_o = d tanh(c') o (1 - o);
    dh = dz W_hh,  dc = e f,  dx = dz W_ih.
    """

    gates = 4
    state_arrays = 2

    def forward(self, value: Value) -> Value:
        (h, c), x = self._parts(value)
        xp, z = self.xp, [a + s for a, s in zip(*self._gates(x, h), strict=True)]
        i, f, g, o = sigmoid(xp, z[0]), sigmoid(xp, z[1]), xp.tanh(z[2]), sigmoid(xp, z[3])
        new_c = f * c + i * g
        tanh_c = xp.tanh(new_c)
        self.remember(x, h, c, i, f, g, o, tanh_c)
        new_h = o * tanh_c
        return (new_h, new_c), new_h.copy()

    def backward(self, output_grad: Value) -> Value:
        x, h, c, i, f, g, o, tanh_c = self.recall()
        (dh, dc), dy = output_grad
        d = dh + dy
        e = dc + d * o * (1 - tanh_c * tanh_c)
        dz = [e * g * i * (1 - i), e * c * f * (1 - f), e * i * (1 - g * g), d * tanh_c * o * (1 - o)]
        dh, dx = self._answer(x, h, dz, dz)
        return (dh, e * f), dx
