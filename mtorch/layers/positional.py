"""Where in the sequence an entry stands."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import initializers
from mtorch.arrays import Array, shape_value, widened
from mtorch.checks import check_flag, check_memory, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter
from mtorch.states import Stateful, states_travel


class PositionalEmbedding(Stateful, Layer):
    """y_t = x_t + W_t: a vector for each place in the sequence, the same for all samples.

    learned: W ~ N(0, 0.02^2) is trained; else it is fixed, W_t,2i = sin(t w_i) and W_t,2i+1 = cos(t w_i) with
        w_i = 10000^(-2i / E), so that a shift in time is a rotation of each pair.

    Shapes: x (T, N, E) with T <= max_length, W (max_length, E) -> (T, N, E).

    The state that travels through `predict` is (t, N, 0): it holds nothing, and its length t is how many steps it read.

    Backward: W_t is added to every sample at t, so dx = output_grad and dW_t = sum_n output_grad_tn, 0 for t >= T.

    Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """

    array_only = True

    def __init__(
        self,
        max_length: int,
        embed_dim: int,
        *,
        learned: bool = True,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.max_length = max_length = check_size("PositionalEmbedding", "max_length", max_length)
        self.embed_dim = embed_dim = check_size("PositionalEmbedding", "embed_dim", embed_dim)
        check_memory("PositionalEmbedding", max_length * embed_dim, max_length=max_length, embed_dim=embed_dim)
        shape = (self.max_length, self.embed_dim)
        if check_flag("PositionalEmbedding", "learned", learned):
            table = initializers.normal(std=0.02)(initializers.as_generator(rng, "PositionalEmbedding"), shape, *shape)
            self.weight: Parameter | Buffer = Parameter(xp.asarray(table, dtype=self.dtype))
        else:
            rates = [10_000 ** (-2 * (e // 2) / embed_dim) for e in range(embed_dim)]
            waves = (math.sin, math.cos)
            rows = [[waves[e % 2](t * rate) for e, rate in enumerate(rates)] for t in range(max_length)]
            self.weight = Buffer(xp.asarray(rows, dtype=self.dtype), persistent=False)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.embed_dim)
        return known | {-1: self.embed_dim}

    def forward(self, x: Array) -> Array:
        start = self._steps_before(x) if states_travel(self) else 0
        most = self.max_length - start
        if x.ndim != 3 or x.shape[2] != self.embed_dim or x.shape[0] > most:
            wanted = f"(T <= {most}, N, {self.embed_dim})" + f" after {start} steps" * (start > 0)
            raise ShapeMismatchError(self, f"expected input of shape {wanted}, got {x.shape}")
        self.remember()
        return x + self.weight.value[start : start + len(x), None]

    def _steps_before(self, x: Array) -> int:
        """How many steps were read before, as the state that travels says; it counts these, too."""
        before = self.begin_with(None)
        if before is not None and getattr(before, "shape", ())[1:] != (*x.shape[1:2], 0):
            wanted = f"a state of shape (t, {', '.join(map(str, x.shape[1:2]))}, 0)"
            raise ShapeMismatchError(self, f"expected {wanted}, got {shape_value(before)}")
        start = 0 if before is None else len(before)
        self.end_with(self.xp.zeros((start + len(x), *x.shape[1:2], 0), self.dtype))
        return start

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        self.recall()
        if isinstance(self.weight, Parameter) and self.weight.trainable:
            dw = self.weight.grad
            dw[: len(g)] += widened(g).sum(axis=1)
            self.weight.has_grad = True
        return g  # in forward this was y_t = x_t + W_t

    def details(self) -> str:
        fixed = "" if isinstance(self.weight, Parameter) else ", learned=False"
        return f"{self.max_length}, {self.embed_dim}{fixed}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(5, 3, xp=xp, dtype=dtype, rng=rng), (4, 2, 3)
        yield cls(4, 5, learned=False, xp=xp, dtype=dtype), (4, 2, 5)
