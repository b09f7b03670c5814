"""One layer that reads a sequence forwards and one that reads it backwards."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, shape_value
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.states import refuse_state


class Bidirectional(Container):
    """y_t = (a(x)_t, b(x reversed) reversed_t), side by side on the last axis; time is the first axis.

    Shapes: x (T, N, D) -> y (T, N, H_a + H_b), for layers a and b that take (T, N, D) to (T, N, H).

    Backward: a gets its columns of output_grad, b gets its own reversed in time; both read x, so
    dx = a'(g_a) + b'(g_b reversed) reversed.

    Schuster & Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    array_only = True

    def __init__(self, a: Layer, b: Layer):
        self.a, self.b = both = self.cores((a, b))
        super().__init__(both)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        a, b = self.a.infer_shape(known), self.b.infer_shape(known)
        return {-1: a[-1] + b[-1]} if -1 in a and -1 in b else {}

    def forward(self, x: Array) -> Array:
        refuse_state(self, "one layer reads the sequence from its end")
        if x.ndim < 2:
            raise ShapeMismatchError(self, f"expected input of shape (T, N, ...), got {x.shape}")
        tape = Tape(self)
        a, b = tape.call(self.a, x), tape.call(self.b, x[::-1])
        if isinstance(a, tuple) or isinstance(b, tuple) or a.shape[:-1] != b.shape[:-1] or len(a) != len(x):
            raise ShapeMismatchError(self, f"expected two outputs of shape (T, N, ...), got {shape_value((a, b))}")
        self.remember(tape, a.shape[-1])
        return self.returns(self.xp.concatenate((a, b[::-1]), axis=-1))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        tape, split = self.recall()
        dx = tape.pull(g[..., split:][::-1])[::-1]
        return tape.pull(g[..., :split]) + dx

    def backward_parameters(self, output_grad: Array) -> None:
        g = self.cast_grad(output_grad)
        tape, split = self.recall()
        tape.pull_parameters(g[..., split:][::-1])
        tape.pull_parameters(g[..., :split])

    def details(self) -> str:
        return f"{self.a!r}, {self.b!r}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers
        from mtorch.unroll import Recurrent

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.RNN(3, 2), nn.GRU(3, 4)), (5, 2, 3)
        yield cls(Recurrent(nn.LSTMCell(2, 3)), Recurrent(nn.LSTMCell(2, 3))), (4, 2, 2)
