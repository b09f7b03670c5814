"""A model: the thin shell around one net that a training script drives."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from mtorch.arrays import Value
from mtorch.checks import check_flag
from mtorch.graph.expression import Expression, Input
from mtorch.graph.graph import Graph
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter

STATE = Layer | Parameter | Buffer


def _of_net(name: str) -> property:
    """The attribute of a Module's net; before there is one, what the constructor set."""

    def get(self: "Module") -> Any:
        net = vars(self).get("_net")
        return vars(self)[name] if net is None else getattr(net, name)

    def put(self: "Module", value: Any) -> None:
        vars(self)[name] = value
        if "_net" in vars(self):
            setattr(self._net, name, value)

    return property(get, put)


class _Complete(type):
    """Lets a Module finish itself when its whole `__init__` has run."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        module = super().__call__(*args, **options)
        module._complete()
        return module


class Module(Layer, guarded=False, metaclass=_Complete):
    """Holds one net and hands every verb on to it, under the net's own parameter names. Write it in one of two ways.

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

    This forward runs once, when the module is complete, with an `Input` for each of its arguments (those with a default
    keep it), and what it writes down becomes a `Graph`; again when another layer is assigned (one that does not fit is
    refused; a list that is changed in place goes unnoticed). So it is made of layers, operators and `mtorch` functions,
    and Python's `if` and `for` in it are decided then: they cannot see data, and not `self.training` either (Dropout
    and BatchNorm do, by themselves). Parameters are called `fc1.weight`; a module of several arguments is called with
    a tuple, or with as many values.

    `backward` returns None: nobody reads the gradient of the first input, so it is not computed
    (`input_grad=True` asks for it, and then `backward` returns it).
    """

    xp, dtype, training = _of_net("xp"), _of_net("dtype"), _of_net("training")
    _formula: Callable | None = None  # the forward that the class defines

    def __init__(self, net: Layer | None = None, *, input_grad: bool = False):
        name, by_formula = type(self).__name__, self._formula is not None
        if net is None and by_formula:
            super().__init__()
        elif not isinstance(net, Layer):
            hint = "" if net is not None else ", and defines no forward to do without"
            raise TypeError(f"{name} wraps a layer, got {net!r}{hint}")
        elif by_formula:
            raise TypeError(f"{name} defines forward, so its super().__init__() takes no net, got {net!r}")
        else:
            super().__init__(xp=net.xp, dtype=net.dtype)
            self.net = net.core()
        self.input_grad = check_flag(name, "input_grad", input_grad)

    def __init_subclass__(cls):
        if "forward" in vars(cls):
            cls._formula = vars(cls)["forward"]
            cls.forward = _by_graph(cls._formula)
        super().__init_subclass__(guarded=False)

    # ------------------------------------------------------------------ the net

    def _complete(self) -> None:
        if "input_grad" not in vars(self):
            raise TypeError(f"{type(self).__name__}.__init__ must begin with super().__init__()")
        self.core()

    def core(self) -> Layer:
        return self._net

    def __getattr__(self, name: str) -> Any:
        if name == "_net" and "input_grad" in vars(self):
            self._net = net = self._traced() if self._formula is not None else self.net
            return net
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = vars(self)
        before = attributes.get(name)
        super().__setattr__(name, value)
        if "_net" not in attributes or name in ("_net", "_memory", "_returned"):
            return
        if self._formula is None:
            if name == "net":
                self._net = value.core()
                Layer.rebuilt += 1
        elif any(isinstance(item, STATE | list | tuple | dict) for item in (before, value)):
            if self._net.named != dict(_named(self)):
                try:
                    graph = self._traced()
                except Exception:
                    attributes[name] = before
                    raise
                vars(self._net).update(vars(graph))  # the same object, because other graphs may hold it
                Layer.rebuilt += 1

    def _traced(self) -> Graph:
        """The graph that the forward of the class writes down."""
        name, mode, attributes = type(self).__name__, self.training, vars(self)
        inputs = tuple(Input(argument) for argument in _arguments(name, self.forward))
        before = attributes.pop("_net", None)
        attributes["training"] = True  # what forward sees if it looks
        try:
            result = self.forward(*inputs)
            if not isinstance(result, Expression | tuple):
                raise TypeError(f"{name}.forward must return an expression or a tuple of them, got {result!r}")
            graph = Graph.of(result, inputs=inputs, named=dict(_named(self)), title=name)
        except Exception as error:
            error.add_note(f"while {name}.forward was run on Inputs")
            raise
        finally:
            attributes["training"] = mode
            if before is not None:
                attributes["_net"] = before
        graph.training = mode
        return graph

    def own(self, kind: type) -> Iterator[tuple[str, Any]]:
        return iter(()) if self._formula is not None else super().own(kind)

    def children(self) -> Iterator[tuple[str, Layer]]:
        return self._net.children()

    def walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        yield path, self
        yield from self._net.walk(path)

    # ------------------------------------------------------------------ the verbs, handed on

    def __call__(self, x: Value, *more: Value) -> Value:
        return self._net(x, *more) if more else self._net(x)

    def cast_input(self, x: Value) -> Value:
        return self._net.cast_input(x)

    def forward(self, x: Value) -> Value:
        return self._net.forward(x)

    def backward(self, output_grad: Value) -> Value | None:
        return self._net.backward(output_grad) if self.input_grad else self._net.backward_parameters(output_grad)

    def backward_parameters(self, output_grad: Value) -> None:
        self._net.backward_parameters(output_grad)

    def predict(self, x: Value, *more: Value) -> Value:
        return self._net.predict(x, *more)

    def infer(self, x: Value) -> Value:
        return self._net.infer(x)

    def step(self, lr: float) -> None:
        self._net.step(lr)

    def details(self) -> str:
        return repr(self._net)

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import Sequential, layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(Sequential(nn.Linear(3, 2), nn.Tanh()), input_grad=True), (4, 3)


def _by_graph(formula: Callable) -> Callable:
    """The forward of a class: the formula itself for expressions (also through `super().forward`), else the graph."""

    @wraps(formula)
    def forward(self: Module, *values: Any, **options: Any) -> Any:
        if any(isinstance(value, Expression) for value in (*values, *options.values())):
            return formula(self, *values, **options)
        return self._net.forward(values[0] if len(values) == 1 else values)

    return forward


def _arguments(name: str, forward: Callable) -> list[str]:
    """The names of forward's arguments that have no default."""
    needed = [each for each in inspect.signature(forward).parameters.values() if each.default is each.empty]
    if not needed or any(each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in needed):
        raise TypeError(f"{name}.forward must take a fixed number of arguments, got {inspect.signature(forward)}")
    return [each.name for each in needed]


def _named(module: Module) -> Iterator[tuple[str, STATE]]:
    """(path, item) of every layer, parameter and buffer among the attributes, those in lists and dicts included."""
    stack = [(name, item) for name, item in vars(module).items() if name != "_net"][::-1]
    while stack:
        path, item = stack.pop()
        if isinstance(item, Layer):
            yield path, item.core()
        elif isinstance(item, Parameter | Buffer):
            yield path, item
        elif isinstance(item, list | tuple | dict):
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            stack.extend([(f"{path}.{key}", part) for key, part in pairs][::-1])
