"""Where the samples of a batch lie in the arrays of a pass, and the first of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Value
from mtorch.insight.observation import Watched
from mtorch.insight.shapes import TIME_MAJOR, batch_axis, shapes_of
from mtorch.layer import Layer


@dataclass(frozen=True)
class Ends:
    """What goes into the net and what comes out at the loss, for the first sample; and the size of the batch."""

    x: tuple[numpy.ndarray, ...]
    y: tuple[numpy.ndarray, ...]
    target: tuple[numpy.ndarray, ...]
    grad: tuple[numpy.ndarray, ...]
    batch: int | None


class BatchAxes:
    """The batch axis of what every call took and returned: axis 0, or in a net of sequences where shapes say."""

    def __init__(self, module: Layer, x: Value):
        shapes = [leaf.shape for leaf in arrays.leaves(x) if leaf.ndim > (leaf.dtype.kind == "f")]  # (D,) has no batch
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
            return _axes(y, large_y) if output else _axes(x, large_x)
        return self.first_axes(value)

    def first_axes(self, value: Value) -> list[int | None]:
        return [0 if leaf.ndim and leaf.shape[0] == self.batch else None for leaf in arrays.leaves(value)]

    def ends(self, x: Value, y: Value, target: Any, grad: Value) -> Ends:
        top = self.seen.get("")
        x_axes, y_axes = self.first_axes(x), self.first_axes(y)
        if top is not None:
            small_x, small_y, large_x, large_y = top.calls[0]
            x_axes, y_axes = _axes(small_x, large_x), _axes(small_y, large_y)
            first, axis = list(arrays.leaves(x))[0], x_axes[0]
            self.batch = None if axis is None else first.shape[axis]
        targets = tuple(numpy.asarray(arrays.as_numpy(leaf)) for leaf in arrays.leaves(target))
        shapes = dict(zip([leaf.shape for leaf in arrays.leaves(y)], y_axes, strict=True))
        target_axes = [shapes.get(t.shape, 0 if t.ndim and t.shape[0] == self.batch else None) for t in targets]
        return Ends(
            first_sample(x, x_axes),
            first_sample(y, y_axes),
            first_sample(targets, target_axes),
            first_sample(grad, y_axes, y),
            self.batch,
        )


def first_sample(value: Value, axes: list[int | None], like: Value = None) -> tuple[numpy.ndarray, ...]:
    """The first sample of every array; a gradient is `like` its value."""
    leaves = gradients_of(value, value if like is None else like)
    pairs = [(on_host(leaf), axis) for leaf, axis in zip(leaves, axes, strict=True) if leaf is not None]
    return tuple(a.copy() if axis is None or not a.shape[axis] else a.take(0, axis) for a, axis in pairs)


def gradients_of(grad: Value, like: Value) -> Iterator[Any]:
    """A gradient for every array of the value that it is like, None where there is none."""
    if isinstance(like, tuple):
        for i, part in enumerate(like):
            yield from gradients_of(grad[i] if isinstance(grad, tuple) and i < len(grad) else None, part)
    elif like is not None:
        yield grad


def _axes(small: Any, large: Any) -> list[int | None]:
    """The batch axis of every array, from its shapes in a small batch and in a large one."""
    return [batch_axis(*pair) for pair in zip(_shapes(small), _shapes(large), strict=True)]


def _shapes(shape: Any) -> list[tuple[int, ...]]:
    """The shapes of a structure of shapes."""
    if shape is None:
        return []
    if any(not isinstance(part, int) for part in shape):
        return [each for part in shape for each in _shapes(part)]
    return [shape]


def on_host(leaf: Any) -> numpy.ndarray:
    """The array in NumPy, floats as float64."""
    array = arrays.as_numpy(leaf)
    return array.astype(numpy.float64) if array.dtype.kind == "f" else array
