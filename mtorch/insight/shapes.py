"""Which shapes the layers of a net see, with the size of the batch left open: two batches of different size tell."""

from collections.abc import Iterator
from itertools import islice, product
from typing import Any, NamedTuple

import numpy

from mtorch.arrays import Value, shape_value
from mtorch.bidirectional import Bidirectional
from mtorch.insight.observation import Observation
from mtorch.layer import Layer
from mtorch.layers import MultiHeadAttention, PositionalEmbedding
from mtorch.layers.recurrent import RecurrentLayer
from mtorch.unroll import Recurrent

SMALL, LARGE = 2, 3  # samples in the two batches
TIME_MAJOR = (RecurrentLayer, Recurrent, Bidirectional, MultiHeadAttention, PositionalEmbedding)
TRIES = 16  # combinations of batch axes that are tried for a net of several inputs


class Seen(NamedTuple):
    """The calls of one layer, each with the shapes of x and y for the small batch and for the large one."""

    name: str  # dotted
    layer: Layer
    calls: list[tuple[Any, Any, Any, Any]]  # x and y, x and y

    @property
    def output(self) -> str:
        """The shape of the last call's output, with N in place of the size of the batch."""
        _, small, _, large = self.calls[-1]
        return open_shape(small, large)


def shapes_of(module: Layer, sample: Any, containers: bool = True) -> list[Seen]:
    """What every layer sees in a prediction, in the order of the forward.

    sample: the shape of one sample, without the batch axis, or a tuple of shapes; or an example with the batch axis.

    The batch axis of an input is 0; in a net with layers of sequences (T, N, D) it is the one with which these layers
    find the batch on axis 1.
    """
    sample = (int(sample),) if isinstance(sample, int | numpy.integer) else sample
    inputs = module.cast_input(sample) if _is_data(sample) else None
    given = sample if inputs is None else inputs
    sequences = any(isinstance(layer, TIME_MAJOR) for _, layer in module.walk())
    leaves = list(_leaves(given))
    if any(isinstance(leaf, tuple) and any(size < 0 for size in leaf) for leaf in leaves):
        raise ValueError(f"{module!r} expected the shape of one sample without the batch axis, got {sample!r}")
    choices = [_axes(_rank(leaf, inputs is None), sequences, len(leaves) > 1) for leaf in leaves]
    first = tuple(each[0] for each in choices)
    zeros = tuple(0 if 0 in each else None for each in choices)
    failed: Exception | None = None
    for axes in dict.fromkeys([first, zeros, *islice(product(*choices), TRIES)]):
        try:
            small, large = (_pass(module, given, axes, n, containers) for n in (SMALL, LARGE))
        except (ValueError, TypeError, IndexError) as error:
            error.add_note(f"with {SMALL} samples along axis {', '.join(map(str, axes))} of what was given as a sample")
            failed = failed or error
            continue
        seen = [
            Seen(a.name, a.layer, [(one.x, one.y, two.x, two.y) for one, two in zip(a.calls, b.calls, strict=True)])
            for a, b in zip(small, large, strict=True)
        ]
        if all(map(_finds_the_batch, seen)):
            return seen
    if failed is None:
        raise ValueError(f"{module!r}: no axis of {sample!r} is found to be that of the batch by all of its layers")
    raise failed


def open_shape(small: Any, large: Any) -> str:
    """The shape (or the shapes, of a tuple) of two batches as text: (N, 4), (5, N, 3)."""
    if small is None:
        return "None"
    if _is_structure(small):
        return f"({', '.join(open_shape(a, b) for a, b in zip(small, large, strict=True))})"
    sizes = [_open_size(a, b) for a, b in zip(small, large, strict=True)]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def batch_axis(small: tuple[int, ...], large: tuple[int, ...]) -> int | None:
    """The axis that has as many entries as the batch has samples; None where no axis has."""
    return next((i for i, (a, b) in enumerate(zip(small, large, strict=True)) if (a, b) == (SMALL, LARGE)), None)


def _open_size(small: int, large: int) -> str:
    """A size that is a N + b with the N of the batch."""
    a = (large - small) // (LARGE - SMALL)
    b = small - a * SMALL
    return str(small) if a == 0 else f"{a if a > 1 else ''}N{f' + {b}' if b else ''}"


def _pass(module: Layer, given: Any, axes: tuple[int | None, ...], n: int, containers: bool) -> list[Any]:
    """The watched layers of a prediction for n samples; of the calls only the shapes are kept."""
    observation = Observation(module, containers)
    copy, remaining = observation.copy, iter(axes)
    net = copy.core()
    with numpy.errstate(all="ignore"):
        copy.predict(_batch(net, given, net.takes, n, remaining))
    for watched in observation:
        for call in watched.calls:
            call.x, call.y, call.attention = shape_value(call.x), shape_value(call.y), None
    return observation.watched


def _batch(net: Layer, given: Any, takes: Any, n: int, axes: Iterator[int | None]) -> Value:
    """n samples of that shape, or taken from that example, along the axes."""
    if _is_structure(given):
        kinds = takes if isinstance(takes, tuple) else (takes,) * len(given)
        kinds += ("floats",) * (len(given) - len(kinds))
        return tuple(_batch(net, part, kind, n, axes) for part, kind in zip(given, kinds, strict=False))
    if given is None:
        return None
    axis = next(axes)
    if axis is None:
        return given if hasattr(given, "dtype") else _filled(net, given, takes)
    if hasattr(given, "dtype"):
        return net.xp.asarray(given).take(net.xp.asarray(numpy.arange(n) % max(1, given.shape[axis])), axis=axis)
    return _filled(net, (*given[:axis], n, *given[axis:]), takes, lengths=not given)


def _filled(net: Layer, shape: tuple[int, ...], takes: Any, lengths: bool = False) -> Value:
    """An array of that shape: an id that every table has, a length that every sequence has, or the number 1."""
    if takes == "ids":
        return net.xp.ones(shape, "int64") if lengths else net.xp.zeros(shape, "int64")
    return net.xp.ones(shape, net.dtype)


def _finds_the_batch(seen: Seen) -> bool:
    layer = seen.layer
    if not isinstance(layer, TIME_MAJOR):
        return True
    axis = int(not getattr(layer, "batch_first", False))
    last = int(not isinstance(layer, MultiHeadAttention))  # of (state, x) and of (query, key, value)
    for x, _, large, _ in seen.calls:
        if _is_structure(x):
            x, large = x[last], large[last]
        if len(x) <= axis or (x[axis], large[axis]) != (SMALL, LARGE):
            return False
    return True


def _is_structure(given: Any) -> bool:
    """Whether it is a tuple of shapes or arrays, and not one shape."""
    return isinstance(given, tuple) and any(part is None or not isinstance(part, int | numpy.integer) for part in given)


def _is_data(given: Any) -> bool:
    """Whether it is an example, and no shape."""
    if _is_structure(given):
        return any(_is_data(part) for part in given)
    return not isinstance(given, tuple) and given is not None


def _leaves(given: Any) -> Iterator[Any]:
    if _is_structure(given):
        for part in given:
            yield from _leaves(part)
    elif given is not None:
        yield given


def _axes(rank: int, sequences: bool, several: bool) -> tuple[int | None, ...]:
    """Where the batch axis of an input may be, the likeliest first; None for one of several that has none."""
    if not rank:
        return (None,)
    return (1, 0)[not (sequences and rank > 1) :] + (None,) * several


def _rank(leaf: Any, is_shape: bool) -> int:
    """The number of axes with that of the batch."""
    return len(leaf) + 1 if is_shape else leaf.ndim
