"""The linear map."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import initializers
from mtorch.accelerate import accelerated
from mtorch.arrays import Array, device_of, ones
from mtorch.checks import check_flag, check_memory, check_number, check_size, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.parameter import Parameter


class Linear(Layer):
    """y = x W^T + b over the last axis.

    Shapes: x (..., D), W (H, D), b (H,) -> y (..., H).  W ~ N(0, coe / D) and b = 0, or what `init` draws for W.

    Backward: y_nh = sum_d x_nd W_hd + b_h, so with g = output_grad
        dW = g^T x,   db = sum_n g,   dx = g W.

    Remembers x.  Errors: ShapeMismatchError when the last axis of x is not D.
    """

    array_only = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        coe: float = 1,
        bias: bool = True,
        init: Callable[..., numpy.ndarray] | None = None,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.in_dim = in_dim = check_size("Linear", "in_dim", in_dim)
        self.out_dim = out_dim = check_size("Linear", "out_dim", out_dim)
        check_memory("Linear", in_dim * out_dim, in_dim=in_dim, out_dim=out_dim)
        if init is None:
            if check_number("Linear", "coe", coe) <= 0:
                raise ValueError(f"Linear expected a finite coe > 0, got {shown(coe)}")
            init = initializers.coe(coe)
        rng = initializers.as_generator(rng, "Linear")
        weight = initializers.draw("Linear", init, rng, (out_dim, in_dim), in_dim, out_dim)
        zeros = xp.zeros(out_dim, dtype=self.dtype) if check_flag("Linear", "bias", bias) else None
        self.hold(xp.asarray(weight, dtype=self.dtype), zeros)

    @accelerated
    def hold(self, weight: Array, bias: Array | None) -> None:
        """Makes the parameters of these values; a fast body gives both one array."""
        self.weight = Parameter(weight)
        self.bias = None if bias is None else Parameter(bias)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.in_dim)
        return {-1: self.out_dim}

    def rows(self, x: Array) -> Array:
        """(..., D) as (N, D)."""
        shape = x.shape
        if not shape or shape[-1] != self.in_dim:
            raise ShapeMismatchError(self, f"expected input of shape (..., {self.in_dim}), got {shape}")
        return x if len(shape) == 2 else x.reshape(-1, self.in_dim)

    @accelerated
    def forward(self, x: Array) -> Array:
        rows = self.rows(x)
        self.remember(rows)
        y = rows.dot(self.weight.value.T)
        if self.bias is not None:
            y += self.bias.value
        return y if rows is x else y.reshape(*x.shape[:-1], self.out_dim)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        leading = g.shape[:-1]
        g = self._accumulate(g)
        dx = g.dot(self.weight.value)  # in forward this was y = x W^T + b
        return dx if len(leading) == 1 else dx.reshape(*leading, self.in_dim)

    @accelerated
    def backward_parameters(self, output_grad: Array) -> None:
        self._accumulate(self.cast_grad(output_grad))

    def _accumulate(self, g: Array) -> Array:
        """Adds dW = g^T x and db = sum_n g to the gradients; returns g as rows."""
        x = self.recall()
        g = g if g.ndim == 2 else g.reshape(-1, self.out_dim)
        self.weight.accumulate_product(g.T, x)
        if self.bias is not None:
            device = "cpu" if self.xp is numpy else device_of(g)
            self.bias.accumulate_product(ones(self.xp, len(g), g.dtype, device), g)  # 1^T g sums the rows of g
        return g

    @accelerated
    def step(self, lr: float) -> None:
        super().step(lr)  # defined here because a fast body replaces it

    def details(self) -> str:
        return f"{self.in_dim} -> {self.out_dim}" + ("" if self.bias is not None else ", bias=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(3, 2, xp=xp, dtype=dtype, rng=rng), (4, 3)
        yield cls(4, 3, coe=2, bias=False, xp=xp, dtype=dtype, rng=rng), (2, 3, 4)
        yield cls(256, 3, xp=xp, dtype=dtype, rng=rng), (257, 256)
        yield cls(5, 1, init=initializers.xavier_uniform(), xp=xp, dtype=dtype, rng=rng), (5,)
