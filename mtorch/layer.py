"""The layer protocol: every layer carries its own derivative.

A **value** is an array or a tuple of values. The gradient of a value has the structure, the shapes and the dtype of
the value; `None` stands for a gradient that does not exist (integers, masks) or was not asked for. A list is array
data, a tuple is structure.

| verb | contract |
|---|---|
| `layer(x)` | the call for users, the *door*: checks that `x` lives on the layer's array module, casts real and integer data once to the layer's dtype (ids, labels, masks and lengths keep their kind), refuses what is no array of numbers; then `forward`. `layer(a, b)` is `layer((a, b))`. Given an expression it returns an expression. |
| `forward(x)` | the computation, the *room* behind the door: containers call this. Returns a value and *remembers* what backward will need. Never writes into `x`. If it raises, nothing is remembered anywhere below and buffers are unchanged. |
| `backward(output_grad)` | compares structure and shapes with what forward returned (a wrong one is an error that changes nothing), adds each parameter's exact gradient and returns the gradient of what forward took. Depends only on what forward remembered, never on a mode. Each forward is answered once. Never writes into `output_grad`. |
| `backward_parameters(output_grad)` | as backward, but the input gradient is not wanted: returns `None`. |
| `step(lr)` | every trainable parameter moves by `-lr * direction`, where the direction is what an optimizer put there, else the gradient; then gradients count as zero. |
| `zero_grad()` | discards gradients without moving. |
| `train()` / `eval()` | set the mode of the whole subtree; forward may read `self.training`. |
| `predict(x)` | an eval-mode pass through the door that keeps nothing: modes and a pending backward stay as they were. |
| `to(xp=None, dtype=None)` | a converted copy. Layers can be deep-copied and pickled. |
| `parameters()` | `{dotted name: Parameter}`, a shared one once. |
| `state_dict()` / `load_state_dict(d)` | dotted names to host copies of parameters and buffers, a shared one under every path; loading is strict and changes nothing when it fails. |

**To write a layer**, write `forward` and `backward`. In forward call `self.remember(a, b)` with what backward needs, in
backward get it back, once, with `a, b = self.recall()`. Hold parameters as attributes (`self.weight = Parameter(...)`)
and add to their gradients with `self.weight.accumulate(...)`. Shapes, order of calls and cleaning up after errors are
looked after here: every `forward` and `backward` that a subclass defines is called through `_guarded_forward` and
`_guarded_backward` below. Arrays that forward or backward return belong to the caller; values are remembered by
reference, so nobody writes into one between a forward and its backward.

**Memory between layers.** In a chain nobody but the next layer sees what a layer returns. If the first promises that it
does not need it any more (`new_result`, `new_grad`) and the next can write into it (`overwrites`), then the next is
given the array a second time, as `spare`, and may put its own result there, which saves a large array.

**Threads.** A net holds its memory and its mode, so it is for one thread at a time; others take a `copy.deepcopy` of it.

**Axis legend**: N batch, T time, D features in, H hidden, C channels, K classes, V vocabulary; `...` any leading axes.
"""  # noqa: E501

import copy
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import wraps
from types import ModuleType
from typing import Any, Self

import numpy

from mtorch import arrays
from mtorch.arrays import Value
from mtorch.checks import check_flag
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.kernels.threads import alone
from mtorch.parameter import Buffer, Parameter


class _Slot(Enum):
    EMPTY = "nothing is remembered"
    TRUSTED = "the caller vouches for the shape of the output gradient"


EMPTY, TRUSTED = _Slot.EMPTY, _Slot.TRUSTED
NO_ARRAY = (tuple, type(None))
NO_VALUE = frozenset({type(None), bool, int, float, str, list, dict})  # what a forward may return by mistake


class Symbol:
    """What a door accepts instead of arrays: `Graph`'s expressions. Nothing is computed, the call is written down."""

    def apply(self, layer: "Layer", x: Any) -> Any:
        raise NotImplementedError


class Layer:
    """A function of one value with its derivative. See the module's docstring for the protocol.

    xp: the array module (numpy, cupy). dtype: the floating type of parameters and results.
    """

    moves_data = False  # True for layers that only rearrange entries and so take any kind of data
    parts: int | None = None  # how many entries the tuple has that forward returns; None for an array, or if unknown
    multithreaded = False  # True for layers whose kernels share their work between threads, and for nets that hold one
    array_only = False  # True for layers that take one array; a tuple is then refused for them
    new_result: bool | None = False  # True: forward returns new memory, which the layer does not keep
    new_grad: bool | None = False  # True: so does backward. None for either: or what it got, or a view of that
    overwrites = False  # True for layers whose forward and backward take a second argument: spare memory
    rebuilt = 0  # how often any module has got other layers; what has listed parameters then lists them again

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32"):
        self.xp, self.dtype = home_of(type(self).__name__, xp, dtype)
        self.training = True
        self._memory: Any = EMPTY
        self._returned: Any = None

    def __init_subclass__(cls, guarded: bool = True):
        super().__init_subclass__()
        for name, guard in _GUARDS.items():
            home = next(base for base in cls.__mro__ if name in vars(base))
            if home is cls or not issubclass(home, Layer):  # its own, or that of a class it is mixed with
                verb = vars(home)[name]
                setattr(cls, f"bare_{name}", verb)
                if guarded:
                    setattr(cls, name, guard(verb))
                for promise in _PROMISES - vars(cls).keys():
                    setattr(cls, promise, False)

    # ------------------------------------------------------------------ the three verbs

    def __call__(self, x: Value, *more: Value) -> Value:
        if more:
            x = (x, *more)
        elif x.__class__ is self._array_class() and x.dtype is self.dtype:
            return self.forward(x)
        symbol = _symbol_in(x)
        return self.forward(self.cast_input(x)) if symbol is None else symbol.apply(self, x)

    def _array_class(self) -> type:
        try:
            return self.xp.ndarray
        except AttributeError:
            complete(self)
            raise

    def cast_input(self, x: Value) -> Value:
        """What the door lets in: every array on this layer's module, in this layer's dtype."""
        if x is None:
            raise TypeError(f"{self!r} expected an array, got None")
        return arrays.map_value(lambda leaf: arrays.as_float(self.xp, self.dtype, leaf, self), x)

    def forward(self, x: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, output_grad: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def backward_parameters(self, output_grad: Value) -> None:
        self.backward(output_grad)

    def step(self, lr: float) -> None:
        for item in vars(self).values():
            if item.__class__ is Parameter:
                item.step(lr)

    def zero_grad(self) -> None:
        for _, layer in self.walk():
            for _, parameter in layer.own(Parameter):
                parameter.zero_grad()

    def cast_grad(self, output_grad: Value) -> Value:
        """The output gradient, checked against what forward returned and cast to its dtype."""
        return output_grad

    # ------------------------------------------------------------------ memory: one slot, spent on use

    def remember(self, value: Any = (), *more: Any) -> None:
        """Keeps what backward will need, by reference; replaces what was there."""
        self._memory = (value, *more) if more else value

    def recall(self) -> Any:
        """What `remember` kept: the value itself when it was one, the tuple when there were several."""
        memory = self._memory
        if memory is EMPTY:
            raise BackwardError(f"{self!r} has nothing to go back to: call forward before each backward")
        self._memory = EMPTY
        return memory

    def discard(self) -> None:
        """Forgets every memory and gradient in the subtree."""
        for _, layer in self.walk():
            layer._memory, layer._returned = EMPTY, None
        self.zero_grad()

    # ------------------------------------------------------------------ the tree

    def own(self, kind: type) -> Iterator[tuple[str, Any]]:
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

    def _state(self) -> dict[str, Parameter | Buffer]:
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

    def train(self, mode: bool = True) -> Self:
        mode = check_flag(self, "mode", mode)
        for _, layer in self.walk():
            layer.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def predict(self, x: Value, *more: Value) -> Value:
        """The eval-mode result of the door; keeps nothing and changes nothing."""
        if more:
            x = self.cast_input((x, *more))
        elif x.__class__ is not self._array_class() or x.dtype is not self.dtype:
            x = self.cast_input(x)
        return alone(self.infer, x) if self.multithreaded else self.infer(x)

    def infer(self, x: Value) -> Value:
        """forward in eval mode that keeps nothing; a layer that calls layers is a `Container`, which sees to theirs."""
        before = self._memory, self._returned, self.training
        self.training = False
        try:
            array = self.xp.ndarray
            if x.__class__ is not array and x.__class__ in NO_ARRAY and self.array_only:
                refuse(self, x)
            y = self.bare_forward(x)
            return y if y.__class__ is array else settled(self, y, self.moves_data)
        finally:
            self._memory, self._returned, self.training = before

    def to(self, xp: ModuleType | None = None, dtype: Any = None) -> Self:
        """A copy on another array module or in another dtype, without gradients or memories."""
        homes = [home_of(repr(layer), xp or layer.xp, dtype or layer.dtype) for _, layer in self.walk()]
        twin = copy.deepcopy(self)
        twin.discard()
        for (_, layer), home in zip(twin.walk(), homes, strict=True):
            layer._adopt(*home)
        return twin

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
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

    # ------------------------------------------------------------------ construction and errors

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        """What is known of the output's sizes by axis, given what is known of the input's; `{}` when nothing is.

        `Sequential` calls it at construction, so that layers that do not fit are found before any data comes.
        """
        return {}

    def check_dim(self, known: dict[int, int], axis: int, size: int | None) -> None:
        """Raises when the size of that axis is known before any data and is not `size`."""
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


def complete(layer: Layer) -> Layer:
    """The layer itself; AttributeError when its class forgets what `Layer.__init__` does."""
    if "_memory" not in vars(layer):
        raise AttributeError(f"{type(layer).__name__}.__init__ must begin with super().__init__()", obj=layer)
    return layer


def home_of(who: str, xp: Any, dtype: Any) -> tuple[ModuleType, numpy.dtype]:
    """The array module and the dtype of a layer; an error where they are none."""
    if not hasattr(xp, "ndarray"):
        raise TypeError(f"{who} expected xp to be an array module such as numpy, got {xp!r}")
    try:
        return xp, arrays.float_dtype(xp, dtype)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None


def settled(layer: Layer, y: Value, gaps: bool = False) -> Value:
    """What forward returned, with arrays for the scalars that NumPy gives where no axis is left; TypeError for what is
    no value. gaps: whether None may be among it.
    """
    if isinstance(y, tuple):
        return tuple([settled(layer, part, gaps) for part in y])
    if hasattr(y, "shape") or (gaps and y is None):
        return _array(y)
    raise TypeError(f"{layer!r} expected its forward to return an array or a tuple of arrays, got {y!r}")


def refuse(layer: Layer, x: tuple | None) -> None:
    """What a layer that takes one array says to several, and to none."""
    if x is None:
        raise TypeError(f"{layer!r} expected an array, got None")
    raise ShapeMismatchError(layer, f"expected one array, got a tuple of {len(x)}")


def _symbol_in(x: Any) -> Symbol | None:
    if isinstance(x, tuple):
        return next((found for found in map(_symbol_in, x) if found is not None), None)
    return x if isinstance(x, Symbol) else None


def _signature(value: Value) -> Any:
    """(shape, dtype) of an array, a list of signatures for a tuple."""
    if isinstance(value, tuple):
        return [_signature(part) for part in value]
    return value.shape, value.dtype


def _array(x: Any) -> Any:
    """An array in place of the scalar that NumPy gives where no axis is left."""
    return numpy.asarray(x) if isinstance(x, numpy.generic) else x


def _matched(layer: Layer, grad: Value, signature: Any) -> Value:
    """The output gradient in the structure and dtypes of the output; raises when structure or a shape differs."""
    if isinstance(signature, list):
        if not isinstance(grad, tuple) or len(grad) != len(signature):
            got = f"a tuple of {len(grad)}" if isinstance(grad, tuple) else type(grad).__name__
            wanted = f"an output gradient that is a tuple of {len(signature)}"
            raise ShapeMismatchError(layer, f"expected {wanted}, got {got}")
        if all(part is None for part in grad):
            raise ShapeMismatchError(layer, "expected an output gradient for at least one of its outputs, got None")
        return tuple(
            _absent(layer, part) if g is None else _matched(layer, g, part)
            for g, part in zip(grad, signature, strict=True)
        )
    shape, dtype = signature
    if dtype.kind != "f":
        return None
    if grad is None or isinstance(grad, tuple):
        got = "None" if grad is None else f"a tuple of {len(grad)}"
        raise ShapeMismatchError(layer, f"expected an output gradient of shape {shape}, got {got}")
    grad = arrays.as_float(layer.xp, dtype, grad, layer)
    if grad.shape != shape:
        raise ShapeMismatchError(layer, f"expected an output gradient of shape {shape}, got {grad.shape}")
    return grad


def _absent(layer: Layer, signature: Any) -> Value:
    """What stands for an output gradient that was not given: zeros, and None for integers."""
    if isinstance(signature, list):
        return tuple(_absent(layer, part) for part in signature)
    return layer.xp.zeros(signature[0], signature[1]) if signature[1].kind == "f" else None


def _guarded_forward(forward: Callable) -> Callable:
    """Notes what forward returns, for backward to compare with, and forgets everything when it raises."""

    @wraps(forward)
    def guarded(self: Layer, x: Value) -> Value:
        try:
            if x.__class__ in NO_ARRAY and self.array_only:
                refuse(self, x)
            y = alone(forward, self, x) if self.multithreaded else forward(self, x)
            if y.__class__ is not self.xp.ndarray:
                y = settled(self, y)
            self._returned = (y.shape, y.dtype) if y.__class__ is not tuple else _signature(y)
            return y
        except BaseException:
            self._memory, self._returned = EMPTY, None
            raise

    return guarded


def _guarded_backward(backward: Callable) -> Callable:
    """Lets one backward through per forward, with an output gradient that fits; discards everything when it raises."""

    @wraps(backward)
    def guarded(self: Layer, output_grad: Value) -> Value:
        returned = self._returned
        if returned is not TRUSTED:
            if returned is None:
                raise BackwardError(f"{self!r} has no forward to answer: call forward before each backward")
            if returned.__class__ is list or not (
                output_grad.__class__ is self.xp.ndarray
                and output_grad.shape == returned[0]
                and output_grad.dtype is returned[1]
            ):
                output_grad = _matched(self, output_grad, returned)
        if output_grad is None:
            self._memory, self._returned = EMPTY, None
            return None
        self._returned = TRUSTED
        try:
            grad = alone(backward, self, output_grad) if self.multithreaded else backward(self, output_grad)
        except BaseException as error:
            self.discard()
            if returned is not TRUSTED:
                error.add_note(f"the gradients and memories of {self!r} were discarded")
            raise
        self._memory, self._returned = EMPTY, None
        return grad if grad is None or grad.__class__ is self.xp.ndarray else arrays.map_value(_array, grad)

    return guarded


_GUARDS = {"forward": _guarded_forward, "backward": _guarded_backward, "backward_parameters": _guarded_backward}
_PROMISES = {"new_result", "new_grad", "overwrites"}  # about a class's own verbs; with other verbs they are not made
