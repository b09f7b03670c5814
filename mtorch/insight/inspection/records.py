"""What happened at one layer in a forward and its backward, as numbers."""

from dataclasses import dataclass, field
from typing import Any

import numpy

from mtorch import arrays
from mtorch.accelerate import FastMemory
from mtorch.arrays import Value
from mtorch.insight.inspection.batch import BatchAxes, first_sample, gradients_of, on_host
from mtorch.insight.observation import Call, Watched
from mtorch.layer import Layer
from mtorch.layers import Hardtanh, Sigmoid, Softmax, Tanh
from mtorch.layers.recurrent import RecurrentLayer
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


def record_of(watched: Watched, axes: BatchAxes) -> Record:
    layer, calls = watched.layer, watched.calls
    outputs = [[on_host(leaf) for leaf in arrays.leaves(call.y)] for call in calls]
    entries = numpy.concatenate([leaf.reshape(-1) for leaves in outputs for leaf in leaves] or [numpy.zeros(0)])
    parameters = list(watched.copied.own(Parameter))
    weights = [on_host(p.value) for _, p in parameters]
    grads = [on_host(p.grad) for _, p in parameters]
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
            x=first_sample(last.x, x_axes),
            y=first_sample(last.y, y_axes[-1]),
            grad=first_sample(last.grad, y_axes[-1], last.y),
            input_grad=first_sample(last.input_grad, x_axes, last.x),
            parameters=tuple((n, w, g) for (n, _), w, g in zip(parameters, weights, grads, strict=True)),
            memory=_memory(watched, last),
            fast=isinstance(last.memory, FastMemory),
            attention=None if last.attention is None else on_host(last.attention[0]),
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
        return tuple(_norm([on_host(leaf) for leaf in arrays.leaves(grad)]) for grad in grads)
    time = 1 if isinstance(layer, RecurrentLayer) and layer.batch_first else 0
    leaves = list(zip(gradients_of(grads[0], getattr(calls[0], of)), axes, strict=True))
    found = [leaf for leaf, axis in leaves if leaf is not None and axis == 1 - time and (time == 0 or leaf.ndim > 2)]
    if not found or not (time == 0 or isinstance(layer, RecurrentLayer)):
        return None
    return tuple(_norm([step]) for step in numpy.moveaxis(on_host(found[-1]), time, 0))


def _memory(watched: Watched, call: Call) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """(name, shape, bytes) of every array that the layer remembered."""
    known = [(name, leaf) for name in ("x", "y") for leaf in arrays.leaves(getattr(call, name))]
    known += [(name, parameter.value) for name, parameter in watched.copied.own(Parameter)]
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


def _mean(entries: numpy.ndarray) -> float:
    return float(entries.mean()) if entries.size else float("nan")


def _norm(parts: list[numpy.ndarray]) -> float:
    """The Euclidean norm of all entries; of the largest a factor is taken out, so that no square overflows."""
    most = max((float(numpy.abs(part).max()) for part in parts if part.size), default=0.0)
    if not 0 < most < float("inf"):
        return most
    return most * float(numpy.sqrt(sum(float(numpy.square(part / most).sum()) for part in parts)))


def _norm_of(grads: list[Value]) -> float | None:
    leaves = [on_host(leaf) for grad in grads for leaf in arrays.leaves(grad)]
    return _norm(leaves) if leaves else None
