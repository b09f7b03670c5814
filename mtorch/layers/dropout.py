"""Dropout."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import check_number
from mtorch.initializers import as_generator
from mtorch.layer import Layer
from mtorch.math.philox import keep_mask, seed_and_counter


class Dropout(Layer):
    """In training y = x * m / (1 - p), each m independently 0 with probability p and else 1; in eval mode y = x.

    Shapes: any -> the same.  Remembers m. The division keeps the mean: E[y] = x, so nothing changes in eval mode.

    Backward: y is linear in x for the drawn m, so dx = output_grad * m / (1 - p).

    The masks are those of a counter-based generator: its seed is drawn from `rng` here, and its counter is the number
    of masks drawn so far. `random_state` gives both for checkpoints.

    Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", 2014.
    """

    array_only = True

    def __init__(self, p: float = 0.5, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.p = check_number("Dropout", "p", p, least=0, most=1)
        self.seed, self.counter = int(as_generator(rng, "Dropout").integers(2**63)), 0

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return known

    def forward(self, x: Array) -> Array:
        mask = None
        if self.training and self.p > 0:
            mask = keep_mask(self.xp, x.shape, self.p, self.seed, self.counter)
            self.counter += 1
        self.remember(mask)
        return self.dropped_out(x, mask)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        return self.dropped_out(g, self.recall())  # in forward this was y = x m / (1 - p)

    def dropped_out(self, x: Array, mask: Array | None) -> Array:
        """x * m / (1 - p), or x itself without a mask."""
        if mask is None:
            return x
        return as_array(self.xp, x * mask * (1 / (1 - self.p) if self.p < 1 else 0.0))

    def random_state(self) -> dict[str, int]:
        return {"seed": self.seed, "counter": self.counter}

    def set_random_state(self, state: dict[str, int]) -> None:
        self.seed, self.counter = seed_and_counter(state)

    def details(self) -> str:
        return f"p={self.p:g}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for p in (0.5, 0.1, 0.0, 1.0):
            yield cls(p, xp=xp, dtype=dtype, rng=rng), (4, 3, 5)
