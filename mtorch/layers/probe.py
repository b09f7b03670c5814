"""A look inside a net."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Value
from mtorch.checks import shown
from mtorch.last_forward import OfLastForward
from mtorch.layer import Layer


class Probe(Layer):
    """y = x, for any value.  Keeps `value`, the x of the last forward, and `grad`, its gradient.

        hidden = Probe("hidden")
        net = Sequential(Linear(784, 16), hidden, ReLU(), Linear(16, 10))
        ...  # a forward and a backward
        hidden.value, hidden.grad

    It counts in no name: the parameters of this net are 0.weight, 1 is the ReLU, 2.weight, as without it, and
    checkpoints fit both ways. `Probe.within(net)` finds the probes of a net by name.

    `grad` is None where no gradient came: before backward, and in front of the first layer with parameters, unless the
    gradient of the input is wanted. Called several times in one pass, it keeps the last call. Both arrays are kept by
    reference until the next forward; copies and pickles have none. In a `DataParallel` they are of this process' share.
    predict keeps nothing.

    Shapes: any -> the same.

    Backward: y moves as x does, so dx = output_grad, which is kept in `grad` as it passes.
    """

    moves_data = True

    _last: Any = None  # the last call

    value = OfLastForward()
    grad = OfLastForward()

    def __init__(self, name: str, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        if not isinstance(name, str):
            raise TypeError(f"Probe expected a name, got {shown(name)}")
        if not name or name.isdigit() or "." in name:
            raise ValueError(f"Probe expected a name without dots that is no number, got {shown(name)}")
        self.name = self.label = name

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return known

    def forward(self, x: Value) -> Value:
        self.value, self.grad = x, None
        call = object()
        if not self.predicting:
            self._last = call
        self.remember(call)
        return x

    def backward(self, output_grad: Value) -> Value:
        g = self.cast_grad(output_grad)
        if self.recall() is self._last:
            self.grad = g
        return g

    @classmethod
    def within(cls, net: Layer) -> dict[str, "Probe"]:
        """The probes of a net by their names; ValueError where two have one name."""
        found: dict[str, Probe] = {}
        for _, layer in net.walk():
            if isinstance(layer, Probe) and found.setdefault(layer.name, layer) is not layer:
                raise ValueError(f"two probes of {net!r} are called {layer.name!r}")
        return found

    def details(self) -> str:
        return repr(self.name)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_value": None, "_grad": None}

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls("x", xp=xp, dtype=dtype), (4, 3)
        yield cls("x", xp=xp, dtype=dtype), ((4, 3), (2,))
