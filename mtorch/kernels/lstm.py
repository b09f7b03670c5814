"""Long short-term memory over time, forwards and backwards, for one layer and one direction.

    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o),  g = tanh(z_g),  z = W_ih x_t + b_ih + W_hh h + b_hh
    c' = f c + i g,   h' = o tanh(c')

Backward: with dh, dc the gradients of h', c' from y_t and from the steps after t,
    dc += dh o (1 - tanh(c')^2)
    dz_i = dc g i (1 - i),  dz_f = dc c f (1 - f),  dz_g = dc i (1 - g^2),  dz_o = dh tanh(c') o (1 - o)
and the state before gets dz W_hh and dc f.
"""

from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels import recurrence
from mtorch.kernels.memory import empty
from mtorch.kernels.recurrence import State, Weights, held, in_order, masked, rows
from mtorch.kernels.sigmoid import sigmoid


def forward(
    xp: ModuleType, x: Array, state: State, weights: Weights, padding: Array | None = None, reverse: bool = False
) -> tuple[Array, State, Any]:
    """y (T, N, H), the last (h, c), and what backward needs."""
    body = _forward_numpy if is_numpy(xp) else forward_generic
    return body(xp, x, state, weights, padding, reverse)


def backward(
    xp: ModuleType, memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool = True
) -> tuple[Array | None, State, Weights]:
    """The gradients of x (None unless wanted), of the first (h, c), and of the weights."""
    x, before, padding, *steps = memory
    body = _backward_numpy if is_numpy(xp) else backward_generic
    dz, state = body(xp, weights[1], masked(xp, padding, y_grad), state_grad, before, padding, *steps)
    dx = dz.dot(weights[0]).reshape(x.shape) if input_grad else None
    return dx, state, recurrence.weight_grads(xp, x, before, dz, dz, weights[2] is not None)


def forward_generic(xp, x, state, weights, padding, reverse):
    w_ih, w_hh, b_ih, b_hh = weights
    size = w_hh.shape[1]
    p = recurrence.project(xp, x, w_ih.T, None if b_ih is None else b_ih + b_hh)
    before, after = recurrence.state_buffer(xp, x, size, state[0], reverse)
    c_before, c_after = recurrence.state_buffer(xp, x, size, state[1], reverse)
    gates = [None] * len(x)
    for t in in_order(range(len(x)), reverse):
        z = p[t] + before[t].dot(w_hh.T)
        i, f, o = (sigmoid(xp, z[:, k * size : (k + 1) * size]) for k in (0, 1, 3))
        g = xp.tanh(z[:, 2 * size : 3 * size])
        c = f * c_before[t] + i * g
        tanh_c = xp.tanh(c)
        pad = None if padding is None else padding[t]
        c_after[t] = held(xp, pad, c_before[t], c)
        after[t] = held(xp, pad, before[t], o * tanh_c)
        gates[t] = (i, f, g, o, tanh_c)
    last = 0 if reverse else -1
    return masked(xp, padding, after), (after[last], c_after[last]), (x, before, padding, reverse, c_before, gates)


def backward_generic(xp, w_hh, dy, state_grad, before, padding, reverse, c_before, gates):
    dh, dc = (xp.zeros_like(before[0]) if grad is None else grad for grad in state_grad)
    dzs = [None] * len(dy)
    for t in in_order(range(len(dy)), not reverse):
        i, f, g, o, tanh_c = gates[t]
        dh = dh + dy[t]
        dc_all = dc + dh * o * (1 - tanh_c * tanh_c)
        dz_i, dz_f = dc_all * g * i * (1 - i), dc_all * c_before[t] * f * (1 - f)
        dz_g, dz_o = dc_all * i * (1 - g * g), dh * tanh_c * o * (1 - o)
        pad = None if padding is None else padding[t]
        dzs[t] = masked(xp, pad, xp.concatenate((dz_i, dz_f, dz_g, dz_o), axis=1))
        dh, dc = held(xp, pad, dh, dzs[t].dot(w_hh)), held(xp, pad, dc, dc_all * f)
    return rows(xp.stack(dzs)), (dh, dc)


def _forward_numpy(xp, x, state, weights, padding, reverse):
    """Gates as (4, N, H) blocks in the order i, f, o, g.

    The weights carry the signs, so that one exp serves all gates: with e = exp(-z), or exp(-2 z) for g, the gates are
    1 / (1 + e) and g = 2 / (1 + e) - 1. Where exp overflows the quotient is 0, which is the gate to within rounding.
    """
    steps, batch, size = x.shape
    hidden, dtype = weights[1].shape[1], x.dtype
    w_ih, w_hh, bias = _signed(weights, hidden, dtype)
    p = recurrence.project(xp, x, w_ih, bias)
    gates = p.reshape(steps, 4, batch, hidden)  # the gates of a step take the place of its projection
    products = empty((steps, 3, batch, hidden), dtype)  # i g, f c, tanh(c')
    before, after = recurrence.state_buffer(xp, x, hidden, state[0], reverse)
    gc = empty((2, batch, hidden), dtype)
    g, c = gc
    c[...] = 0 if state[1] is None else state[1]
    z = empty((batch, 4 * hidden), dtype)
    z_blocks = z.reshape(batch, 4, hidden).transpose(1, 0, 2)
    one, tops = numpy.ones((), dtype), numpy.ones((4, batch, hidden), dtype)
    tops[3] = 2
    add, multiply, exp, dot = numpy.add, numpy.multiply, numpy.exp, numpy.dot
    run = zip(before, after, p, gates, gates[:, :2], gates[:, 2], gates[:, 3], products[:, :2], products[:, 0],
              products[:, 1], products[:, 2], recurrence.pads_by_step(padding, steps), strict=True)  # fmt: skip
    with numpy.errstate(over="ignore"):
        for h, h_new, p_t, all_gates, i_f, o, g_top, ig_fc, ig, fc, tanh_c, pad in in_order(run, reverse):
            dot(h, w_hh, z)
            add(z, p_t, z)
            exp(z_blocks, all_gates)
            add(all_gates, one, all_gates)
            numpy.divide(tops, all_gates, all_gates)
            numpy.subtract(g_top, one, g)
            multiply(i_f, gc, ig_fc)
            if pad is None:
                add(ig, fc, c)
            else:
                numpy.copyto(c, ig + fc, where=~pad)
            numpy.tanh(c, tanh_c)
            multiply(o, tanh_c, h_new)
            if pad is not None:
                numpy.copyto(h_new, h, where=pad)
    last = after[0 if reverse else -1]
    return masked(xp, padding, after), (last, c), (x, before, padding, reverse, after, gates, products)


def _backward_numpy(xp, w_hh, dy, state_grad, before, padding, reverse, after, gates, products):
    """What multiplies dh and dc is known before the loop, so it is made block by block for many steps at once."""
    steps, batch, hidden = dy.shape
    dtype = dy.dtype
    dh, dc = (numpy.zeros((batch, hidden), dtype) if grad is None else grad.copy() for grad in state_grad)
    through, blocks = numpy.empty_like(dh), empty((4, batch, hidden), dtype)
    i_f_g, o = blocks[:3], blocks[3]
    dz = empty((steps, batch, 4 * hidden), dtype)
    dz_blocks = dz.reshape(steps, batch, 4, hidden).transpose(0, 2, 1, 3)
    pads = recurrence.pads_by_step(padding, steps)
    if padding is not None:
        numpy.copyto(gates[:, 1], 1, where=padding)
    add, multiply = numpy.add, numpy.multiply
    for low, high in recurrence.blocks_backward(steps, batch * hidden, reverse):
        factors = _factors(gates[low:high], products[low:high], after[low:high])
        if padding is not None:
            factors *= ~padding[low:high, None]
        run = zip(dy[low:high], factors[:, :3], factors[:, 3], factors[:, 4], gates[low:high, 1], dz[low:high],
                  dz_blocks[low:high], pads[low:high], strict=True)  # fmt: skip
        for dy_t, a_ifg, a_o, a_c, f, dz_t, dz_t_blocks, pad in in_order(run, not reverse):
            add(dh, dy_t, dh)
            multiply(dh, a_c, through)
            add(dc, through, dc)
            multiply(dc, a_ifg, i_f_g)
            multiply(dh, a_o, o)
            dz_t_blocks[...] = blocks
            multiply(dc, f, dc)
            if pad is None:
                dz_t.dot(w_hh, dh)
            else:
                numpy.copyto(dh, dz_t.dot(w_hh), where=~pad)
    return rows(dz), (dh, dc)


def _signed(weights, hidden, dtype):
    """Copies of the weights as (D, 4 H), gates in the order i, f, o, g, times -1 and, for g, -2."""
    signs = numpy.array([-1, -1, -1, -2], dtype)[:, None, None]

    def turned(w):
        return (w.reshape(4, hidden, -1)[[0, 1, 3, 2]] * signs).reshape(4 * hidden, -1).T

    w_ih, w_hh, b_ih, b_hh = weights
    return turned(w_ih), numpy.ascontiguousarray(turned(w_hh)), None if b_ih is None else turned(b_ih + b_hh)[0]


def _factors(gates, products, h):
    """(steps, 5, N, H): what dc is multiplied with for dz_i, dz_f, dz_g, what dh is for dz_o and for dc."""
    factors = empty((len(h), 5, *h.shape[1:]), h.dtype)
    i_f, g, o, c = factors[:, :2], factors[:, 2], factors[:, 3], factors[:, 4]
    numpy.subtract(1, gates[:, :2], out=i_f)
    i_f *= products[:, :2]  # i g (1 - i), f c (1 - f)
    numpy.multiply(products[:, 0], gates[:, 3], out=g)
    numpy.subtract(products[:, 0], g, out=g)
    g += gates[:, 0]  # i (1 - g^2) = i + i g - i g (1 + g)
    numpy.subtract(1, gates[:, 2], out=o)
    o *= h  # h (1 - o)
    numpy.multiply(h, products[:, 2], out=c)
    numpy.subtract(gates[:, 2], c, out=c)  # o (1 - tanh(c)^2) = o - h tanh(c)
    return factors
