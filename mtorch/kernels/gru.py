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
from mtorch.kernels.threads import product


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
    padding, *rest = memory
    w_ih, size = weights[0], y_grad.shape[2]
    body = _backward_numpy if is_numpy(xp) else backward_generic
    da, dh, grads = body(xp, weights, masked(xp, padding, y_grad), state_grad[0], padding, *rest)
    dw_ih, dw_hh, db_ih, db_hh = grads  # those of w_ih and b_ih in the order of da: n, r, z
    dw_ih, db_ih = (None if d is None else xp.concatenate((d[size:], d[:size])) for d in (dw_ih, db_ih))
    dx = None
    if input_grad:
        dx = product(da[:, : 3 * size], xp.concatenate((w_ih[2 * size :], w_ih[: 2 * size])))
        dx = dx.reshape(*y_grad.shape[:2], w_ih.shape[1])
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
    return y, (last,), (padding, reverse, x, before, gates)


def backward_generic(xp, weights, dy, dh, padding, reverse, x, before, gates):
    """Also the rows of da_n, da_r, da_z, dq."""
    dh = xp.zeros_like(before[0]) if dh is None else dh
    das = [None] * len(dy)
    for t in in_order(range(len(dy)), not reverse):
        r, z, q, n = gates[t]
        dh = dh + dy[t]
        da_z, da_n = dh * (before[t] - n) * z * (1 - z), dh * (1 - z) * (1 - n * n)
        dq, da_r = da_n * r, da_n * q * r * (1 - r)
        pad = None if padding is None else padding[t]
        das[t] = masked(xp, pad, xp.concatenate((da_n, da_r, da_z, dq), axis=1))
        dh = held(xp, pad, dh, das[t][:, dh.shape[1] :].dot(weights[1]) + dh * z)
    da, size = rows(xp.stack(das)), dh.shape[1]
    return da, dh, recurrence.weight_grads(xp, x, before, da[:, : 3 * size], da[:, size:], weights[2] is not None)


def _forward_numpy(xp, x, state, weights, padding, reverse):
    """h_t, 1 and x_t stand side by side, so that one product serves them; a step works in arrays that stay in cache.

    sigmoid(a) = (1 + tanh(a / 2)) / 2, so that one tanh serves both gates; the weights carry the half.

    Backward multiplies dh with factors that are known here, and needs nothing else but z: they are those of da_n, da_r,
    da_z and dq above.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    steps, batch, _ = x.shape
    hidden, dtype, bias = w_hh.shape[1], x.dtype, b_ih is not None
    of_rz, of_n = slice(2 * hidden), slice(2 * hidden, None)
    before, after = recurrence.joined(x, state[0], hidden, bias, reverse)
    half = numpy.full((), 0.5, dtype)
    w_rz = recurrence.joined_weights(w_hh[of_rz], (b_ih + b_hh)[of_rz] if bias else None, w_ih[of_rz])
    w_rz *= half
    w_rz, times = recurrence.right_factor(w_rz.T, batch)
    w_q = recurrence.joined_weights(w_hh[of_n], b_hh[of_n] if bias else None)
    w_q, times_q = recurrence.right_factor(w_q.T, batch, gaps=True)
    w_n = recurrence.joined_weights(b_ih[of_n] if bias else None, w_ih[of_n])
    p = empty((steps, batch, hidden), dtype)
    numpy.matmul(rows(before)[:, hidden:], w_n.T, rows(p))

    y, z_kept = (empty((steps, batch, hidden), dtype) for _ in range(2))
    into_da = empty((steps, 4, batch, hidden), dtype)
    a = empty((batch, 2 * hidden), dtype)
    rz, less, q_d, (n, _) = empty((4, 2, batch, hidden), dtype)
    a_blocks, (r, z), (_, less_z), (q, d), one = _as_blocks(a, 2), rz, less, q_d, numpy.ones((), dtype)
    add, subtract, multiply, tanh = numpy.add, numpy.subtract, numpy.multiply, numpy.tanh
    pads = recurrence.pads_by_step(padding, steps)
    h_1, h = before[:, :, : hidden + bias], before[:, :, :hidden]
    factors = into_da[:, 0], into_da[:, 1:3], into_da[:, 1], into_da[:, 3], z_kept
    run = zip(before, h_1, h, after, y, p, *factors, pads, strict=True)
    for h_x, h_1, h, h_new, y_t, p_n, a_n, a_rz, a_r, a_q, z_t, pad in in_order(run, reverse):
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
        h_new[...] = y_t
        subtract(one, rz, less)
        multiply(q_d, less, a_rz)
        multiply(n, n, n)
        subtract(one, n, n)
        multiply(n, less_z, a_n)
        multiply(a_n, r, a_q)
        multiply(a_r, a_q, a_r)
        z_t[...] = z
    return masked(xp, padding, y), (after[0 if reverse else -1],), (padding, reverse, before, into_da, z_kept)


def _backward_numpy(xp, weights, dy, dh, padding, reverse, before, into_da, z_kept):
    """The gradients of a and q take the place of their factors."""
    steps, batch, hidden = dy.shape
    w_hh, times = recurrence.right_factor(weights[1], batch, gaps=True)
    first, (dh, through) = dh, empty((2, batch, hidden), dy.dtype)
    dh[...] = 0 if first is None else first
    blocks = empty((4, batch, hidden), dy.dtype)
    da = into_da.reshape(steps, batch, 4 * hidden)
    if padding is not None:
        into_da *= ~padding[:, None]
        numpy.copyto(z_kept, 1, where=padding)  # z = 1 holds the state
    add, multiply = numpy.add, numpy.multiply
    run = zip(dy, into_da, z_kept, _as_blocks(da, 4), da[:, :, hidden:], strict=True)
    for dy_t, factors, z, da_blocks, into_h in in_order(run, not reverse):
        add(dh, dy_t, dh)
        multiply(dh, factors, blocks)
        multiply(dh, z, through)
        da_blocks[...] = blocks
        times(into_h, w_hh, dh)
        add(dh, through, dh)
    da, bias = rows(da), weights[2] is not None
    return da, dh, recurrence.joined_grads(da[:, : 3 * hidden], da[:, hidden:], before, hidden, bias)


def _as_blocks(a, gates):
    """(..., N, gates H) seen as (..., gates, N, H)."""
    return a.reshape(*a.shape[:-1], gates, a.shape[-1] // gates).swapaxes(-2, -3)
