"""The rectifier whose slope is learned."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array, widened
from mtorch.checks import check_memory, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.standardise import per_channel
from mtorch.parameter import Parameter


class PReLU(Layer):
    """y = x where x > 0, a x elsewhere, with a learned slope a: one for all, or one for each channel, which is axis 1.

    Shapes: num_parameters = 1: any -> the same; C: (N, C, ...) -> the same.  a (num_parameters,), at first `init`.
    Remembers x.

    Backward: with g = output_grad, dx = g where x > 0, g a elsewhere; da is the sum of g x where x <= 0, over all axes
    that share the slope.

    He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.
    """

    array_only = True

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.num_parameters = num_parameters = check_size("PReLU", "num_parameters", num_parameters)
        check_memory("PReLU", num_parameters, num_parameters=num_parameters)
        slopes = xp.full(num_parameters, check_number("PReLU", "init", init), dtype=self.dtype)
        self.weight = Parameter(slopes)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        if self.num_parameters > 1:
            self.check_dim(known, 1, self.num_parameters)
        return known

    def slopes(self, rank: int) -> Array:
        """The slopes in a shape that broadcasts over x, an array of that rank."""
        return self.weight.value if self.num_parameters == 1 else per_channel(self.weight.value, rank)

    def forward(self, x: Array) -> Array:
        if self.num_parameters > 1 and (x.ndim < 2 or x.shape[1] != self.num_parameters):
            raise ShapeMismatchError(self, f"expected input of shape (N, {self.num_parameters}, ...), got {x.shape}")
        self.remember(x)
        y = self.xp.where(x > 0, x, x * self.slopes(x.ndim))
        return y.reshape(x.shape)  # the slope of a number has an axis

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.recall()
        axes = None if self.num_parameters == 1 else (0, *range(2, x.ndim))

        def da() -> Array:
            da = self.xp.where(x > 0, 0, widened(g) * x).sum(axis=axes)
            return da.reshape(self.weight.value.shape)

        self.weight.accumulate(da)
        return as_array(self.xp, self.xp.where(x > 0, g, g * self.slopes(x.ndim)).reshape(x.shape))

    def details(self) -> str:
        return str(self.num_parameters)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        yield cls(init=-0.5, xp=xp, dtype=dtype), ()
        for shape in ((4, 3), (2, 3, 4, 2)):
            layer = cls(3, xp=xp, dtype=dtype)
            layer.weight.value[...] = xp.asarray(rng.uniform(-0.5, 0.5, 3))
            yield layer, shape
