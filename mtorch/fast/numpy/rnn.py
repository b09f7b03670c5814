"""The simple recurrence over time: each step in place, the derivatives of f for many steps at once."""

from functools import partial
from typing import Any

import numpy

from mtorch.arrays import Array, ones
from mtorch.fast.numpy import recurrence
from mtorch.fast.numpy.recurrence import in_order, without_padding
from mtorch.fast.product import product
from mtorch.layers.recurrent import State, Wanted, Weights, rows
from mtorch.layers.rnn import RNN


def over_time(
    x: Array, state: State, weights: Weights, padding: Array | None, reverse: bool, nonlinearity: str
) -> tuple[Array, State, Any]:
    w_ih, w_hh, b_ih, b_hh = weights
    p = recurrence.project(x, w_ih, None if b_ih is None else b_ih + b_hh)
    before, after = recurrence.state_buffer(x, state[0], reverse)
    w_hh, times = recurrence.right_factor(w_hh.T, x.shape[1])
    z = numpy.empty(p.shape[1:], x.dtype)
    zero = numpy.zeros((), x.dtype)
    run = zip(before, after, p, recurrence.pads_by_step(padding, len(x)), strict=True)
    for h, h_new, p_t, pad in in_order(run, reverse):
        times(h, w_hh, z)
        numpy.add(z, p_t, z)
        if nonlinearity == "tanh":
            numpy.tanh(z, h_new)
        else:
            numpy.maximum(z, zero, out=h_new)
        if pad is not None:
            numpy.copyto(h_new, h, where=pad)
    y, last = without_padding(padding, after), after[0 if reverse else -1]
    return y, (last,), (x, before, after, padding, reverse, nonlinearity)


def back_over_time(
    memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool, wanted: Wanted
) -> tuple[Array | None, State, tuple]:
    x, before, after, padding, reverse, nonlinearity = memory
    dy = without_padding(padding, y_grad)
    dz, dh = _back(dy, state_grad[0], weights[1], after, padding, reverse, nonlinearity)
    dw_ih, dw_hh = (product(dz.T, rows(a)) if each else None for a, each in zip((x, before), wanted, strict=False))
    db = numpy.matmul(ones(numpy, len(dz), dz.dtype), dz) if any(wanted[2:]) else None
    dx = product(dz, weights[0]).reshape(x.shape) if input_grad else None
    return dx, (dh,), (dw_ih, dw_hh, db, db)


def _back(
    dy: Array, dh: Array, w_hh: Array, after: Array, padding: Array | None, reverse: bool, nonlinearity: str
) -> tuple[Array, Array]:
    """The gradients of z as rows, and of the first state.

    dz first holds f', made block by block for many steps at once, and is multiplied with dh step by step.
    """
    steps, batch, hidden = dy.shape
    dh = dh.copy()
    dz, through = numpy.empty(dy.shape, dy.dtype), numpy.empty(dh.shape, dh.dtype)
    w_hh, times = recurrence.right_factor(w_hh, batch)
    pads = recurrence.pads_by_step(padding, steps)
    for low, high in recurrence.blocks_backward(steps, batch * hidden, reverse):
        slopes = dz[low:high]
        if nonlinearity == "tanh":
            inside = True if padding is None else ~padding[low:high]  # a state that is only kept may be any number
            numpy.square(after[low:high], out=slopes, where=inside)
            numpy.subtract(1, slopes, out=slopes, where=inside)
        else:
            numpy.greater(after[low:high], 0, out=slopes)
        if padding is not None:
            numpy.copyto(slopes, 0, where=padding[low:high])
        run = zip(dy[low:high], slopes, pads[low:high], strict=True)
        for dy_t, dz_t, pad in in_order(run, not reverse):
            numpy.add(dh, dy_t, dh)
            numpy.multiply(dh, dz_t, dz_t)
            if pad is None:
                times(dz_t, w_hh, dh)
            else:
                times(dz_t, w_hh, through)
                numpy.copyto(dh, through, where=~pad)
    return rows(dz), dh


recurrence.replace_layer(RNN, lambda layer: partial(over_time, nonlinearity=layer.nonlinearity), back_over_time)
