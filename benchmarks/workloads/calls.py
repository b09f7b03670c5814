"""The bare NumPy calls of the time steps of a small GRU and LSTM: those that our bodies make, in their order, on arrays
of the same shapes and gaps that exist already. The products of all steps together are not among them.
"""

from functools import partial
from operator import setitem

import numpy as np


def recurrent(kind: str, size: tuple[int, int, int, int]):
    t, n, d, h = size
    forward, backward = KINDS[kind](n, d, h)
    calls = [partial(*call) for call in [*forward * t, *backward * t]]

    def step():
        for call in calls:
            call()
        return 0.0

    return step


def entries(*shape: int, value: float = 0.5) -> np.ndarray:
    """Numbers with which no step grows beyond all bounds or shrinks to nothing, where processors are slower."""
    return np.full(shape, value, np.float32)


def weights(*shape: int) -> np.ndarray:
    return entries(*shape, value=0.005)


def by_gates(a: np.ndarray, gates: int) -> np.ndarray:
    """(N, gates H) seen as (gates, N, H)."""
    return a.reshape(len(a), gates, -1).swapaxes(0, 1)


def in_pairs(a: np.ndarray) -> np.ndarray:
    """(N, 4 H), gates i, f, g, o, seen as (2, 2, N, H): f, i and o, g."""
    return a.reshape(len(a), 2, 2, -1)[:, :, ::-1].transpose(1, 2, 0, 3)


def gru(n: int, d: int, h: int):
    """Calls of a step forward and of a step backward."""
    dot, matmul, add, subtract, multiply, tanh = np.ndarray.dot, np.matmul, np.add, np.subtract, np.multiply, np.tanh
    half, one = np.full((), 0.5, np.float32), np.ones((), np.float32)
    joined, a, da = entries(n, h + 1 + d), entries(n, 2 * h), entries(n, 4 * h)
    state, slopes = joined[:, :h], entries(2, n, h)
    (r, z), (_, less_z), (q, d_), (p, new) = rz, less, q_d, _ = entries(4, 2, n, h)
    y, before, d_new, d_q, kept, dh, through = entries(7, n, h)
    factors, blocks = entries(4, n, h), entries(4, n, h)
    forward = [
        (dot, joined, weights(h + 1 + d, 2 * h), a),
        (tanh, by_gates(a, 2), rz),
        (multiply, rz, half, rz),
        (add, rz, half, rz),
        (matmul, joined[:, : h + 1], weights(h + 1, h), q),
        (multiply, r, q, new),
        (add, new, p, new),
        (tanh, new, new),
        (subtract, before, new, d_),
        (multiply, d_, z, d_),
        (add, new, d_, y),
        (setitem, state, ..., y),
        (subtract, one, rz, less),
        (multiply, q_d, less, slopes),
        (multiply, new, new, new),
        (subtract, one, new, new),
        (multiply, new, less_z, d_new),
        (multiply, d_new, r, d_q),
        (multiply, slopes[0], d_q, slopes[0]),
        (setitem, kept, ..., z),
    ]
    backward = [
        (add, dh, y, dh),
        (multiply, dh, factors, blocks),
        (multiply, dh, z, through),
        (setitem, by_gates(da, 4), ..., blocks),
        (matmul, da[:, h:], weights(3 * h, h), dh),
        (add, dh, through, dh),
    ]
    return forward, backward


def lstm(n: int, d: int, h: int):
    dot, add, subtract, multiply, tanh = np.ndarray.dot, np.add, np.subtract, np.multiply, np.tanh
    half, one = np.full((), 0.5, np.float32), np.ones((), np.float32)
    joined, a, da = entries(n, h + 1 + d), entries(n, 4 * h), entries(n, 4 * h)
    gates, cells, made, kept, slopes, blocks = (entries(k, n, h) for k in (4, 3, 3, 3, 3, 4))
    (c, g, tanh_c), (fc, ig, y), (f, i, o) = cells, made, kept
    dy, dh, dc, through = entries(4, n, h)
    forward = [
        (dot, joined, weights(h + 1 + d, 4 * h), a),
        (tanh, in_pairs(a), gates.reshape(2, 2, n, h)),
        (multiply, gates[:3], half, gates[:3]),
        (add, gates[:3], half, kept),
        (setitem, g, ..., gates[3]),
        (multiply, kept[:2], cells[:2], made[:2]),
        (add, fc, ig, c),
        (tanh, c, tanh_c),
        (multiply, o, tanh_c, y),
        (setitem, joined[:, :h], ..., y),
        (subtract, one, kept, slopes),
        (multiply, slopes, made, slopes),
        (multiply, made[1:], cells[1:], made[1:]),
        (subtract, kept[1:], made[1:], kept[1:]),
    ]
    backward = [
        (add, dh, dy, dh),
        (multiply, dh, o, through),
        (add, dc, through, dc),
        *((multiply, each, slope, block) for each, slope, block in zip((dc, dc, dh), slopes, blocks, strict=False)),
        (multiply, dc, i, blocks[3]),
        (setitem, in_pairs(da), ..., blocks.reshape(2, 2, n, h)),
        (multiply, dc, f, dc),
        (dot, da, weights(4 * h, h), dh),
    ]
    return forward, backward


KINDS = {"GRU": gru, "LSTM": lstm}
