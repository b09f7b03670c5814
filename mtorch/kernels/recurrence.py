"""What the recurrent kernels share: products over all time steps, and the steps that a short sequence does not have.

Each cell (`rnn`, `gru`, `lstm`) is a pair of pure functions for one layer and one direction:

    forward(xp, x, state, weights, padding, reverse) -> y, last state, memory
    backward(xp, memory, weights, y_grad, state_grad, input_grad) -> gradients of x (or None), state, weights

x is (T, N, D), y is (T, N, H); a state is a tuple of (N, H), None standing for zeros; the weights are torch's
(w_ih, w_hh, b_ih, b_hh), the biases None where there are none. The generic bodies are the equations; the NumPy bodies
compute the same with few calls, in place, with every operand of a step contiguous. All arrays stay in the order of
time when the recurrence runs backwards: the states before and after step t stand in one buffer of T + 1.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import BLOCK, Array, is_numpy
from mtorch.kernels import memory, threads

WIDE = 256  # hidden entries from which on a step is so long that several threads can make one each
SHARE = 16  # sequences of a thread, at least
SMALL = 1 << 14  # entries of a matrix up to which the call of a product costs more than how its rows lie

State = tuple[Array | None, ...]
Weights = tuple[Array, Array, Array | None, Array | None]


def forward(
    kernel: ModuleType,
    xp: ModuleType,
    x: Array,
    state: State,
    weights: Weights,
    padding: Array | None,
    reverse: bool,
    *options: Any,
) -> tuple[Array, State, Any]:
    """`kernel.forward`; where its steps are long, each thread takes some of the sequences through all of them."""
    (steps, batch, _), hidden = x.shape, weights[1].shape[1]
    shares = batch // SHARE
    if hidden < WIDE or shares < 2 or not is_numpy(xp) or not threads.several():
        return kernel.forward(xp, x, state, weights, padding, reverse, *options)
    y = memory.empty((steps, batch, hidden), x.dtype)

    def part(numbers: range) -> tuple[Any, ...]:
        rows = slice(batch * numbers.start // shares, batch * numbers.stop // shares)
        first = tuple(None if each is None else each[rows] for each in state)
        pads = None if padding is None else padding[:, rows]
        y[:, rows], last, kept = kernel.forward(xp, x[:, rows], first, weights, pads, reverse, *options)
        return last, (rows, kept)

    lasts, kept = zip(*threads.in_parts(part, shares, _operations(steps * batch, weights)), strict=True)
    return y, tuple(map(numpy.concatenate, zip(*lasts, strict=True))), list(kept)


def backward(
    kernel: ModuleType, xp: ModuleType, kept: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool
) -> tuple[Array | None, State, list[Weights]]:
    """`kernel.backward`, with the gradients of the weights from each part; a list was kept where there were several."""
    if not isinstance(kept, list):
        dx, state, grads = kernel.backward(xp, kept, weights, y_grad, state_grad, input_grad)
        return dx, state, [grads]
    size = *y_grad.shape[:2], weights[0].shape[1]
    dx = memory.empty(size, y_grad.dtype) if input_grad else None

    def part(numbers: range) -> list[tuple[State, Weights]]:
        found = []
        for rows, own in kept[numbers.start : numbers.stop]:
            last = tuple(None if each is None else each[rows] for each in state_grad)
            d, first, grads = kernel.backward(xp, own, weights, y_grad[:, rows], last, input_grad)
            if input_grad:
                dx[:, rows] = d
            found.append((first, grads))
        return found

    parts = threads.in_parts(part, len(kept), _operations(size[0] * size[1], weights))
    firsts, grads = zip(*itertools.chain(*parts), strict=True)
    return dx, tuple(map(numpy.concatenate, zip(*firsts, strict=True))), list(grads)


def _operations(rows: int, weights: Weights) -> int:
    """Multiplications for that many states."""
    return rows * (weights[0].size + weights[1].size)


def padding_mask(xp: ModuleType, lengths: Array, steps: int) -> Array:
    """(T, N, 1), True where a step lies beyond the end of its sequence."""
    return (xp.arange(steps)[:, None] >= lengths[None, :])[:, :, None]


def pads_by_step(padding: Array | None, steps: int) -> list[Array | None]:
    """For every step the padded sequences as (N, 1), or None where all go on. For the host bodies: it reads values."""
    if padding is None:
        return [None] * steps
    return [pad if some else None for pad, some in zip(padding, padding.any(axis=(1, 2)).tolist(), strict=True)]


def in_order(steps: Iterable, reverse: bool) -> list:
    """The steps in the order in which the recurrence runs."""
    return list(steps)[::-1] if reverse else list(steps)


def state_buffer(xp: ModuleType, x: Array, hidden: int, first: Array | None, reverse: bool) -> tuple[Array, Array]:
    """The states before and after each step, two views of one buffer of T + 1 states; the first state is filled in."""
    states = memory.empty_on(xp, (x.shape[0] + 1, x.shape[1], hidden), x.dtype)
    states[-1 if reverse else 0] = 0 if first is None else first
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


def rows(a: Array) -> Array:
    """(T, N, G) as (T N, G)."""
    return a.reshape(a.shape[0] * a.shape[1], a.shape[2])


def project(xp: ModuleType, x: Array, weight: Array, bias: Array | None) -> Array:
    """x @ weight + bias of all steps in one product: (T, N, D), (D, G) -> (T, N, G). The bias is one more row of it."""
    steps, batch, size = x.shape
    flat = rows(x)
    if bias is not None:
        flat = xp.concatenate((flat, xp.ones((steps * batch, 1), x.dtype)), axis=1)
        weight = xp.concatenate((weight, bias[None, :]))
    out = memory.empty_on(xp, (steps, batch, weight.shape[1]), x.dtype)
    threads.product(flat, weight, rows(out))
    return out


def weight_grads(xp: ModuleType, x: Array, before: Array, into_x: Array, into_h: Array, bias: bool) -> tuple[Any, ...]:
    """The gradients of (w_ih, w_hh, b_ih, b_hh), one product over all steps each.

    into_x (T N, G) is the gradient of w_ih x + b_ih at every step, into_h that of w_hh h + b_hh.
    """
    ones = arrays.ones(xp, into_x.shape[0], into_x.dtype)
    b_ih = xp.matmul(ones, into_x) if bias else None
    b_hh = b_ih if into_h is into_x or not bias else xp.matmul(ones, into_h)
    return threads.product(into_x.T, rows(x)), threads.product(into_h.T, rows(before)), b_ih, b_hh


def masked(xp: ModuleType, padding: Array | None, a: Array) -> Array:
    """`a` with zeros at padded steps."""
    return a if padding is None else xp.where(padding, 0, a)


def held(xp: ModuleType, pad: Array | None, old: Array, new: Array) -> Array:
    """`old` for sequences that have ended, `new` for the others."""
    return new if pad is None else xp.where(pad, old, new)


# ---------------------------------------------------------------------- h, 1 and x side by side, on NumPy


def joined(x: Array, first: Array | None, hidden: int, bias: bool, reverse: bool) -> tuple[Array, Array]:
    """The rows (h_t, 1, x_t) before every step, without the 1 where there is no bias; and views of the h after it."""
    steps, batch, size = x.shape
    states = memory.empty((steps + 1, batch, hidden + bias + size), x.dtype)
    before, after = before_and_after(states, reverse)
    states[-1 if reverse else 0, :, :hidden] = 0 if first is None else first
    before[:, :, hidden : hidden + bias] = 1
    before[:, :, hidden + bias :] = x
    return before, after[:, :, :hidden]


def joined_weights(*parts: Array | None) -> Array:
    """Weights (G, D) and biases (G,) beside each other, as such rows are."""
    columns = [part.reshape(len(part), -1) for part in parts if part is not None]
    together = memory.empty((len(columns[0]), sum(part.shape[1] for part in columns)), columns[0].dtype)
    return numpy.concatenate(columns, axis=1, out=together)


def joined_grads(into_x: Array, into_h: Array, before: Array, hidden: int, bias: bool) -> tuple[Any, ...]:
    """What `weight_grads` gives, from the joined rows: in one product where into_x is into_h."""

    def product(g: Array, x: Array) -> Array:
        out = memory.empty((g.shape[1], x.shape[1]), x.dtype)
        return threads.product(g.T, x, out) if threads.holding() else numpy.matmul(g.T, x, out)  # dot copies gaps

    before = rows(before)
    if into_x is into_h:
        dw = product(into_h, before)
        dw_h, dw_x = dw[:, : hidden + bias], dw[:, hidden:]
    else:
        dw_h, dw_x = product(into_h, before[:, : hidden + bias]), product(into_x, before[:, hidden:])
    return dw_x[:, bias:], dw_h[:, :hidden], dw_x[:, 0] if bias else None, dw_h[:, hidden] if bias else None


def right_factor(matrix: Array, rows: int, gaps: bool = False) -> tuple[Array, Callable[..., Any]]:
    """A copy of the matrix, and the function that multiplies the rows of every step with it: f(rows, copy, out).

    In a large matrix the rows must not begin a power of two apart, where a product finds them in the same few cache
    lines. For small matrices dot is called faster; but what lies with gaps, as the rows of a step may, it copies.
    """
    size, columns = matrix.shape
    if matrix.size > SMALL and rows * matrix.size > threads.UNPACKED and threads.takes_unpacked():
        for width, parts in itertools.product((64, 32), (1, 2, 4, 8)):
            if rows * size * width <= parts * threads.UNPACKED and size % parts == 0 and columns % width == 0:
                return _right_blocks(matrix, rows, parts, width)
    gap = 16 if matrix.size > SMALL else 0
    copy = memory.empty((size, columns + gap), matrix.dtype)[:, :columns]
    copy[...] = matrix
    return copy, numpy.matmul if gap or gaps else numpy.ndarray.dot


def _right_blocks(matrix: Array, rows: int, parts: int, width: int) -> tuple[Array, Callable[..., Any]]:
    """The same with the (K, G) matrix cut into (P, G / B, K / P, B), for products so small that BLAS packs nothing.

    Else one thread of it packs the whole matrix at every step, which with few rows takes as long as the product.
    """
    size, columns = matrix.shape
    copy = memory.empty((parts, columns // width, size // parts, width), matrix.dtype)
    copy[...] = matrix.reshape(parts, size // parts, columns // width, width).swapaxes(1, 2)

    def by_width(out: Array) -> Array:
        return out.reshape(rows, columns // width, width).swapaxes(0, 1)

    def whole(a: Array, copy: Array, out: Array) -> None:
        numpy.matmul(a, copy[0], by_width(out))

    if parts == 1:
        return copy, whole
    made = memory.empty((parts, columns // width, rows, width), matrix.dtype)
    total = memory.empty(made.shape[1:], matrix.dtype)

    def summed(a: Array, copy: Array, out: Array) -> None:
        numpy.matmul(a.reshape(rows, parts, 1, size // parts).transpose(1, 2, 0, 3), copy, made)
        numpy.add.reduce(made, 0, out=total)
        by_width(out)[...] = total

    return copy, summed
