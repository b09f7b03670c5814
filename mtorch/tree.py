"""The tree that layers form: names, parameters, state dicts, modes and copies."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import numpy

from mtorch import arrays, deferred
from mtorch.arrays import Array
from mtorch.checks import check_flag, plain, shown
from mtorch.devices import check_usable
from mtorch.errors import ShapeMismatchError
from mtorch.keywords import Keywords
from mtorch.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from mtorch.layer import Layer


class Tree(Keywords):
    """What every `Layer` is besides a function: a node that has parameters, buffers and layers as attributes."""

    xp: ModuleType
    dtype: numpy.dtype

    def own(self, kind: Any) -> Iterator[tuple[str, Any]]:
        """(name, attribute) for each attribute of that kind, in the order of assignment."""
        attributes = [*vars(self).items()]  # another thread may add one meanwhile
        return ((name, value) for name, value in attributes if isinstance(value, kind))

    def children(self) -> Iterator[tuple[str, "Layer"]]:
        """(name, layer) for each layer directly below. Containers name theirs by position; "" adds nothing to paths."""
        yield from self.own(Tree)
        for name, value in self.own(list | dict):
            if value.__class__ in (list, dict) and any(isinstance(item, Tree | Parameter) for item in _items(value)):
                wanted = "layers and parameters as attributes, or in a Sequential"
                raise TypeError(
                    f"{type(self).__name__} expected {wanted}, got a {type(value).__name__} {name!r} of them"
                )

    def walk(self, path: str = "") -> Iterator[tuple[str, "Layer"]]:
        """(prefix, layer) for this layer and all below it, a shared one under every path."""
        stack: list[tuple[str, Any]] = [(path, self)]
        while stack:
            prefix, layer = stack.pop()
            yield prefix, layer
            below = [(f"{prefix}{name}." if name else prefix, child) for name, child in layer.children()]
            stack.extend(reversed(below))

    def parameters(self) -> dict[str, Parameter]:
        """Dotted names of all parameters below; a shared one appears once, under its first name."""
        return self._named(Parameter)

    @property
    def trainable(self) -> bool:
        """Whether a parameter below is trainable. Setting it freezes all parameters below, or thaws them."""
        return any(parameter.trainable for parameter in self.parameters().values())

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        check_flag(self, "trainable", trainable)
        for parameter in self.parameters().values():
            parameter.trainable = trainable

    def buffers(self) -> dict[str, Buffer]:
        """Dotted names of all buffers below; a shared one appears once, under its first name."""
        return self._named(Buffer)

    def _named(self, kind: Any) -> dict[str, Any]:
        found: dict[int, tuple[str, Any]] = {}
        for prefix, layer in self.walk():
            for name, item in layer.own(kind):
                found.setdefault(id(item), (prefix + name, item))
        return dict(found.values())

    def trains(self) -> bool:
        """Whether a parameter at or below this layer is trainable."""
        return any(p.trainable for _, p in self.own(Parameter)) or any(layer.trains() for _, layer in self.children())

    def _headline(self) -> str:
        """The repr, but only the name of the class where it would repeat the layers below."""
        text = repr(self)
        return type(self).__name__ if any(repr(layer) in text for _, layer in self.children()) else text

    def __str__(self) -> str:
        """The repr; with layers below a line for each, indented as they nest."""
        below = [f"({name}): {layer}" if name else str(layer) for name, layer in self.children()]
        return "\n".join([self._headline(), *below]).replace("\n", "\n  ")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from mtorch.insight.summary import summary  # imported here: it stands above

        layer: Any = self
        return summary(layer)._repr_html_()

    # ------------------------------------------------------------------ one vector, for optimizers of other libraries

    def to_vector(self) -> Array:
        """The values of all trainable parameters one after the other, as a new vector."""
        return self._vector([p.value for p in self._trainable()])

    def gradient_vector(self) -> Array:
        """The gradients of all trainable parameters, in the order of `to_vector`; zeros where there is none."""
        return self._vector([p.grad for p in self._trainable()])

    def from_vector(self, vector: Any) -> None:
        """Gives the trainable parameters the values of a vector that is laid out as `to_vector` returns it."""
        parameters = self._trainable()
        size = sum(p.value.size for p in parameters)
        vector = arrays.as_float(self.xp, self.dtype, vector, self)
        if vector.shape != (size,):
            raise ShapeMismatchError(self, f"expected a vector of {size} entries, got shape {vector.shape}")
        start = 0
        for p in parameters:
            p.value[...] = vector[start : start + p.value.size].reshape(p.value.shape)
            start += p.value.size

    def _trainable(self) -> list[Parameter]:
        return [p for p in self.parameters().values() if p.trainable]

    def _vector(self, parts: list[Array]) -> Array:
        return self.xp.concatenate([self.xp.zeros(0, self.dtype), *(part.reshape(-1) for part in parts)])

    # ------------------------------------------------------------------ state dicts

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
        deferred.raise_deferred(self)
        return {name: numpy.array(arrays.as_numpy(item.value)) for name, item in self._state().items()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> dict[str, list[str]]:
        """Takes over all values, cast to this layer's dtypes; a ValueError lists every name or shape that differs.

        strict=False: takes over what fits, and returns the rest: {"missing": names, "unexpected": names, "wrong shape":
        sentences}.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"{self!r} expected a state dict of arrays by name, got {shown(state)}")
        given = {name: arrays.host_array(value, f"{self!r}: state {shown(name)}") for name, value in state.items()}
        misfits = self._compare_state({name: value.shape for name, value in given.items()}, strict)
        for name, item in self._state().items():
            if name not in given or given[name].shape != item.value.shape:
                continue
            value = self.xp.asarray(given[name].astype(item.value.dtype, copy=isinstance(item, Buffer)))
            if isinstance(item, Parameter):
                item.value[...] = value
            else:
                item.value = value
        return misfits

    def _compare_state(self, given: Mapping[str, tuple[int, ...]], strict: bool = True) -> dict[str, list[str]]:
        """What keeps a state dict with these shapes from loading, as an error where it is `strict`."""
        own = {name: item.value.shape for name, item in self._state().items()}
        shapes = [
            f"{name} has shape {given[name]}, expected {own[name]}"
            for name in own
            if name in given and given[name] != own[name]
        ]
        missing, unexpected = [n for n in own if n not in given], [n for n in given if n not in own]
        misfits = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
        if check_flag(self, "strict", strict) and any(misfits.values()):
            texts = {label: ", ".join(map(plain, names)) for label, names in misfits.items() if names}
            text = "; ".join(f"{label}: {plain(names, 2000)}" for label, names in texts.items())
            raise ValueError(f"{self!r} cannot load this state dict: {text}")
        return misfits

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

    def to(self, xp: ModuleType | None = None, dtype: Any = None) -> Self:
        """A copy on another array module or in another dtype, without gradients or memories."""
        homes = [
            home_of(repr(layer), layer.xp if xp is None else xp, layer.dtype if dtype is None else dtype)
            for _, layer in self.walk()
        ]
        twin: Any = copy.deepcopy(self)
        twin.discard()
        for (_, layer), home in zip(twin.walk(), homes, strict=True):
            layer._adopt(*home)
        return twin

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        """Converts this layer, without those below it, to another array module and dtype."""
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


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def home_of(who: str, xp: Any, dtype: Any) -> tuple[ModuleType, numpy.dtype]:
    """The array module and the dtype of a layer; an error where they are none."""
    if not hasattr(xp, "ndarray"):
        raise TypeError(f"{who} expected xp to be an array module such as numpy, got {shown(xp)}")
    if xp is not numpy:
        check_usable(who, xp)
    try:
        return xp, arrays.float_dtype(xp, dtype)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None
