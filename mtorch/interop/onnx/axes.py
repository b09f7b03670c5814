"""Which axes of a net's inputs may have any size, found by writing the net for examples of other sizes."""

from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import numpy

from mtorch.arrays import leaves
from mtorch.interop.onnx.written import Written, refilled
from mtorch.layer import Layer

MOST_TRIALS = 128  # of groups of axes that may be free together
MOST_OF_A_SIZE = 256

Axes = tuple[int | None, ...]  # for each input the axis that changes, None for none


def free_axes(net: Layer, x: Any, written: Written) -> list[tuple[str, Axes, list[Any]]]:
    """(name, axes, the output shapes with another size) of each group of input axes that may have any size.

    An axis is free where the net, written for an example of another size there, is the same graph.
    """
    inputs = list(leaves(x))
    found: list[tuple[str, Axes, list[Any]]] = []
    used: set[tuple[int, int]] = set()
    for axes in islice(dict.fromkeys(_groups([leaf.shape for leaf in inputs])), MOST_TRIALS):
        here = {(i, axis) for i, axis in enumerate(axes) if axis is not None}
        if here & used:
            continue
        resized = _resized(net, x, axes, written)
        if resized is not None:
            used |= here
            is_batch = all(name != "batch" for name, _, _ in found) and _is_batch(net, x, axes, written, resized)
            first, axis = next((i, axis) for i, axis in enumerate(axes) if axis is not None)
            name = "batch" if is_batch else f"{written.inputs[first].name}_{axis}"
            found.append((name, axes, [symbol.shape for symbol in resized.outputs]))
    return found


def _groups(shapes: list[tuple[int, ...]]) -> Iterator[Axes]:
    """Axes that may be free together: one alone; those of one size, of all inputs that have it; with them multiples of
    it, as the rows of a mask for each head are; and those of some inputs only.
    """
    for i, shape in enumerate(shapes):
        for axis, n in enumerate(shape):
            if n:
                yield tuple(axis if k == i else None for k in range(len(shapes)))
    sizes = sorted({n for shape in shapes for n in shape if n})
    for several, partly in ((False, False), (True, False), (False, True)):
        for size in sizes:
            choices: list[list[int | None]] = []
            for shape in shapes:
                fitting: list[int | None] = [axis for axis, n in enumerate(shape) if n == size]
                if several and not fitting:
                    fitting = [axis for axis, n in enumerate(shape) if n and n % size == 0]
                choices.append(fitting + [None] if partly or not fitting else fitting)
            groups = islice(product(*choices), MOST_OF_A_SIZE)
            yield from sorted(
                (axes for axes in groups if sum(axis is not None for axis in axes) > 1),
                key=lambda axes: len({axis for axis in axes if axis is not None}),
            )


def _resized(net: Layer, x: Any, axes: Axes, written: Written) -> Written | None:
    """The net written for twice the size there, else for half of it; None where that is another graph.

    One entry is none to try with: it would be stretched where shapes broadcast.
    """
    inputs = list(leaves(x))
    for factor in (2.0, 0.5):
        parts = []
        for leaf, axis in zip(inputs, axes, strict=True):
            n = 0 if axis is None else leaf.shape[axis]
            if axis is not None and (factor == 2 or n >= 4):
                leaf = leaf.take(numpy.arange(int(n * factor)) % n, axis=axis)
            parts.append(leaf)
        if all(a is b for a, b in zip(parts, inputs, strict=True)):
            return None
        try:
            other = Written(net, net.cast_input(refilled(x, iter(parts))))
        except Exception:  # the net takes no such input
            continue
        return other if other.same_graph(written) else None
    return None


def _is_batch(net: Layer, x: Any, axes: Axes, written: Written, resized: Written) -> bool:
    """Whether samples lie along these axes, which do not see each other.

    Then with sample 1 in the place of sample 0 the outputs for all others are the same. A lone sample is repeated.
    """
    inputs = list(leaves(x))
    count = min(leaf.shape[axis] for leaf, axis in zip(inputs, axes, strict=True) if axis is not None)
    parts = inputs
    if count > 1:
        pairs = zip(inputs, axes, strict=True)
        parts = [leaf if axis is None else _second_first(leaf, axis, count) for leaf, axis in pairs]
    other = Written(net, refilled(x, iter(parts))) if count > 1 else resized
    for one, two, longer in zip(written.outputs, other.outputs, resized.outputs, strict=True):
        changed = [i for i, (n, m) in enumerate(zip(one.shape, longer.shape, strict=False)) if n != m]
        if one.rank != longer.rank or len(changed) != 1 or one.shape[changed[0]] % count:
            return False
        if count > 1:
            wanted = _second_first(one.example, changed[0], count)
        else:
            wanted = numpy.concatenate([one.example, one.example], axis=changed[0])
        if wanted.shape != two.shape or not numpy.allclose(two.example, wanted, rtol=1e-4, atol=1e-5, equal_nan=True):
            return False
    return True


def _second_first(array: Any, axis: int, count: int) -> Any:
    """The array with sample 1 in the place of sample 0, of `count` samples along the axis."""
    block = array.shape[axis] // count
    places = numpy.arange(array.shape[axis])
    places[:block] += block
    return array.take(places, axis=axis)
