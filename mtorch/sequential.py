"""A chain of layers."""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from mtorch.arrays import Value
from mtorch.container import Container, Tape
from mtorch.layer import Layer


class Sequential(Container):
    """y = f_n(... f_2(f_1(x))), from a list of layers or from layers as arguments.

    Shapes: what the first layer takes -> what the last returns.

    Backward is the chain rule: with the Jacobian J_i of layer i, dx = J_1^T J_2^T ... J_n^T output_grad, computed from
    right to left. Each layer turns the gradient of its output into the gradient of its input, and forms no Jacobian.

    Errors: ShapeMismatchError at construction where neighbours do not fit.
    """

    def __init__(self, *layers: Layer | Iterable[Layer]):
        given: Any = layers
        if len(layers) == 1 and not isinstance(layers[0], Layer):
            if not isinstance(layers[0], Iterable) or isinstance(layers[0], range) or not getattr(layers[0], "ndim", 1):
                raise TypeError(f"Sequential is made of layers, got {type(layers[0]).__name__}")
            given = tuple(layers[0])
        if not given:
            raise ValueError("Sequential needs at least one layer")
        self._layers = self.cores(given)
        super().__init__(self._layers)
        self.first_trained = next((i for i, layer in enumerate(self._layers) if layer in self.with_parameters), 0)
        self.moves_data = all(layer.moves_data for layer in self._layers)
        self.first_computing = next((layer for layer in self._layers if not layer.moves_data), self._layers[0])
        self.takes = self.first_computing.takes
        self.parts = next((layer for layer in self._layers[::-1] if not layer.label), self._layers[-1]).parts
        self.infer_shape({})

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    def children(self) -> Iterator[tuple[str, Layer]]:
        number = count()
        return ((layer.label or str(next(number)), layer) for layer in self.layers)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        for i, layer in enumerate(self.layers):
            try:
                known = layer.infer_shape(known)
            except ValueError as error:
                error.add_note(f"in {self.place(layer, i)}")
                raise
        return known

    def cast_input(self, x: Value) -> Value:
        return self.first_computing.cast_input(x)

    def forward(self, x: Value) -> Value:
        tape = Tape(self)
        y = tape.run(self._layers, x)
        self.remember(tape)
        return self.returns(y)

    def backward(self, output_grad: Value) -> Value:
        g = self.cast_grad(output_grad)
        return self.recall().rewind(g)

    def backward_parameters(self, output_grad: Value) -> None:
        g = self.cast_grad(output_grad)
        tape, first = self.recall(), self.first_trained
        if not (self.first_parameters and self.first_parameters[0]._trainable):  # frozen: look further
            first = next((i for i, layer in enumerate(self._layers) if layer.trains()), len(self._layers))
        if first < len(self._layers):
            tape.pull_parameters(g, first)

    def step(self, lr: float) -> None:
        for layer in self.with_parameters:
            layer.step(lr)

    def place(self, layer: Layer, position: int) -> str:
        return f"layer {list(self.children())[min(position, len(self) - 1)][0]} of Sequential"

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def details(self) -> str:
        return ", ".join(map(repr, self.layers)) if len(self.layers) <= 8 else f"{len(self.layers)} layers"

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Sigmoid(2)]), (5, 4)
        yield cls(cls(nn.Linear(3, 3), nn.Sigmoid()), nn.Linear(3, 2)), (2, 6, 3)
        twice = nn.Linear(3, 3)
        yield cls(twice, nn.Tanh(), twice), (4, 3)
