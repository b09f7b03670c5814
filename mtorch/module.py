"""A model: the thin shell around one net that a training script drives."""

from collections.abc import Iterator
from typing import Any

from mtorch.arrays import Value
from mtorch.layer import Layer


class Module(Layer, guarded=False):
    """Holds one net and hands every verb on to it, under the net's own parameter names.

    `backward` returns None: nobody reads the gradient of the first input, so it is not computed
    (`input_grad=True` asks for it, and then `backward` returns it).
    """

    def __init__(self, net: Layer, *, input_grad: bool = False):
        if not isinstance(net, Layer):
            raise TypeError(f"{type(self).__name__} wraps a layer, got {net!r}")
        super().__init__(xp=net.xp, dtype=net.dtype)
        self.net = net.core()
        self.input_grad = input_grad

    def __init_subclass__(cls):
        super().__init_subclass__(guarded=False)

    def core(self) -> Layer:
        return self.net

    def walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        yield path, self
        yield from self.net.walk(path)

    def __call__(self, x: Value) -> Value:
        return self.net(x)

    def admit(self, x: Value) -> Value:
        return self.net.admit(x)

    def forward(self, x: Value) -> Value:
        return self.net.forward(x)

    def backward(self, output_grad: Value) -> Value | None:
        return self.net.backward(output_grad) if self.input_grad else self.net.backward_parameters(output_grad)

    def backward_parameters(self, output_grad: Value) -> None:
        self.net.backward_parameters(output_grad)

    def infer(self, x: Value) -> Value:
        return self.net.infer(x)

    def step(self, lr: float) -> None:
        self.net.step(lr)

    def details(self) -> str:
        return repr(self.net)

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import Sequential, layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(Sequential(nn.Linear(3, 2), nn.Tanh()), input_grad=True), (4, 3)
