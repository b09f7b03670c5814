"""Long short-term memory over time: one product and seventeen passes a step."""

from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.fast.numpy import recurrence
from mtorch.fast.numpy.recurrence import in_order, without_padding
from mtorch.fast.product import product
from mtorch.layers.lstm import LSTM
from mtorch.layers.recurrent import State, Wanted, Weights, rows


def over_time(
    x: Array, state: State, weights: Weights, padding: Array | None, reverse: bool
) -> tuple[Array, State, Any]:
    """h_t, 1 and x_t stand side by side, so that one product serves them; a step works in arrays that stay in cache.

    sigmoid(z) = (1 + tanh(z / 2)) / 2, so that one tanh serves all gates; the weights carry the half.

    Backward multiplies dh and dc with factors that are known here, and needs nothing else:
    f c (1 - f), i g (1 - i), h' (1 - o) for dz_f, dz_i, dz_o; f, i - i g g, o - h' tanh(c') for dc before, dz_g, dc.
    """
    steps, batch, _ = x.shape
    w_ih, w_hh, b_ih, b_hh = weights
    hidden, dtype = w_hh.shape[1], x.dtype
    before, after = recurrence.joined(x, state[0], b_ih is not None, reverse)
    w = recurrence.joined_weights(w_hh, None if b_ih is None else b_ih + b_hh, w_ih)
    w *= numpy.array([0.5, 0.5, 1, 0.5], dtype).repeat(hidden)[:, None]
    w, times = recurrence.right_factor(w.T, batch)
    into_dz, kept = (numpy.empty((steps, n, batch, hidden), dtype) for n in (4, 3))

    z = numpy.empty((batch, 4 * hidden), dtype)
    gates = numpy.empty((4, batch, hidden), dtype)  # f, i, o, g
    cells = numpy.empty((3, batch, hidden), dtype)  # c, g, tanh(c')
    made = numpy.empty((3, batch, hidden), dtype)  # f c, i g, h'
    z_blocks, pairs, f_i_o_made, g_made = _as_blocks(z), gates.reshape(2, 2, batch, hidden), gates[:3], gates[3]
    (c, g, tanh_c), c_g, g_tanh_c = cells, cells[:2], cells[1:]
    (fc, ig, h), fc_ig, ig_h = made, made[:2], made[1:]
    one, half = numpy.ones((), dtype), numpy.full((), 0.5, dtype)
    c[...] = state[1]
    add, subtract, multiply, tanh = numpy.add, numpy.subtract, numpy.multiply, numpy.tanh

    pads = recurrence.pads_by_step(padding, steps)
    run = zip(before, after, into_dz[:, :3], kept, kept[:, :2], kept[:, 1:], kept[:, 2], pads, strict=True)
    for h_x, h_new, factors, f_i_o, f_i, i_o, o, pad in in_order(run, reverse):
        times(h_x, w, z)
        tanh(z_blocks, pairs)
        multiply(f_i_o_made, half, f_i_o_made)
        add(f_i_o_made, half, f_i_o)
        g[...] = g_made
        multiply(f_i, c_g, fc_ig)
        if pad is None:
            add(fc, ig, c)
        else:
            numpy.copyto(c, fc + ig, where=~pad)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)
        h_new[...] = h
        if pad is not None:
            numpy.copyto(h_new, h_x[:, :hidden], where=pad)
        subtract(one, f_i_o, factors)
        multiply(factors, made, factors)
        multiply(ig_h, g_tanh_c, ig_h)
        subtract(i_o, ig_h, i_o)
    y = numpy.empty((steps, batch, hidden), dtype)
    y[...] = after
    if padding is not None:
        numpy.copyto(y, 0, where=padding)
    return y, (after[0 if reverse else -1], c), (padding, reverse, before, into_dz, kept)


def back_over_time(
    memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool, wanted: Wanted
) -> tuple[Array | None, State, tuple]:
    """The gradients of z take the place of their factors."""
    padding, reverse, before, into_dz, kept = memory
    dy = without_padding(padding, y_grad)
    steps, batch, hidden = dy.shape
    dtype = dy.dtype
    w_hh, times = recurrence.right_factor(weights[1], batch)
    dh, dc, through = numpy.empty((3, batch, hidden), dtype)
    dh[...], dc[...] = state_grad
    blocks = numpy.empty((4, batch, hidden), dtype)
    f, i, o, g = blocks
    dz, pairs = into_dz.reshape(steps, batch, 4 * hidden), blocks.reshape(2, 2, batch, hidden)
    if padding is not None:
        into_dz[:, :3] *= ~padding[:, None]
        kept[:, 1:] *= ~padding[:, None]
        numpy.copyto(kept[:, 0], 1, where=padding)
    add, multiply, pads = numpy.add, numpy.multiply, recurrence.pads_by_step(padding, steps)
    factors = (*into_dz.swapaxes(0, 1)[:3], *kept.swapaxes(0, 1))
    run = zip(dy, *factors, dz, _as_blocks(dz), pads, strict=True)
    for dy_t, a_f, a_i, a_o, f_kept, a_g, a_c, dz_t, dz_blocks, pad in in_order(run, not reverse):
        add(dh, dy_t, dh)
        multiply(dh, a_c, through)
        add(dc, through, dc)
        multiply(dc, a_f, f)
        multiply(dc, a_i, i)
        multiply(dh, a_o, o)
        multiply(dc, a_g, g)
        dz_blocks[...] = pairs
        multiply(dc, f_kept, dc)
        if pad is None:
            times(dz_t, w_hh, dh)
        else:
            times(dz_t, w_hh, through)
            numpy.copyto(dh, through, where=~pad)
    dz = rows(dz)
    dx = product(dz, weights[0]).reshape(steps, batch, weights[0].shape[1]) if input_grad else None
    return dx, (dh, dc), recurrence.joined_grads(dz, dz, before, hidden, weights[2] is not None, wanted)


def _as_blocks(z: Array) -> Array:
    """A view of (..., N, 4 H), gates i, f, g, o, as (..., 2, 2, N, H): f, i and o, g."""
    pairs = z.reshape(*z.shape[:-1], 2, 2, z.shape[-1] // 4)[..., ::-1, :]
    return pairs.transpose(*range(z.ndim - 2), -3, -2, -4, -1)


recurrence.replace_layer(LSTM, lambda layer: over_time, back_over_time)
