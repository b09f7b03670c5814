"""The linear map."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import initializers
from mtorch.arrays import Array, flat_rows, ones
from mtorch.checks import check_flag, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.kernels.threads import product
from mtorch.layer import Layer
from mtorch.parameter import Parameter

MANY = 1 << 14  # entries from which on their order in memory matters
LARGE = 1 << 20  # multiplications from which on `product` gains more than it costs


class Linear(Layer):
    """y = x W^T + b over the last axis.

    Shapes: x (..., D), W (H, D), b (H,) -> y (..., H).  W ~ N(0, coe / D) and b = 0, or what `init` draws for W.

    Backward: y_nh = sum_d x_nd W_hd + b_h, so with g = output_grad
        dW = g^T x,   db = sum_n g,   dx = g W.

    Remembers x.  Errors: ShapeMismatchError when the last axis of x is not D.
    """

    array_only = new_result = new_grad = True

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
        self.in_dim = check_size("Linear", "in_dim", in_dim)
        self.out_dim = check_size("Linear", "out_dim", out_dim)
        if init is None:
            if check_number("Linear", "coe", coe) <= 0:
                raise ValueError(f"Linear expected a finite coe > 0, got {coe!r}")
            init = initializers.coe(coe)
        if not callable(init):
            raise TypeError(f"Linear expected a function from mtorch.initializers as init, got {init!r}")
        rng = initializers.as_generator(rng, "Linear")
        try:
            weight = init(rng, (out_dim, in_dim), in_dim, out_dim)
        except TypeError as error:
            wanted = "a function of (rng, shape, fan_in, fan_out) as init, such as orthogonal()"
            raise TypeError(f"Linear expected {wanted}, got {init!r}: {error}") from error
        if getattr(weight, "shape", ()) != (out_dim, in_dim) or weight.dtype.kind not in "fiu":
            got = f"{weight.dtype} {weight.shape}" if hasattr(weight, "dtype") else repr(weight)
            raise ValueError(f"Linear expected init to return an array of shape {(out_dim, in_dim)}, got {got}")
        self.weight = Parameter(xp.asarray(weight, dtype=self.dtype))
        self.bias = Parameter(xp.zeros(out_dim, dtype=self.dtype)) if check_flag("Linear", "bias", bias) else None

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.in_dim)
        return {-1: self.out_dim}

    def forward(self, x: Array) -> Array:
        shape = x.shape
        if not shape or shape[-1] != self.in_dim:
            raise ShapeMismatchError(self, f"expected input of shape (..., {self.in_dim}), got {shape}")
        self.remember(x)
        w, rows = self.weight.value, len(shape) == 2
        if rows and x.size * self.out_dim < LARGE:
            y = x.dot(w.T)
        elif rows and x.flags.fnc:  # as pooled images lie: BLAS is faster with columns
            y = self.xp.ascontiguousarray(product(w, x.T).T)
        else:
            y = product(flat_rows(x), w.T)
        if self.bias is not None:
            y += self.bias.value
        return y if rows else y.reshape(shape[:-1] + (self.out_dim,))

    def backward(self, output_grad: Array) -> Array:
        x = self.recall()
        g = self._parameter_grads(x, output_grad)
        w = self.weight.value
        if x.size >= MANY and x.ndim == 2 and x.flags.fnc:  # dx lies in memory as x does
            return product(w.T, g.T).T
        dx = g.dot(w) if x.size * self.out_dim < LARGE else product(g, w)
        return dx if x.ndim == 2 else dx.reshape(x.shape)

    def backward_parameters(self, output_grad: Array) -> None:
        self._parameter_grads(self.recall(), output_grad)

    def _parameter_grads(self, x: Array, output_grad: Array) -> Array:
        g, x = (output_grad, x) if x.ndim == 2 else (flat_rows(output_grad), flat_rows(x))
        if x.size * self.out_dim < LARGE:
            self.weight.accumulate_product(g.T, x)
        else:
            self.weight.accumulate_result(product, g.T, x)
        if self.bias is not None:
            self.bias.accumulate_product(ones(self.xp, len(g), g.dtype), g)
        return g

    def details(self) -> str:
        return f"{self.in_dim} -> {self.out_dim}" + ("" if self.bias is not None else ", bias=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(3, 2, xp=xp, dtype=dtype, rng=rng), (4, 3)
        yield cls(4, 3, coe=2, bias=False, xp=xp, dtype=dtype, rng=rng), (2, 3, 4)
        yield cls(5, 1, init=initializers.xavier_uniform(), xp=xp, dtype=dtype, rng=rng), (5,)
