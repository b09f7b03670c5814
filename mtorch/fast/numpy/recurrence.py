"""What the fast bodies of RNN, GRU and LSTM share: sequences divided among threads, and rows (h, 1, x) side by side.

Each of them is a pair of functions for one layer and one direction, in the forms of `layers.recurrent`:

    over_time(x, state, weights, padding, reverse) -> y, last state, memory
    back_over_time(memory, weights, y_grad, state_grad, input_grad, wanted) -> gradients of x, of state and weights

They compute what the references do with few calls, in place, with every operand of a step contiguous. All arrays stay
in the order of time when the recurrence runs backwards: the states before and after each step are two views of one
buffer of T + 1 states.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import BLOCK, Array, Value
from mtorch.fast import threads
from mtorch.fast.product import product
from mtorch.fast.unpacked import UNPACKED, has_small_kernels
from mtorch.layers.recurrent import RecurrentLayer, State, Wanted, Weights, rows

WIDE = 256  # hidden entries from which on a step is so long that several threads can share the sequences
SHARE = 16  # sequences of a thread, at least
SMALL = 1 << 14  # entries of a matrix up to which the call of a product costs more than how its rows lie


def replace_layer(kind: type[RecurrentLayer], over_time: Callable, back_over_time: Callable) -> None:
    """Registers the two functions for a layer; `over_time` is a function of the layer that returns the first."""

    def forward(layer: RecurrentLayer, x: Value) -> tuple[Value, Any]:
        return layer.through_layers(x, partial(_in_shares, over_time(layer)))

    def backward(layer: RecurrentLayer, memory: Any, output_grad: Value) -> Value:
        return layer.back_through_layers(memory, output_grad, partial(_back_in_shares, back_over_time), True)

    def backward_parameters(layer: RecurrentLayer, memory: Any, output_grad: Value) -> None:
        layer.back_through_layers(memory, output_grad, partial(_back_in_shares, back_over_time), False)

    replace(
        kind,
        numpy,
        forward=forward,
        backward=backward,
        backward_parameters=backward_parameters,
        multithreaded=lambda layer: True,
    )


def _in_shares(
    over_time: Callable,
    xp: ModuleType,
    x: Array,
    state: State,
    weights: Weights,
    padding: Array | None,
    reverse: bool,
) -> tuple[Array, State, Any]:
    """`over_time`; where its steps are long, each thread takes some of the sequences through all of them."""
    (steps, batch, _), hidden = x.shape, weights[1].shape[1]
    shares = batch // SHARE
    if hidden < WIDE or shares < 2 or threads.count() < 2:
        y, last, kept = over_time(x, state, weights, padding, reverse)
        return y, last, [(slice(None), kept)]
    y = numpy.empty((steps, batch, hidden), x.dtype)

    def part(numbers: range) -> tuple[Any, ...]:
        share = slice(batch * numbers.start // shares, batch * numbers.stop // shares)
        first, pads = tuple(each[share] for each in state), None if padding is None else padding[:, share]
        y[:, share], last, kept = over_time(x[:, share], first, weights, pads, reverse)
        return last, (share, kept)

    lasts, kept = zip(*threads.in_threads(part, shares, _operations(steps * batch, weights)), strict=True)
    return y, tuple(map(numpy.concatenate, zip(*lasts, strict=True))), list(kept)


def _back_in_shares(
    back_over_time: Callable,
    xp: ModuleType,
    kept: list[tuple[slice, Any]],
    weights: Weights,
    y_grad: Array,
    state_grad: State,
    input_grad: bool,
    wanted: Wanted,
) -> tuple[Array | None, State, tuple]:
    """`back_over_time` for the shares that forward made."""
    if len(kept) == 1:
        return back_over_time(kept[0][1], weights, y_grad, state_grad, input_grad, wanted)
    size = *y_grad.shape[:2], weights[0].shape[1]
    dx = numpy.empty(size, y_grad.dtype) if input_grad else None

    def part(numbers: range) -> list[tuple[State, tuple]]:
        found = []
        for share, own in kept[numbers.start : numbers.stop]:
            last = tuple(each[share] for each in state_grad)
            d, first, grads = back_over_time(own, weights, y_grad[:, share], last, input_grad, wanted)
            if dx is not None:
                dx[:, share] = d
            found.append((first, grads))
        return found

    parts = threads.in_threads(part, len(kept), _operations(size[0] * size[1], weights))
    firsts, grads = zip(*itertools.chain(*parts), strict=True)
    total = tuple(None if each[0] is None else reduce(numpy.add, each) for each in zip(*grads, strict=True))
    return dx, tuple(map(numpy.concatenate, zip(*firsts, strict=True))), total


def _operations(rows: int, weights: Weights) -> int:
    """Multiplications for that many states."""
    return rows * (weights[0].size + weights[1].size)


def pads_by_step(padding: Array | None, steps: int) -> list[Array | None]:
    """For every step the padded sequences as (N, 1), or None where all go on."""
    if padding is None:
        return [None] * steps
    return [pad if some else None for pad, some in zip(padding, padding.any(axis=(1, 2)).tolist(), strict=True)]


def in_order(steps: Iterable, reverse: bool) -> list:
    """The steps in the order in which the recurrence runs."""
    return list(steps)[::-1] if reverse else list(steps)


def state_buffer(x: Array, first: Array, reverse: bool) -> tuple[Array, Array]:
    """The states before and after each step, two views of one buffer of T + 1 states; the first state is filled in."""
    states = numpy.empty((len(x) + 1, *first.shape), x.dtype)
    states[-1 if reverse else 0] = first
    return before_and_after(states, reverse)


def before_and_after(states: Array, reverse: bool) -> tuple[Array, Array]:
    """Of T + 1 states those before and those after each step."""
    return (states[1:], states[:-1]) if reverse else (states[:-1], states[1:])


def blocks_backward(steps: int, size: int, reverse: bool) -> Iterator[tuple[int, int]]:
    """Ranges (low, high) of steps against the order of the recurrence, so short that their entries stay in cache."""
    length = max(1, BLOCK // max(1, size))
    for done in range(0, steps, length):
        todo = min(steps, done + length)
        yield (done, todo) if reverse else (steps - todo, steps - done)


def project(x: Array, weight: Array, bias: Array | None) -> Array:
    """weight x + bias of all steps in one product, (T, N, D) -> (T, N, G): the bias is one more column of it."""
    steps, batch, _ = x.shape
    flat = rows(x)
    if bias is not None:
        flat = numpy.concatenate((flat, numpy.ones((steps * batch, 1), x.dtype)), axis=1)
        weight = numpy.concatenate((weight, bias[:, None]), axis=1)
    out = numpy.empty((steps, batch, len(weight)), x.dtype)
    product(flat, weight.T, rows(out))
    return out


def without_padding(padding: Array | None, a: Array) -> Array:
    """`a` with zeros at padded steps."""
    return a if padding is None else numpy.where(padding, 0, a)


# ---------------------------------------------------------------------- h, 1 and x side by side


def joined(x: Array, first: Array, bias: bool, reverse: bool) -> tuple[Array, Array]:
    """The rows (h_t, 1, x_t) before every step, without the 1 where there is no bias; and views of the h after it."""
    (steps, batch, size), hidden = x.shape, first.shape[1]
    states = numpy.empty((steps + 1, batch, hidden + bias + size), x.dtype)
    before, after = before_and_after(states, reverse)
    states[-1 if reverse else 0, :, :hidden] = first
    before[:, :, hidden : hidden + bias] = 1
    before[:, :, hidden + bias :] = x
    return before, after[:, :, :hidden]


def joined_weights(*parts: Array | None) -> Array:
    """Weights (G, D) and biases (G,) beside each other, as such rows are."""
    columns = [part.reshape(len(part), -1) for part in parts if part is not None]
    together = numpy.empty((len(columns[0]), sum(part.shape[1] for part in columns)), columns[0].dtype)
    return numpy.concatenate(columns, axis=1, out=together)


def joined_grads(
    into_x: Array, into_h: Array, before: Array, hidden: int, bias: bool, wanted: Wanted
) -> tuple[Array | None, ...]:
    """What `weight_grads` gives, from the joined rows: in one product where into_x is into_h."""
    w_ih, w_hh, b_ih, b_hh = wanted

    before = rows(before)
    if into_x is into_h and w_ih and w_hh:
        dw = product(into_h.T, before)
        dw_h, dw_x = dw[:, : hidden + bias], dw[:, hidden:]
    else:
        of_h, of_x = slice(0 if w_hh else hidden, hidden + bias), slice(hidden, None if w_ih else hidden + bias)
        dw_h = product(into_h.T, before[:, of_h]) if w_hh or b_hh else None
        dw_x = product(into_x.T, before[:, of_x]) if w_ih or b_ih else None
    return (
        dw_x[:, bias:] if w_ih else None,
        dw_h[:, :hidden] if w_hh else None,
        dw_x[:, 0] if b_ih else None,
        dw_h[:, -1] if b_hh else None,
    )


def right_factor(matrix: Array, rows: int, gaps: bool = False) -> tuple[Array, Callable[..., Any]]:
    """A copy of the matrix, and the function that multiplies the rows of every step with it: f(rows, copy, out).

    In a large matrix the rows must not begin a power of two apart, where a product finds them in the same few cache
    lines. For small matrices dot is called faster; but what lies with gaps, as the rows of a step may, it copies.
    """
    size, columns = matrix.shape
    if matrix.size > SMALL and rows * matrix.size > UNPACKED and has_small_kernels():
        for width in (64, 32, 16):
            if rows * size * width <= UNPACKED and columns % width == 0:
                return _in_blocks(matrix, rows, width)
    gap = 16 if matrix.size > SMALL else 0
    copy = numpy.empty((size, columns + gap), matrix.dtype)[:, :columns]
    copy[...] = matrix
    return copy, numpy.matmul if gap or gaps else numpy.ndarray.dot


def _in_blocks(matrix: Array, rows: int, width: int) -> tuple[Array, Callable[..., Any]]:
    """The same with the (K, G) matrix cut into (G / width, K, width), for products so small that BLAS packs nothing.

    Else one thread of it packs the whole matrix at every step, which with few rows takes long. Measured on steps of
    T = N = D = 64, H = 256 in one thread: 5 % of an LSTM and an RNN, 4 % of a GRU. With 16 columns the (1024, 256)
    weights of an LSTM's backward are cut too: one product for 32 rows takes 0.156 ms in place of 0.195 ms.
    """
    size, columns = matrix.shape
    copy = numpy.empty((columns // width, size, width), matrix.dtype)
    copy[...] = matrix.reshape(size, columns // width, width).swapaxes(0, 1)

    def product(a: Array, copy: Array, out: Array) -> None:
        numpy.matmul(a, copy, out.reshape(rows, columns // width, width).swapaxes(0, 1))

    return copy, product
