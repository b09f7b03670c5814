"""The gated recurrent unit over time, forwards and backwards, for one layer and one direction.

    r, z = sigmoid(a_r), sigmoid(a_z),  a = W_i x_t + b_i + W_h h + b_h
    q = W_hn h + b_hn,  n = tanh(W_in x_t + b_in + r q),  h' = (1 - z) n + z h

The reset gate acts after the product, as in torch and cuDNN (Cho et al. have it before).

Backward: with dh the gradient of h' from y_t and from the steps after t,
    da_z = dh (h - n) z (1 - z),  da_n = dh (1 - z) (1 - n^2),  dq = da_n r,  da_r = da_n q r (1 - r);
x_t gets (da_r, da_z, da_n) W_i, the state before gets (da_r, da_z, dq) W_h and dh z.
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
    """y (T, N, H), the last (h,), and what backward needs."""
    body = _forward_numpy if is_numpy(xp) else forward_generic
    return body(xp, x, state, weights, padding, reverse)


def backward(
    xp: ModuleType, memory: Any, weights: Weights, y_grad: Array, state_grad: State, input_grad: bool = True
) -> tuple[Array | None, State, Weights]:
    """The gradients of x (None unless wanted), of the first (h,), and of the weights."""
    x, before, padding, *steps = memory
    w_ih, w_hh, b_ih, _ = weights
    size = w_hh.shape[1]
    body = _backward_numpy if is_numpy(xp) else backward_generic
    da, dh = body(xp, w_hh, masked(xp, padding, y_grad), state_grad[0], padding, *steps)  # rows of da_n, da_r, da_z, dq
    into_x, into_h = da[:, : 3 * size], da[:, size:]
    dx = into_x.dot(xp.concatenate((w_ih[2 * size :], w_ih[: 2 * size]))).reshape(x.shape) if input_grad else None
    dw_ih, dw_hh, db_ih, db_hh = recurrence.weight_grads(xp, x, before, into_x, into_h, b_ih is not None)
    dw_ih, db_ih = (None if d is None else xp.concatenate((d[size:], d[:size])) for d in (dw_ih, db_ih))
    return dx, (dh,), (dw_ih, dw_hh, db_ih, db_hh)


def forward_generic(xp, x, state, weights, padding, reverse):
    w_ih, w_hh, b_ih, b_hh = weights
    size = w_hh.shape[1]
    p = recurrence.project(xp, x, w_ih.T, b_ih)
    before, after = recurrence.state_buffer(xp, x, size, state[0], reverse)
    gates = [None] * len(x)
    for t in in_order(range(len(x)), reverse):
        s = before[t].dot(w_hh.T)
        if b_hh is not None:
            s += b_hh
        r, z = (sigmoid(xp, p[t, :, k * size : (k + 1) * size] + s[:, k * size : (k + 1) * size]) for k in (0, 1))
        q = s[:, 2 * size :]
        n = xp.tanh(p[t, :, 2 * size :] + r * q)
        after[t] = held(xp, None if padding is None else padding[t], before[t], (1 - z) * n + z * before[t])
        gates[t] = (r, z, q, n)
    y, last = masked(xp, padding, after), after[0 if reverse else -1]
    return y, (last,), (x, before, padding, reverse, before, gates)


def backward_generic(xp, w_hh, dy, dh, padding, reverse, before, gates):
    dh = xp.zeros_like(before[0]) if dh is None else dh
    das = [None] * len(dy)
    for t in in_order(range(len(dy)), not reverse):
        r, z, q, n = gates[t]
        dh = dh + dy[t]
        da_z, da_n = dh * (before[t] - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
        dq, da_r = da_n * r, da_n * q * r * (1 - r)
        pad = None if padding is None else padding[t]
        das[t] = masked(xp, pad, xp.concatenate((da_n, da_r, da_z, dq), axis=1))
        dh = held(xp, pad, dh, das[t][:, dh.shape[1] :].dot(w_hh) + dh * z)
    return rows(xp.stack(das)), dh


def _forward_numpy(xp, x, state, weights, padding, reverse):
    """The weights of r and z carry the sign of exp(-a); where it overflows, the gate is 0 to within rounding.

    Backward multiplies dh with factors that are known here, and needs nothing else but z: they are those of da_n, da_r,
    da_z and dq above.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    steps, batch, _ = x.shape
    hidden, dtype = w_hh.shape[1], x.dtype
    signs = numpy.repeat(numpy.array([-1, -1, 1], dtype), hidden)
    bias, b_n = None, numpy.zeros((), dtype)
    if b_ih is not None:
        bias, b_n = b_ih + b_hh, b_hh[2 * hidden :]
        bias[2 * hidden :] = b_ih[2 * hidden :]
        bias *= signs
    p = recurrence.project(xp, x, w_ih.T * signs, bias)
    p_blocks = p.reshape(steps, batch, 3, hidden).transpose(0, 2, 1, 3)
    w_hh = numpy.ascontiguousarray(w_hh.T * signs)
    before, after = recurrence.state_buffer(xp, x, hidden, state[0], reverse)
    kept = empty((steps, 5, batch, hidden), dtype)
    s = numpy.empty((batch, 3 * hidden), dtype)
    s_blocks = s.reshape(batch, 3, hidden).transpose(1, 0, 2)
    s_rz, s_n = s_blocks[:2], s_blocks[2]
    rz, less, ones = (numpy.ones((2, batch, hidden), dtype) for _ in range(3))
    (r, z), (less_r, less_z), one = rz, less, numpy.ones((), dtype)
    q, n, d = numpy.empty((3, batch, hidden), dtype)
    add, subtract, multiply = numpy.add, numpy.subtract, numpy.multiply
    pads = recurrence.pads_by_step(padding, steps)
    run = zip(before, after, p_blocks[:, :2], p_blocks[:, 2], kept, pads, strict=True)
    with numpy.errstate(over="ignore"):
        for h, h_new, p_rz, p_n, (a_n, a_r, a_z, a_q, z_kept), pad in in_order(run, reverse):
            h.dot(w_hh, s)
            add(s_rz, p_rz, rz)
            numpy.exp(rz, rz)
            add(rz, one, rz)
            numpy.divide(ones, rz, rz)
            add(s_n, b_n, q)
            multiply(r, q, n)
            add(n, p_n, n)
            numpy.tanh(n, n)
            subtract(h, n, d)
            multiply(d, z, d)
            add(n, d, h_new)  # (1 - z) n + z h = n + z (h - n)
            if pad is not None:
                numpy.copyto(h_new, h, where=pad)
            subtract(one, rz, less)
            multiply(d, less_z, a_z)
            multiply(n, n, n)
            subtract(one, n, n)
            multiply(n, less_z, a_n)
            multiply(a_n, r, a_q)
            multiply(q, less_r, q)
            multiply(q, a_q, a_r)
            z_kept[...] = z
    y, last = masked(xp, padding, after), after[0 if reverse else -1]
    return y, (last,), (x, before, padding, reverse, kept)


def _backward_numpy(xp, w_hh, dy, dh, padding, reverse, kept):
    steps, batch, hidden = dy.shape
    dtype = dy.dtype
    dh = numpy.zeros((batch, hidden), dtype) if dh is None else dh.copy()
    through, blocks = numpy.empty(dh.shape, dtype), numpy.empty((4, batch, hidden), dtype)
    da = empty((steps, batch, 4 * hidden), dtype)
    da_blocks, da_h = da.reshape(steps, batch, 4, hidden).transpose(0, 2, 1, 3), da[:, :, hidden:]
    if padding is not None:
        kept[:, :4] *= ~padding[:, None]
        numpy.copyto(kept[:, 4], 1, where=padding)  # z = 1 holds the state
    run = zip(dy, kept[:, :4], kept[:, 4], da_blocks, da_h, strict=True)
    for dy_t, factors, z, da_t_blocks, da_t_h in in_order(run, not reverse):
        numpy.add(dh, dy_t, dh)
        numpy.multiply(dh, factors, blocks)
        da_t_blocks[...] = blocks
        numpy.multiply(dh, z, through)
        da_t_h.dot(w_hh, dh)
        numpy.add(dh, through, dh)
    return rows(da), dh
