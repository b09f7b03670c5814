"""The gated recurrent unit over time: two products a step, the factors of the gradients made in forward."""

from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.fast.numpy import recurrence
from mtorch.fast.numpy.recurrence import in_order, without_padding
from mtorch.fast.product import product
from mtorch.layers.gru import GRU
from mtorch.layers.recurrent import State, Wanted, Weights, rows


def over_time(
    x: Array, state: State, weights: Weights, padding: Array | None, reverse: bool
) -> tuple[Array, State, Any]:
    """h_t, 1 and x_t stand side by side, so that one product serves them; a step works in arrays that stay in cache.

    sigmoid(a) = (1 + tanh(a / 2)) / 2, so that one tanh serves both gates; the weights carry the half.

    Backward multiplies dh with factors that are known here, and needs nothing else but z: they are those of da_n, da_r,
    da_z and ds_n in the docstring of `GRU`. Here q is s_n.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    steps, batch, _ = x.shape
    hidden, dtype, bias = w_hh.shape[1], x.dtype, b_ih is not None
    of_rz, of_n = slice(2 * hidden), slice(2 * hidden, None)
    before, after = recurrence.joined(x, state[0], bias, reverse)
    half = numpy.full((), 0.5, dtype)
    w_rz = recurrence.joined_weights(w_hh[of_rz], (b_ih + b_hh)[of_rz] if bias else None, w_ih[of_rz])
    w_rz *= half
    w_rz, times = recurrence.right_factor(w_rz.T, batch)
    w_q = recurrence.joined_weights(w_hh[of_n], b_hh[of_n] if bias else None)
    w_q, times_q = recurrence.right_factor(w_q.T, batch, gaps=True)
    w_n = recurrence.joined_weights(b_ih[of_n] if bias else None, w_ih[of_n])
    p = numpy.empty((steps, batch, hidden), dtype)
    numpy.matmul(rows(before)[:, hidden:], w_n.T, rows(p))

    y, z_kept = (numpy.empty((steps, batch, hidden), dtype) for _ in range(2))
    into_da = numpy.empty((steps, 4, batch, hidden), dtype)
    a = numpy.empty((batch, 2 * hidden), dtype)
    rz, less, q_d, (n, _) = numpy.empty((4, 2, batch, hidden), dtype)
    a_blocks, (r, z), (_, less_z), (q, d), one = _as_blocks(a, 2), rz, less, q_d, numpy.ones((), dtype)
    add, subtract, multiply, tanh = numpy.add, numpy.subtract, numpy.multiply, numpy.tanh
    pads = recurrence.pads_by_step(padding, steps)
    h_1, h = before[:, :, : hidden + bias], numpy.ascontiguousarray(state[0])
    factors = into_da[:, 0], into_da[:, 1:3], into_da[:, 1], into_da[:, 3], z_kept
    run = zip(before, h_1, after, y, p, *factors, pads, strict=True)
    for h_x, h_1, h_new, y_t, p_n, a_n, a_rz, a_r, a_q, z_t, pad in in_order(run, reverse):
        times(h_x, w_rz, a)
        tanh(a_blocks, rz)
        multiply(rz, half, rz)
        add(rz, half, rz)
        times_q(h_1, w_q, q)
        multiply(r, q, n)
        add(n, p_n, n)
        tanh(n, n)
        subtract(h, n, d)
        multiply(d, z, d)
        add(n, d, y_t)  # (1 - z) n + z h = n + z (h - n)
        if pad is not None:
            numpy.copyto(y_t, h, where=pad)
        h_new[...] = h = y_t  # the next step reads y_t: rows of h_new have gaps between them
        subtract(one, rz, less)
        multiply(q_d, less, a_rz)
        multiply(n, n, n)
        subtract(one, n, n)
        multiply(n, less_z, a_n)
        multiply(a_n, r, a_q)
        multiply(a_r, a_q, a_r)
        z_t[...] = z
    return without_padding(padding, y), (after[0 if reverse else -1],), (padding, reverse, before, into_da, z_kept)


def back_over_time(
    memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool, wanted: Wanted
) -> tuple[Array | None, State, tuple]:
    """The gradients of a and q take the place of their factors."""
    padding, reverse, before, into_da, z_kept = memory
    dy, w_ih = without_padding(padding, y_grad), weights[0]
    steps, batch, hidden = dy.shape
    w_hh, times = recurrence.right_factor(weights[1], batch, gaps=True)
    dh, through = numpy.empty((2, batch, hidden), dy.dtype)
    dh[...] = state_grad[0]
    blocks = numpy.empty((4, batch, hidden), dy.dtype)
    da = into_da.reshape(steps, batch, 4 * hidden)
    if padding is not None:
        into_da *= ~padding[:, None]
        numpy.copyto(z_kept, 1, where=padding)  # z = 1 keeps the state
    add, multiply = numpy.add, numpy.multiply
    run = zip(dy, into_da, z_kept, _as_blocks(da, 4), da[:, :, hidden:], strict=True)
    for dy_t, factors, z, da_blocks, into_h in in_order(run, not reverse):
        add(dh, dy_t, dh)
        multiply(dh, factors, blocks)
        multiply(dh, z, through)
        da_blocks[...] = blocks
        times(into_h, w_hh, dh)
        add(dh, through, dh)
    da, bias, of_a = rows(da), weights[2] is not None, slice(3 * hidden)  # in the order n, r, z, q
    dw_ih, dw_hh, db_ih, db_hh = recurrence.joined_grads(da[:, of_a], da[:, hidden:], before, hidden, bias, wanted)
    dw_ih, db_ih = (None if d is None else numpy.concatenate((d[hidden:], d[:hidden])) for d in (dw_ih, db_ih))
    dx = None
    if input_grad:
        dx = product(da[:, of_a], numpy.concatenate((w_ih[2 * hidden :], w_ih[: 2 * hidden])))
        dx = dx.reshape(steps, batch, w_ih.shape[1])
    return dx, (dh,), (dw_ih, dw_hh, db_ih, db_hh)


def _as_blocks(a: Array, gates: int) -> Array:
    """(..., N, gates H) seen as (..., gates, N, H)."""
    return a.reshape(*a.shape[:-1], gates, a.shape[-1] // gates).swapaxes(-2, -3)


recurrence.replace_layer(GRU, lambda layer: over_time, back_over_time)
