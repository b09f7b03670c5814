"""The simple recurrence over time, forwards and backwards, for one layer and one direction.

    h' = f(z),  z = W_ih x_t + b_ih + W_hh h + b_hh,  f = tanh or relu

Backward: with dh the gradient of h' from y_t and from the steps after t, dz = dh f'(z), where f' is 1 - h'^2 for tanh
and 1 where h' > 0 for relu; the state before gets dz W_hh.
"""

from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels import recurrence
from mtorch.kernels.memory import empty
from mtorch.kernels.recurrence import State, Weights, held, in_order, masked, rows
from mtorch.kernels.threads import product


def forward(
    xp: ModuleType,
    x: Array,
    state: State,
    weights: Weights,
    padding: Array | None = None,
    reverse: bool = False,
    nonlinearity: str = "tanh",
) -> tuple[Array, State, Any]:
    """y (T, N, H), the last (h,), and what backward needs."""
    body = _forward_numpy if is_numpy(xp) else forward_generic
    return body(xp, x, state, weights, padding, reverse, nonlinearity)


def backward(
    xp: ModuleType, memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool = True
) -> tuple[Array | None, State, Weights]:
    """The gradients of x (None unless wanted), of the first (h,), and of the weights."""
    x, before, *rest = memory
    body = _backward_numpy if is_numpy(xp) else backward_generic
    dz, dh = body(xp, weights[1], masked(xp, rest[0], y_grad), state_grad[0], *rest)
    dx = product(dz, weights[0]).reshape(x.shape) if input_grad else None
    return dx, (dh,), recurrence.weight_grads(xp, x, before, dz, dz, weights[2] is not None)


def forward_generic(xp, x, state, weights, padding, reverse, nonlinearity):
    w_ih, w_hh, b_ih, b_hh = weights
    p = recurrence.project(xp, x, w_ih.T, None if b_ih is None else b_ih + b_hh)
    before, after = recurrence.state_buffer(xp, x, w_hh.shape[1], state[0], reverse)
    for t in in_order(range(len(x)), reverse):
        z = p[t] + before[t].dot(w_hh.T)
        h = xp.tanh(z) if nonlinearity == "tanh" else xp.maximum(z, 0)
        after[t] = held(xp, None if padding is None else padding[t], before[t], h)
    y, last = masked(xp, padding, after), after[0 if reverse else -1]
    return y, (last,), (x, before, padding, reverse, nonlinearity, after)


def backward_generic(xp, w_hh, dy, dh, padding, reverse, nonlinearity, after):
    dh = xp.zeros_like(after[0]) if dh is None else dh
    dzs = [None] * len(dy)
    for t in in_order(range(len(dy)), not reverse):
        pad = None if padding is None else padding[t]
        dh = dh + dy[t]
        dzs[t] = masked(xp, pad, dh * (1 - after[t] * after[t] if nonlinearity == "tanh" else after[t] > 0))
        dh = held(xp, pad, dh, dzs[t].dot(w_hh))
    return rows(xp.stack(dzs)), dh


def _forward_numpy(xp, x, state, weights, padding, reverse, nonlinearity):
    w_ih, w_hh, b_ih, b_hh = weights
    hidden = w_hh.shape[1]
    p = recurrence.project(xp, x, w_ih.T, None if b_ih is None else b_ih + b_hh)
    before, after = recurrence.state_buffer(xp, x, hidden, state[0], reverse)
    w_hh, times = recurrence.right_factor(w_hh.T, x.shape[1])
    z = empty(p.shape[1:], x.dtype)
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
    y, last = masked(xp, padding, after), after[0 if reverse else -1]
    return y, (last,), (x, before, padding, reverse, nonlinearity, after)


def _backward_numpy(xp, w_hh, dy, dh, padding, reverse, nonlinearity, after):
    """dz first holds f', made block by block for many steps at once, and is multiplied with dh step by step."""
    steps, batch, hidden = dy.shape
    dh = numpy.zeros((batch, hidden), dy.dtype) if dh is None else dh.copy()
    dz, spare = empty(dy.shape, dy.dtype), empty(dh.shape, dh.dtype)
    w_hh, times = recurrence.right_factor(w_hh, batch)
    pads = recurrence.pads_by_step(padding, steps)
    for low, high in recurrence.blocks_backward(steps, batch * hidden, reverse):
        slopes = dz[low:high]
        if nonlinearity == "tanh":
            inside = True if padding is None else ~padding[low:high]  # a state that is only held may be any number
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
                times(dz_t, w_hh, spare)
                numpy.copyto(dh, spare, where=~pad)
    return rows(dz), dh
