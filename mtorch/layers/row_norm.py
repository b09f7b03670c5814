"""What layer norm and RMS norm share."""

import math
from types import ModuleType
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_flag, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.kernels.row_norm import normalise_rows, normalise_rows_grad
from mtorch.layer import Layer
from mtorch.parameter import Parameter


class RowNorm(Layer):
    """Normalises the last axes, whose sizes are `shape`; subclasses say whether the mean is taken out."""

    array_only = new_grad = True
    centred: bool
    bias: Parameter | None
    eps: float | None

    def __init__(self, normalized_shape: int | tuple[int, ...], affine: bool, xp: ModuleType, dtype: Any):
        super().__init__(xp=xp, dtype=dtype)
        sizes = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        name = type(self).__name__
        self.shape = tuple(check_size(name, "normalized_shape", size) for size in sizes)
        if not sizes:
            raise ValueError(f"{name} expected a normalized_shape of at least one axis, got {normalized_shape!r}")
        affine = check_flag(name, "elementwise_affine", affine)
        self.weight = Parameter(xp.ones(self.shape, dtype=self.dtype)) if affine else None

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        for axis, size in enumerate(self.shape, start=-len(self.shape)):
            self.check_dim(known, axis, size)
        return known | dict(enumerate(self.shape, start=-len(self.shape)))

    def forward(self, x: Array) -> Array:
        if x.shape[-len(self.shape) :] != self.shape:
            wanted = ", ".join(["...", *map(str, self.shape)])
            raise ShapeMismatchError(self, f"expected input of shape ({wanted}), got {x.shape}")
        eps = float(self.xp.finfo(x.dtype).eps) if self.eps is None else self.eps
        weight, bias = self._flat(self.weight), self._flat(self.bias)
        y, z, inv = normalise_rows(self.xp, self._rows(x), eps, weight, bias, self.centred)
        self.remember(z, inv)
        return y.reshape(x.shape)

    def backward(self, output_grad: Array) -> Array:
        z, inv = self.recall()
        weight = self._flat(self.weight)
        dx, dweight, dbias = normalise_rows_grad(self.xp, self._rows(output_grad), z, inv, weight, self.centred)
        if self.weight is not None:
            self.weight.accumulate(dweight.reshape(self.shape))
        if self.bias is not None:
            self.bias.accumulate(dbias.reshape(self.shape))
        return dx.reshape(output_grad.shape)

    def _rows(self, x: Array) -> Array:
        return x.reshape(math.prod(x.shape[: x.ndim - len(self.shape)]), math.prod(self.shape))

    def _flat(self, parameter: Parameter | None) -> Array | None:
        return None if parameter is None else parameter.value.reshape(-1)

    def details(self) -> str:
        return ", ".join(map(str, self.shape)) + ("" if self.weight is not None else ", elementwise_affine=False")
