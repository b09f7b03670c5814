"""The matrix product of two values."""

from types import ModuleType
from typing import Any

from mtorch.arrays import Array, Value, flat_rows
from mtorch.layers.arithmetic import Operator


class MatMul(Operator):
    """y = a b, the matrix product over the last two axes of a tuple (a, b).

    Shapes: (..., n, k), (..., k, m) -> (..., n, m); the leading axes broadcast. As in NumPy, a vector on the left is
    one row and a vector on the right one column, and that axis is dropped from y.

    Backward: y_nm = sum_k a_nk b_km, so  da = g b^T  and  db = a^T g,  summed over stretched leading axes.
    """

    left_reads = right_reads = "ab"

    def broadcast_shapes(self, a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        return {}  # either may be a vector

    def result(self, a: Array, b: Array) -> Array:
        if a.ndim > 1 and b.ndim == 2:  # one product of all rows is faster than one for each leading index
            return flat_rows(a).dot(b).reshape(a.shape[:-1] + b.shape[-1:])
        return self.xp.matmul(a, b)

    def left(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        if b.ndim == 1:
            return g[..., None] * b
        if a.ndim == 1:
            return self.xp.matmul(b, g[..., None])[..., 0]
        return self.result(g, b.swapaxes(-1, -2))

    def right(self, g: Array, a: Array, b: Array, y: Array) -> Array:
        if a.ndim == 1:
            return a * g if b.ndim == 1 else a[:, None] * g[..., None, :]
        if b.ndim == 1:
            return self.xp.matmul(a.swapaxes(-1, -2), g[..., None])[..., 0]
        if b.ndim == 2:
            return flat_rows(a).T.dot(flat_rows(g))
        return self.xp.matmul(a.swapaxes(-1, -2), g)

    @classmethod
    def example_shapes(cls) -> list[tuple]:
        matrices = [((4, 3), (3, 2)), ((2, 4, 3), (3, 2)), ((2, 1, 4, 3), (5, 3, 2)), ((4, 3), (2, 3, 1))]
        vectors = [((3,), (3,)), ((3,), (3, 2)), ((3,), (2, 3, 4)), ((4, 3), (3,)), ((2, 4, 3), (3,))]
        return matrices + vectors

    @classmethod
    def example_pair(cls, xp: ModuleType, rng: Any, a: tuple, b: tuple) -> Value:
        return xp.asarray(rng.standard_normal(a)), xp.asarray(rng.standard_normal(b))
