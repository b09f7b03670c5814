"""Vectors for integer ids."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays, initializers
from mtorch.arrays import Array
from mtorch.checks import check_memory, check_size
from mtorch.deferred import defer_error
from mtorch.layer import Layer
from mtorch.parameter import Parameter


class Embedding(Layer):
    """y = W[ids]: one row of the table W for each id.

    Shapes: ids (...,) of integers in [0, V), W (V, E) -> y (..., E).  W ~ N(0, 1), or what `init` draws for W, with E
    as fan_in and V as fan_out. The row of `padding_idx` starts at zero and is read like any other, but gets no
    gradient.

    Backward: a row's gradient is the sum of output_grad over all places that show its id; ids have none (None).

    Errors: TypeError for ids that are no integers, ValueError for an id outside [0, V). Ids that are on a device
    already are not waited for: their rows become NaN, and the next read on the host (`loss.value`, `state_dict`)
    raises.
    """

    takes = "ids"
    array_only = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        init: Callable[..., numpy.ndarray] | None = None,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.num_embeddings = num_embeddings = check_size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = embedding_dim = check_size("Embedding", "embedding_dim", embedding_dim)
        given = {"num_embeddings": num_embeddings, "embedding_dim": embedding_dim}
        check_memory("Embedding", num_embeddings * embedding_dim, **given)
        if padding_idx is not None:
            padding_idx = check_size("Embedding", "padding_idx", padding_idx, least=-num_embeddings)
            if padding_idx >= num_embeddings:
                raise ValueError(f"Embedding expected padding_idx < {num_embeddings}, got {padding_idx}")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        rng, shape = initializers.as_generator(rng, "Embedding"), (num_embeddings, embedding_dim)
        init = initializers.normal() if init is None else init
        table = initializers.draw("Embedding", init, rng, shape, *initializers.fans(shape))
        self.weight = Parameter(xp.asarray(table, dtype=self.dtype))
        if padding_idx is not None:
            self.weight.value[padding_idx] = 0

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return {-1: self.embedding_dim}

    def cast_input(self, x: Any) -> Array:
        if arrays.array_module(x, self) in (None, numpy) and not isinstance(x, tuple):
            x = arrays.as_ids(numpy, x, self)
            self._check_host(x)
        return x if isinstance(x, tuple) else arrays.as_ids(self.xp, x, self)

    def _check_host(self, ids: Array) -> None:
        if ids.size and not (0 <= ids.min() and ids.max() < self.num_embeddings):
            wrong = ids[(ids < 0) | (ids >= self.num_embeddings)].ravel()[0]
            raise ValueError(f"{self!r} expected ids in [0, {self.num_embeddings}), got {wrong}")

    def forward(self, x: Array) -> Array:
        xp, size = self.xp, self.num_embeddings
        if x.dtype.kind not in "iu":
            raise TypeError(f"{self!r} expected integer ids, got dtype {x.dtype}")
        if arrays.is_numpy(xp):
            self._check_host(x)
            self.remember(x)
            return self.weight.value.take(x, axis=0)
        outside = (x < 0) | (x >= size)
        defer_error(self, f"{self!r} expected ids in [0, {size}), got one outside", outside.any())
        ids = xp.where(outside, 0, x)
        self.remember(ids)
        return xp.where(outside[..., None], xp.asarray(float("nan"), self.dtype), self.weight.value.take(ids, axis=0))

    def backward(self, output_grad: Array) -> None:
        g = self.cast_grad(output_grad)
        ids = self.recall().ravel()
        if not self.weight.trainable:
            return
        g = g.reshape(len(ids), self.embedding_dim)
        if self.padding_idx is not None:
            g = self.xp.where((ids == self.padding_idx)[:, None], 0, g)
        dw = self.weight.grad
        arrays.scatter_add(self.xp, dw, ids, g)  # in forward this was y_m = W[ids_m]
        self.weight.has_grad = True

    def details(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(5, 3, xp=xp, dtype=dtype, rng=rng), lambda xp, rng: xp.asarray([[0, 4, 4], [2, 4, 0]])
        yield (
            cls(4, 2, 1, init=initializers.xavier_uniform(), xp=xp, dtype=dtype, rng=rng),
            lambda xp, rng: xp.asarray([[2], [0]]),
        )
        yield cls(4, 2, xp=xp, dtype=dtype, rng=rng), lambda xp, rng: xp.asarray([3, 3, 3, 3], dtype="int32")
