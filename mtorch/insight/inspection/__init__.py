"""The microscope: one forward and one backward, and what happened at every layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy

from mtorch import arrays, guards
from mtorch.accelerate import FastMemory
from mtorch.arrays import Value
from mtorch.insight.observation import Call, Observation, Watched
from mtorch.insight.shapes import TIME_MAJOR, batch_axis, shapes_of
from mtorch.layer import Layer
from mtorch.layers import Hardtanh, Sigmoid, Softmax, Tanh
from mtorch.layers.recurrent import RecurrentLayer
from mtorch.losses.base import Loss, LossFunction
from mtorch.losses.sums import placed
from mtorch.parameter import Parameter

NEAR = 0.01  # within this share of the larger bound an entry is saturated


@dataclass(frozen=True)
class Record:
    """What happened at one layer. A layer that is called several times has one record, where it is called first:
    times add, means and shares are over the outputs of all calls, norms over all calls together; shape is the last's.
    """

    name: str  # dotted, as in `parameters()`
    layer: Layer  # of the module itself
    shape: Any  # of the output; a tuple of shapes where that is a tuple
    mean: float  # of the output's entries
    std: float
    dead: float  # the share of the entries of one sample's output that are 0 for every sample
    saturated: float | None  # the share of entries within 1 % of the bounds of Sigmoid, Tanh, Hardtanh or Softmax
    grad_norm: float | None  # of the gradient that reaches the output; None where none does
    weight_norm: float | None  # over the layer's own parameters; None without
    weight_grad_norm: float | None
    forward_seconds: float
    backward_seconds: float
    calls: int = 1
    input_grad_norm: float | None = None  # of the gradient that the layer hands on
    over_time: tuple[float, ...] | None = None  # grad_norm at every step of a sequence, or in every call
    input_over_time: tuple[float, ...] | None = None  # the same for input_grad_norm
    sample: "Sample" = field(default_factory=lambda: Sample(), repr=False)


@dataclass(frozen=True)
class Sample:
    """The numbers of the batch's first sample in the last call of a layer, as host arrays."""

    x: tuple[numpy.ndarray, ...] = ()
    y: tuple[numpy.ndarray, ...] = ()
    grad: tuple[numpy.ndarray, ...] = ()
    input_grad: tuple[numpy.ndarray, ...] = ()
    parameters: tuple[tuple[str, numpy.ndarray, numpy.ndarray], ...] = ()  # name, value, gradient of the whole batch
    memory: tuple[tuple[str, tuple[int, ...], int], ...] = ()  # what is remembered: its name, shape and bytes
    fast: bool = False  # whether a fast body remembers it
    attention: numpy.ndarray | None = None  # (num_heads, L, S)


class Inspection(Sequence[Record]):
    """The records of one forward and backward, in the order of the forward.

    `print(found)` shows them as tables, `found.plot()` as a figure, `found.html(path)` writes a page on which the
    pass is followed step by step. `found[0]` and `found["0"]`, by name, are records; `found.loss` is the loss' value.
    """

    def __init__(self, records: Sequence[Record], title: str, loss: float, loss_name: str, ends: "Ends"):
        self.records = tuple(records)
        self.title, self.loss, self.loss_name, self.ends = title, loss, loss_name, ends

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int | str) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            found = [record for record in self.records if record.name == index]
            if not found:
                raise KeyError(f"no layer {index!r}, only {', '.join(repr(record.name) for record in self.records)}")
            return found[0]
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __str__(self) -> str:
        from mtorch.insight.inspection.table import table

        return table(self)

    def __repr__(self) -> str:
        return f"Inspection({self.title}, {len(self)} layers, loss={self.loss:.4g})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def plot(self) -> Any:
        """A matplotlib figure: outputs, dead and saturated shares, and the norms of the gradients, layer by layer."""
        from mtorch.insight.inspection.plot import figure

        return figure(self)

    def html(self, path: str | Path) -> Path:
        """Writes the page, one file without anything from outside, and returns its path."""
        from mtorch.insight.inspection.page import page

        path = Path(path)
        path.write_text(page(self), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Ends:
    """What goes into the net and what comes out at the loss, for the first sample; and the size of the batch."""

    x: tuple[numpy.ndarray, ...]
    y: tuple[numpy.ndarray, ...]
    target: tuple[numpy.ndarray, ...]
    grad: tuple[numpy.ndarray, ...]
    batch: int | None


def inspect(module: Layer, x: Value, target: Any, loss: Any) -> Inspection:
    """Runs one forward and one backward on a batch and tells what happened at every layer that is no container.

    loss: a loss function, `CrossEntropyLoss()` or `CrossEntropyLoss(module)`, its class, or any function of
        (prediction, target) that returns a `Loss`.

    The pass runs on a copy of the module, in the mode that the module is in. So the module keeps its gradients,
    buffers, memories and random states, also when a layer raises. Backward goes all the way to x, also where training
    would stop at the first layer with parameters. A `DataParallel` runs in this process alone. Layers that the forward
    does not reach have no record.
    """
    if not isinstance(module, Layer):
        raise TypeError(f"inspect expected a module or layer, got {module!r}")
    function = _loss_function(loss)
    observation = Observation(module)
    copy = observation.copy
    y = copy(x)
    if guards.has_operand(y):
        raise TypeError(f"inspect expected arrays, got {x!r}")
    result, grad = _loss_and_grad(function, y, target, module, copy)
    copy.core().backward(grad)
    axes = _BatchAxes(module, copy.cast_input(x))
    with numpy.errstate(all="ignore"):  # the norm of what is infinite is
        records = [_record(watched, axes) for watched in observation]
    return Inspection(
        records,
        type(module).__name__,
        float(numpy.sum(result.value)),
        result._name,
        axes.ends(copy.cast_input(x), y, target, grad),
    )


def _loss_function(loss: Any) -> Any:
    if isinstance(loss, type) and issubclass(loss, LossFunction):
        return loss()
    if not callable(loss) or isinstance(loss, Layer | type):
        raise TypeError(f"inspect expected a loss function such as CrossEntropyLoss(), got {loss!r}")
    return loss


def _loss_and_grad(function: Any, y: Value, target: Any, module: Layer, copy: Layer) -> tuple[Loss, Value]:
    """The loss, and its gradient in the structure of y.

    A loss of several outputs finds them by identity among those of the module's last call, so y stands there meanwhile.
    """
    net, own = copy.core(), vars(module.core())
    names = ("_outputs", "_returned") if isinstance(y, tuple) else ()
    before: dict[str, Any] = {name: own[name] for name in names if name in own}
    own.update((name, getattr(net, name)) for name in names)
    try:
        result = function(y, target)
        if not isinstance(result, Loss):
            raise TypeError(f"inspect expected {function!r} to return a Loss, got {result!r}")
        if result.grad is None:
            raise ValueError(f"inspect: the terms of {result!r} have no common gradient; make each loss of the module")
        return result, placed(result, result.grad, net) if names else result.grad
    finally:
        own.update(before)
        for name in {*names} - {*before}:
            del own[name]


# ---------------------------------------------------------------------- where the samples lie


class _BatchAxes:
    """The batch axis of what every call took and returned: axis 0, or in a net of sequences where shapes say."""

    def __init__(self, module: Layer, x: Value):
        shapes = [leaf.shape for leaf in _leaves(x) if leaf.ndim > (leaf.dtype.kind == "f")]  # (D,) has no batch
        self.batch = shapes[0][0] if shapes else None
        self.seen: dict[str, Any] = {}
        if any(isinstance(layer, TIME_MAJOR) for _, layer in module.walk()):
            try:
                self.seen = {each.name: each for each in shapes_of(module, x)}
            except (ValueError, TypeError, IndexError):
                return  # the net takes no smaller batch than this one: then axis 0 stands for the batch

    def of(self, watched: Watched, number: int, output: bool) -> list[int | None]:
        """The axis of every array of the output (or input) of that call."""
        value = getattr(watched.calls[number], "y" if output else "x")
        seen = self.seen.get(watched.name)
        if seen is not None and number < len(seen.calls):
            x, y, large_x, large_y = seen.calls[number]
            pairs = list(zip(_shapes(y if output else x), _shapes(large_y if output else large_x), strict=True))
            return [batch_axis(small, large) for small, large in pairs]
        return self.first_axes(value)

    def first_axes(self, value: Value) -> list[int | None]:
        return [0 if leaf.ndim and leaf.shape[0] == self.batch else None for leaf in _leaves(value)]

    def ends(self, x: Value, y: Value, target: Any, grad: Value) -> Ends:
        top = self.seen.get("")
        x_axes, y_axes = self.first_axes(x), self.first_axes(y)
        if top is not None:
            small_x, small_y, large_x, large_y = top.calls[0]
            x_axes = [batch_axis(*pair) for pair in zip(_shapes(small_x), _shapes(large_x), strict=True)]
            y_axes = [batch_axis(*pair) for pair in zip(_shapes(small_y), _shapes(large_y), strict=True)]
            first, axis = list(_leaves(x))[0], x_axes[0]
            self.batch = None if axis is None else first.shape[axis]
        targets = tuple(numpy.asarray(arrays.as_numpy(leaf)) for leaf in _leaves(target))
        shapes = dict(zip([leaf.shape for leaf in _leaves(y)], y_axes, strict=True))
        target_axes = [shapes.get(t.shape, 0 if t.ndim and t.shape[0] == self.batch else None) for t in targets]
        return Ends(
            _sample(x, x_axes), _sample(y, y_axes), _sample(targets, target_axes), _sample(grad, y_axes, y), self.batch
        )


# ---------------------------------------------------------------------- the record of a layer


def _record(watched: Watched, axes: _BatchAxes) -> Record:
    layer, calls = watched.layer, watched.calls
    outputs = [[_host(leaf) for leaf in _leaves(call.y)] for call in calls]
    entries = numpy.concatenate([leaf.reshape(-1) for leaves in outputs for leaf in leaves] or [numpy.zeros(0)])
    parameters = list(watched.twin.own(Parameter))
    weights = [_host(p.value) for _, p in parameters]
    grads = [_host(p.grad) for _, p in parameters]
    y_axes = [axes.of(watched, i, True) for i in range(len(calls))]
    dead = [_dead(*pair) for leaves, a in zip(outputs, y_axes, strict=True) for pair in zip(leaves, a, strict=True)]
    last, x_axes = calls[-1], axes.of(watched, len(calls) - 1, False)
    return Record(
        name=watched.name,
        layer=layer,
        shape=arrays.shape_value(last.y),
        mean=_mean(entries),
        std=float(entries.std()) if entries.size else float("nan"),
        dead=_mean(numpy.concatenate([each.reshape(-1) for each in dead] or [numpy.zeros(0)])),
        saturated=_saturated(layer, entries),
        grad_norm=_norm_of([call.grad for call in calls]),
        weight_norm=_norm(weights) if weights else None,
        weight_grad_norm=_norm(grads) if weights else None,
        forward_seconds=sum(call.forward_seconds for call in calls),
        backward_seconds=sum(call.backward_seconds for call in calls),
        calls=len(calls),
        input_grad_norm=_norm_of([call.input_grad for call in calls]),
        over_time=_over_time(layer, calls, "grad", "y", y_axes[-1]),
        input_over_time=_over_time(layer, calls, "input_grad", "x", x_axes),
        sample=Sample(
            x=_sample(last.x, x_axes),
            y=_sample(last.y, y_axes[-1]),
            grad=_sample(last.grad, y_axes[-1], last.y),
            input_grad=_sample(last.input_grad, x_axes, last.x),
            parameters=tuple((n, w, g) for (n, _), w, g in zip(parameters, weights, grads, strict=True)),
            memory=_memory(watched, last),
            fast=isinstance(last.memory, FastMemory),
            attention=None if last.attention is None else _host(last.attention[0]),
        ),
    )


def _dead(y: numpy.ndarray, axis: int | None) -> numpy.ndarray:
    """For every entry of one sample, whether it is 0 for all samples."""
    return y == 0 if axis is None else (y == 0).all(axis=axis)


def _saturated(layer: Layer, entries: numpy.ndarray) -> float | None:
    """The share of entries within 1 % of a bound (of the larger one, as 0 has no percent)."""
    bounds = (0.0, 1.0) if isinstance(layer, Sigmoid | Softmax) else (-1.0, 1.0) if isinstance(layer, Tanh) else None
    if isinstance(layer, Hardtanh):
        bounds = layer.min_val, layer.max_val
    if bounds is None:
        return None
    margin = NEAR * max(map(abs, bounds))
    return _mean((entries <= bounds[0] + margin) | (entries >= bounds[1] - margin))


def _over_time(layer: Layer, calls: list[Call], name: str, of: str, axes: list[int | None]) -> tuple[float, ...] | None:
    """The norm of that gradient in every call, or where there is one call, at every step of a sequence."""
    grads = [getattr(call, name) for call in calls]
    if len(grads) > 1:
        return tuple(_norm([_host(leaf) for leaf in _leaves(grad)]) for grad in grads)
    time = 1 if isinstance(layer, RecurrentLayer) and layer.batch_first else 0
    leaves = list(zip(_grad_leaves(grads[0], getattr(calls[0], of)), axes, strict=True))
    found = [leaf for leaf, axis in leaves if leaf is not None and axis == 1 - time and (time == 0 or leaf.ndim > 2)]
    if not found or not (time == 0 or isinstance(layer, RecurrentLayer)):
        return None
    return tuple(_norm([step]) for step in numpy.moveaxis(_host(found[-1]), time, 0))


def _memory(watched: Watched, call: Call) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """(name, shape, bytes) of every array that the layer remembered."""
    known = [(name, leaf) for name in ("x", "y") for leaf in _leaves(getattr(call, name))]
    known += [(name, parameter.value) for name, parameter in watched.twin.own(Parameter)]
    found: dict[int, tuple[str, tuple[int, ...], int]] = {}
    stack: list[Any] = [call.memory]
    while stack:
        item = stack.pop(0)
        if isinstance(item, FastMemory):
            stack.insert(0, item.values)
        elif isinstance(item, tuple | list):
            stack[:0] = item
        elif hasattr(item, "shape") and hasattr(item, "nbytes") and item.ndim:
            name = next((name for name, leaf in known if _same_data(item, leaf)), "")
            found[id(item)] = name, tuple(item.shape), int(item.nbytes)
    return tuple(found.values())


def _same_data(a: Any, b: Any) -> bool:
    """Whether a is b, or a view of all of it."""
    if a is b:
        return True
    same = isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray) and a.size == b.size and a.dtype == b.dtype
    return same and a.__array_interface__["data"] == b.__array_interface__["data"]


# ---------------------------------------------------------------------- values


def _leaves(value: Any) -> Iterator[Any]:
    """The arrays of a value; those that are missing are None only within a gradient."""
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _grad_leaves(grad: Value, like: Value) -> Iterator[Any]:
    """A gradient for every array of the value that it is like, None where there is none."""
    if isinstance(like, tuple):
        for i, part in enumerate(like):
            yield from _grad_leaves(grad[i] if isinstance(grad, tuple) and i < len(grad) else None, part)
    elif like is not None:
        yield grad


def _shapes(shape: Any) -> list[tuple[int, ...]]:
    """The shapes of a structure of shapes."""
    if shape is None:
        return []
    if any(not isinstance(part, int) for part in shape):
        return [each for part in shape for each in _shapes(part)]
    return [shape]


def _host(leaf: Any) -> numpy.ndarray:
    array = arrays.as_numpy(leaf)
    return array.astype(numpy.float64) if array.dtype.kind == "f" else array


def _sample(value: Value, axes: list[int | None], like: Value = None) -> tuple[numpy.ndarray, ...]:
    """The first sample of every array; a gradient is `like` its value."""
    leaves = _grad_leaves(value, value if like is None else like)
    pairs = [(_host(leaf), axis) for leaf, axis in zip(leaves, axes, strict=True) if leaf is not None]
    return tuple(a.copy() if axis is None or not a.shape[axis] else a.take(0, axis) for a, axis in pairs)


def _mean(entries: numpy.ndarray) -> float:
    return float(entries.mean()) if entries.size else float("nan")


def _norm(parts: list[numpy.ndarray]) -> float:
    """The Euclidean norm of all entries; of the largest a factor is taken out, so that no square overflows."""
    most = max((float(numpy.abs(part).max()) for part in parts if part.size), default=0.0)
    if not 0 < most < float("inf"):
        return most
    return most * float(numpy.sqrt(sum(float(numpy.square(part / most).sum()) for part in parts)))


def _norm_of(grads: list[Value]) -> float | None:
    leaves = [_host(leaf) for grad in grads for leaf in _leaves(grad)]
    return _norm(leaves) if leaves else None
