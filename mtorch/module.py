"""A model: a thin shell around one network, which a training script calls."""

from collections.abc import Iterator
from threading import RLock
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Value
from mtorch.checks import check_flag, shown
from mtorch.graph.graph import Graph
from mtorch.graph.tracing import HOLDERS, PRIVATE, named_items, traced
from mtorch.guards import EMPTY
from mtorch.layer import Layer

TRACING = RLock()


class Module(Layer):
    """A shell around one network: it passes calls on and keeps the parameter names. Write it in one of two ways.

    With a net:

        class Digits(Module):
            def __init__(self):
                super().__init__(Sequential(Linear(784, 16), ReLU(), Linear(16, 10)))

    With a forward: layers, parameters, modules, and lists, tuples and dicts of them, are assigned in `__init__`.

        class Skip(Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.fc2 = Linear(3, 3), Linear(3, 2)

            def forward(self, x):
                return self.fc2(mtorch.tanh(self.fc1(x)) + x)

    This forward is traced when the module is first used: it runs once, with an `Input` for each of its arguments (those
    with a default keep it), and the expression that it returns becomes a `Graph`. It is traced again when the module is
    used after another layer was assigned, and by `retrace()`. So it may use only layers, operators and `mtorch`
    functions. Python's `if` and `for` run while it is traced: they cannot depend on data, nor on `self.training`
    (Dropout and BatchNorm read that by themselves). Parameters are called `fc1.weight`; a module of several arguments
    is called with a tuple, or with as many values.

    Backward returns None: nobody reads the gradient of the first input, so it is not computed
    (`input_grad=True` asks for it, and then `backward` returns it).
    """

    _described: bool | None = None  # whether the class has a forward of its own, once `__init__` ran
    _graph: Any = None  # the traced forward, a Graph, and the attributes that it was traced with
    _traced: list[Any] = []
    _tracing = False

    def __init__(self, net: Layer | None = None, *, input_grad: bool = False):
        name, described = type(self).__name__, type(self).forward is not Module.forward
        if described and net is not None:
            raise TypeError(f"{name} defines forward, so its super().__init__() takes no net, got {shown(net)}")
        if not described and not isinstance(net, Layer):
            hint = "" if net is not None else ", and defines no forward to do without"
            raise TypeError(f"{name} wraps a layer, got {shown(net)}{hint}")
        if net is not None:
            self.net = net.core()
        self.input_grad = check_flag(name, "input_grad", input_grad)
        self._memory, self._returned, self._described = EMPTY, None, described
        self._graph, self._traced, self._tracing = None, [], False

    # ------------------------------------------------------------------ the net

    def core(self) -> Layer:
        """The net that was given, or the graph that `forward` describes.

        The graph is traced at the first use, and again at the first use after another layer was assigned.
        """
        if self._described is None:
            raise TypeError(f"{type(self).__name__}.__init__ must begin with super().__init__()")
        if not self._described:
            return self.net
        if self._changed():
            with TRACING:  # of two threads that use the module first, one traces
                return self.retrace() if self._changed() else self._graph
        return self._graph

    def retrace(self) -> Graph:
        """Traces `forward` anew. When that fails, the module keeps the graph it had."""
        before, self._tracing = self._tracing, True
        try:
            graph = traced(self)
        finally:
            self._tracing = before
        self._traced, graph.module = self._attributes(), self
        if self._graph is None:
            self._graph = graph
        else:
            graph._training = self._graph._training  # not the mode of a predict that this may be within
            vars(self._graph).update(vars(graph))  # the same object, because containers may hold it
        return self._graph

    def _attributes(self) -> list[Any]:
        """The attributes that are, or may contain, layers and parameters."""
        return [item for name, item in vars(self).items() if name not in PRIVATE and isinstance(item, HOLDERS)]

    def _changed(self) -> bool:
        """Whether the forward was never traced, or other layers or parameters were assigned since."""
        if self._graph is None:
            return True
        now = self._attributes()
        if len(now) == len(self._traced) and all(a is b for a, b in zip(now, self._traced, strict=True)):
            return False
        if self._graph.named != dict(named_items(self)):
            return True
        self._traced = now
        return False

    def _source(self) -> Layer | None:
        """Where array module, dtype and mode are read: the net, and before tracing a layer among the attributes."""
        if self._graph is not None or not self._described:
            return self.core()
        layers = [item for _, item in named_items(self) if isinstance(item, Layer)]
        return next((layer for layer in layers if layer.parameters()), layers[0] if layers else None)

    @property
    def xp(self) -> ModuleType:  # type: ignore[override]  # an attribute of a Layer
        source = self._source()
        return numpy if source is None else source.xp

    @property
    def dtype(self) -> numpy.dtype:  # type: ignore[override]  # an attribute of a Layer
        source = self._source()
        return numpy.dtype("float32") if source is None else source.dtype

    @property
    def training(self) -> bool:
        source = None if self._tracing else self._source()
        return True if source is None else source.training

    @training.setter
    def training(self, mode: bool) -> None:
        self.core().training = mode

    def own(self, kind: Any) -> Iterator[tuple[str, Any]]:
        return iter(()) if self._described else super().own(kind)

    def children(self) -> Iterator[tuple[str, Layer]]:
        yield "", self.core()

    # ------------------------------------------------------------------ the verbs, handed on

    def __call__(self, x: Value, *more: Value) -> Value:
        called = super().__call__ if "forward" in self.__dict__ else self.core()
        return called(x, *more) if more else called(x)

    def forward(self, x: Value) -> Value:
        return self.net.forward(x)

    def backward(self, output_grad: Value) -> Value | None:
        net = self.core()
        if self.input_grad:
            return net.backward(output_grad)
        net.backward_parameters(output_grad)
        return None

    def backward_parameters(self, output_grad: Value) -> None:
        self.core().backward_parameters(output_grad)

    def predict(self, x: Value, *more: Value, state: Any = EMPTY) -> Any:
        predict = super().predict if "forward" in vars(self) else self.core().predict
        return predict(x, *more, state=state)

    def cast_input(self, x: Value) -> Value:
        return self.core().cast_input(x)

    def __getitem__(self, index: Any) -> Any:
        core: Any = self.core()
        return core[index]

    def step(self, lr: float) -> None:
        self.core().step(lr)

    def details(self) -> str:
        return repr(self.core())

    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        """Does nothing: the network is converted, and this module has no array of its own."""

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers
        from mtorch.sequential import Sequential

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(Sequential(nn.Linear(3, 2), nn.Tanh()), input_grad=True), (4, 3)
