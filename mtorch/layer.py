"""The layer protocol: every layer carries its own derivative.

A **value** is an array or a tuple of values. The gradient of a value has the structure, the shapes and the dtype of
the value; `None` stands for a gradient that does not exist (integers, masks) or was not asked for. A list is array
data, a tuple is structure.

| verb | contract |
|---|---|
| `layer(x)` | the call for users: checks that `x` lives on the layer's array module, casts real and integer data once to the layer's dtype (ids, labels, masks and lengths keep their kind), raises TypeError if `x` is not numeric; then `forward`. `layer(a, b)` is `layer((a, b))`. Given an expression it returns an expression. |
| `forward(x)` | the computation; containers call this. Returns a value and *remembers* what backward will need. Never writes into `x`. If it raises, nothing is remembered anywhere below and buffers are unchanged. |
| `backward(output_grad)` | compares structure and shapes with what forward returned (a wrong one is an error that changes nothing), adds each parameter's exact gradient and returns the gradient of what forward took. Depends only on what forward remembered, never on a mode. Each forward is answered once. Never writes into `output_grad`. |
| `backward_parameters(output_grad)` | as backward, but the input gradient is not wanted: returns `None`. |
| `step(lr)` | every trainable parameter moves by `-lr * direction`, where the direction is what an optimizer put there, else the gradient; then gradients count as zero. |
| `zero_grad()` | discards gradients without moving. |
| `train()` / `eval()` | set the mode of the whole subtree; forward may read `self.training`. |
| `predict(x)` | an eval-mode call that remembers nothing and changes nothing: modes and a pending backward stay as they were, and several threads may predict with one net. |
| `to(xp=None, dtype=None)` | a converted copy. Layers can be deep-copied and pickled. |
| `parameters()` | `{dotted name: Parameter}`, a shared one once. |
| `state_dict()` / `load_state_dict(d)` | dotted names to host copies of parameters and buffers, a shared one under every path; loading is strict and changes nothing when it fails. |

**To write a layer**, write `forward` and `backward`. In forward call `self.remember(a, b)` with what backward needs.
Begin backward with `g = self.cast_grad(output_grad)`, which checks the gradient, and get back what was remembered, once,
with `a, b = self.recall()`. Hold parameters as attributes (`self.weight = Parameter(...)`) and add to their gradients
with `self.weight.accumulate(...)`. Layers may be attributes too: call them in forward, and their `backward` in reverse
order in backward. Arrays that forward or backward return belong to the caller; values are remembered by reference, so
nobody writes into one between a forward and its backward.

**Axis legend**: N batch, T time, D features in, H hidden, C channels, K classes, V vocabulary; `...` any leading axes.
"""  # noqa: E501

import copy
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Self

import numpy

from mtorch import arrays, guards
from mtorch.arrays import Value
from mtorch.checks import check_flag
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.guards import EMPTY, NO_ARRAY, thread  # noqa: F401
from mtorch.parameter import Buffer, Parameter


class Layer:
    """A function of one value with its derivative. See the module's docstring for the protocol.

    xp: the array module (numpy, cupy). dtype: the floating type of parameters and results.
    """

    takes: Any = "floats"  # "ids": integers; "any": integers and masks keep their kind; a tuple of these for a tuple
    array_only = False  # True for layers that take one array; a tuple is then refused for them
    moves_data = False  # True for layers that only rearrange entries, so that the next layer says what is taken
    has_tape = False  # True for containers, whose tape restores buffers after an error
    rebuilt = 0
    parts: int | None = None  # how many entries the tuple has that forward returns; None for an array, or if unknown

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32"):
        self.xp, self.dtype = home_of(type(self).__name__, xp, dtype)
        self._training = True
        self._memory: Any = EMPTY
        self._returned: Any = None  # the shapes and dtypes that backward compares its gradient with

    # ------------------------------------------------------------------ the verbs

    def __call__(self, x: Value, *more: Value) -> Value:
        if more:
            x = (x, *more)
        if not self._fits(x):
            expression = guards.expression_in(x)
            if expression is not None:
                return expression.apply(self, x)
            x = self.cast_input(x)
        return guards.checked_forward(self, x)

    def forward(self, x: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, output_grad: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def backward_parameters(self, output_grad: Value) -> None:
        self.backward(output_grad)

    def step(self, lr: float) -> None:
        for item in vars(self).values():
            if isinstance(item, MOVED):
                item.step(lr)

    def zero_grad(self) -> None:
        for parameter in self.parameters().values():
            parameter.zero_grad()

    def predict(self, x: Value, *more: Value) -> Value:
        if more:
            x = (x, *more)
        if not self._fits(x):
            x = self.cast_input(x)
        before, thread.predicting = thread.predicting, True
        try:
            return guards.checked_forward(self, x)
        finally:
            thread.predicting = before

    def cast_input(self, x: Value) -> Value:
        """What a call takes, as arrays on this layer's module: floats in this layer's dtype, and what `takes` says."""
        if x is None:
            raise TypeError(f"{self!r} expected an array, got None")
        return guards.cast(self, x, self.takes)

    def _fits(self, x: Any) -> bool:
        """Whether x is an array as this layer computes with, so that there is nothing to cast."""
        try:
            return x.__class__ is self.xp.ndarray and x.dtype is self.dtype
        except AttributeError:
            if "_memory" not in vars(self):
                text = f"{type(self).__name__}.__init__ must begin with super().__init__()"
                raise AttributeError(text, obj=self) from None
            raise

    # ------------------------------------------------------------------ memory: one slot, spent on use

    def remember(self, value: Any = (), *more: Any) -> None:
        """Keeps what backward will need, by reference; replaces what was there. Within predict it keeps nothing."""
        if not thread.predicting:
            self._memory = (value, *more) if more else value

    def recall(self) -> Any:
        """What `remember` kept: the value itself when it was one, the tuple when there were several."""
        memory = self._memory
        if memory is EMPTY:
            raise BackwardError(f"{self!r} has nothing to go back to: call forward before each backward")
        self._memory = EMPTY
        return memory

    def returns(self, y: Value) -> Value:
        """Notes the shapes and dtypes that `cast_grad` compares with; returns y."""
        if not thread.predicting:
            self._returned = (y.shape, y.dtype) if y.__class__ is self.xp.ndarray else guards.signature(y)
        return y

    def cast_grad(self, output_grad: Value) -> Value:
        """The output gradient, compared with what forward returned and cast to its dtype."""
        returned = self._returned
        if returned is not None:
            if (
                output_grad.__class__ is not self.xp.ndarray or returned.__class__ is list
                or output_grad.shape != returned[0] or output_grad.dtype is not returned[1]
            ):  # fmt: skip
                output_grad = guards.checked_grad(self, output_grad, returned)
            self._returned = None
        return output_grad

    def forget(self) -> None:
        """Drops every memory in the subtree."""
        for _, layer in self.walk():
            layer._memory, layer._returned = EMPTY, None

    def discard(self) -> None:
        """Drops every memory and gradient in the subtree."""
        self.forget()
        self.zero_grad()

    # ------------------------------------------------------------------ the tree

    def own(self, kind: Any) -> Iterator[tuple[str, Any]]:
        """(name, attribute) for each attribute of that kind, in the order of assignment."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, kind))

    def children(self) -> Iterator[tuple[str, "Layer"]]:
        """(name, layer) for each layer directly below. Containers name theirs by position; "" adds nothing to paths."""
        return self.own(Layer)

    def walk(self, path: str = "") -> Iterator[tuple[str, "Layer"]]:
        """(prefix, layer) for this layer and all below it, a shared one under every path."""
        stack: list[tuple[str, Layer]] = [(path, self)]
        while stack:
            prefix, layer = stack.pop()
            yield prefix, layer
            below = [(f"{prefix}{name}." if name else prefix, child) for name, child in layer.children()]
            stack.extend(reversed(below))

    def parameters(self) -> dict[str, Parameter]:
        """Dotted names of all parameters below; a shared one appears once, under its first name."""
        found: dict[int, tuple[str, Parameter]] = {}
        for prefix, layer in self.walk():
            for name, parameter in layer.own(Parameter):
                found.setdefault(id(parameter), (prefix + name, parameter))
        return dict(found.values())

    def buffers(self) -> tuple[Buffer, ...]:
        """All buffers below."""
        return tuple({id(buffer): buffer for _, layer in self.walk() for _, buffer in layer.own(Buffer)}.values())

    def _state(self) -> dict[str, Parameter | Buffer]:
        """What a state dict holds: parameters and persistent buffers by dotted name."""
        return {
            prefix + name: item
            for prefix, layer in self.walk()
            for name, item in layer.own(Parameter | Buffer)
            if isinstance(item, Parameter) or item.persistent
        }

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Host copies of all parameters and buffers by dotted name."""
        arrays.raise_deferred()
        return {name: numpy.array(arrays.as_numpy(item.value)) for name, item in self._state().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over all values, cast to this layer's dtypes; a ValueError lists every name or shape that differs."""
        own = self._state()
        if not isinstance(state, Mapping):
            raise TypeError(f"{self!r} expected a state dict of arrays by name, got {state!r}")
        given = {name: arrays.host_array(value, name) for name, value in state.items()}
        shapes = [
            f"{name} has shape {given[name].shape}, expected {own[name].value.shape}"
            for name in own
            if name in given and given[name].shape != own[name].value.shape
        ]
        missing, unexpected = [n for n in own if n not in given], [n for n in given if n not in own]
        if missing or unexpected or shapes:
            parts = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
            text = "; ".join(f"{label}: {', '.join(map(str, names))}" for label, names in parts if names)
            raise ValueError(f"{self!r} cannot load this state dict: {text}")
        for name, item in own.items():
            value = self.xp.asarray(given[name].astype(item.value.dtype))
            if isinstance(item, Parameter):
                item.value[...] = value
            else:
                item.value = value

    def random_state(self) -> dict[str, int]:
        """What a random layer needs to go on drawing where it is; part of a checkpoint, not of `state_dict`."""
        return {}

    def set_random_state(self, state: dict[str, int]) -> None:
        """Takes over a `random_state`."""

    # ------------------------------------------------------------------ modes and copies

    @property
    def training(self) -> bool:
        """The mode of this layer; False within predict."""
        return self._training and not thread.predicting

    @property
    def predicting(self) -> bool:
        """Whether this runs within predict, where a layer keeps nothing."""
        return thread.predicting

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def train(self, mode: bool = True) -> Self:
        mode = check_flag(self, "mode", mode)
        for _, layer in self.walk():
            layer.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def to(self, xp: ModuleType | None = None, dtype: Any = None) -> Self:
        """A copy on another array module or in another dtype, without gradients or memories."""
        homes = [home_of(repr(layer), xp or layer.xp, dtype or layer.dtype) for _, layer in self.walk()]
        twin = copy.deepcopy(self)
        twin.discard()
        for (_, layer), home in zip(twin.walk(), homes, strict=True):
            layer._adopt(*home)
        return twin

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        """Moves this layer, without those below it, to another array module and dtype."""
        self.xp, self.dtype = xp, dtype
        for _, item in self.own(Parameter | Buffer):
            host = arrays.as_numpy(item.value)
            item.value = xp.asarray(host.astype(dtype) if host.dtype.kind == "f" else host)
            if isinstance(item, Parameter):
                item.forget()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"xp": self.xp.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, xp=arrays.module_named(state["xp"]))

    # ------------------------------------------------------------------ construction

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        """What is known of the output's sizes by axis, given what is known of the input's; `{}` when nothing is.

        `Sequential` calls it at construction, so that layers that do not fit are found before any data comes.
        """
        return {}

    def check_dim(self, known: dict[int, int], axis: int, size: int | None) -> None:
        """Raises ShapeMismatchError when the size of that axis is known before any data and is not `size`."""
        if size is not None and known.get(axis, size) != size:
            raise ShapeMismatchError(self, f"expected {size} entries on axis {axis}, got {known[axis]}")

    def core(self) -> "Layer":
        """The layer that a container should hold for this one: itself, or a `Module`'s net."""
        return self

    def details(self) -> str:
        """What stands between the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.details()})"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple["Layer", Any]]:
        """(layer, inputs) pairs that cover the options of the class; every shared test runs over them.

        An input is a shape, a tuple of shapes, or a function of (xp, rng) that returns the value itself.
        """
        raise NotImplementedError(f"{cls.__name__} needs examples() for its proofs")


MOVED = (Parameter, Layer)


def home_of(who: str, xp: Any, dtype: Any) -> tuple[ModuleType, numpy.dtype]:
    """The array module and the dtype of a layer; an error where they are none."""
    if not hasattr(xp, "ndarray"):
        raise TypeError(f"{who} expected xp to be an array module such as numpy, got {xp!r}")
    try:
        return xp, arrays.float_dtype(xp, dtype)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None
