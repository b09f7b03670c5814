"""Philox4x32-10: random bits that are a function of (seed, counter, position), the same on every array module.

One block of four words c = (c0, c1, c2, c3) goes through ten rounds; with P0 = M0 c0 and P1 = M1 c2 (64-bit products)

    c <- (hi(P1) ^ c1 ^ k0,  lo(P1),  hi(P0) ^ c3 ^ k1,  lo(P0)),     then (k0, k1) += (W0, W1) mod 2^32.

Here (c0, c1) is the block's position in a draw, (c2, c3) the number of the draw and (k0, k1) the seed, so a mask is
remembered as two integers, and draws of different numbers never overlap.

Words are kept in 64-bit lanes, which the products need; the rounds work in place, on NumPy in blocks that stay in
cache. Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, is_numpy

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio
HOST_BLOCKS = 6144  # six 64-bit arrays of this size and the words fit a 512 kB cache


def philox(xp: ModuleType, c0: Array, c1: Array, c2: Array, c3: Array, seed: int) -> None:
    """Encrypts the counter words in place: four uint64 arrays of one shape, each value below 2^32."""
    k0, k1 = seed & LOW, seed >> 32
    p0, p1 = xp.empty_like(c0), xp.empty_like(c0)
    for _ in range(10):
        xp.multiply(c0, M0, out=p0)
        xp.multiply(c2, M1, out=p1)
        xp.right_shift(p1, 32, out=c0)
        xp.bitwise_xor(c0, c1, out=c0)
        xp.bitwise_xor(c0, k0, out=c0)
        xp.right_shift(p0, 32, out=c2)
        xp.bitwise_xor(c2, c3, out=c2)
        xp.bitwise_xor(c2, k1, out=c2)
        xp.bitwise_and(p1, LOW, out=c1)
        xp.bitwise_and(p0, LOW, out=c3)
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW


def _draw(xp: ModuleType, seed: int, counter: int, words: int) -> Iterator[tuple[int, Array]]:
    """Pieces (first word's position, uint32 words) of draw number `counter`; a piece is valid until the next one."""
    for name, value in (("seed", seed), ("counter", counter)):
        if not 0 <= value < 2**64:
            raise ValueError(f"Philox expected 0 <= {name} < 2**64, got {value}")
    blocks = -(-words // 4)
    step = min(blocks, HOST_BLOCKS) if is_numpy(xp) else blocks
    piece = xp.empty((step, 4), dtype=xp.uint32)
    for start in range(0, blocks, max(step, 1)):
        count = min(step, blocks - start)
        position = xp.arange(start, start + count, dtype=xp.uint64)
        c = [position & LOW, position >> 32, *(xp.full(count, part, dtype=xp.uint64) for part in _halves(counter))]
        philox(xp, *c, seed)
        for j in range(4):
            piece[:count, j] = c[j]
        yield 4 * start, piece[:count].reshape(-1)


def _halves(counter: int) -> tuple[int, int]:
    return counter & LOW, counter >> 32


def random_bits(xp: ModuleType, seed: int, counter: int, n: int) -> Array:
    """The first `n` words (uint32) of draw number `counter`."""
    out = xp.empty(n, dtype=xp.uint32)
    for start, words in _draw(xp, seed, counter, n):
        out[start : start + words.size] = words[: n - start]
    return out


def uniform(xp: ModuleType, shape: tuple[int, ...], seed: int, counter: int, dtype: Any = "float32") -> Array:
    """Multiples of 2^-24 (one word each; 2^-53 from two words for wider types), uniform in [0, 1)."""
    n = math.prod(shape)
    if xp.dtype(dtype).itemsize <= 4:
        return ((random_bits(xp, seed, counter, n) >> 8).astype(dtype) * 2.0**-24).reshape(shape)
    words = random_bits(xp, seed, counter, 2 * n)
    high, low = (words[0::2] >> 5).astype(dtype), (words[1::2] >> 6).astype(dtype)
    return ((high * 2.0**26 + low) * 2.0**-53).reshape(shape)


def keep_mask(xp: ModuleType, shape: tuple[int, ...], p: float, seed: int, counter: int) -> Array:
    """Booleans, each False with probability p independently: a dropout mask.

    An element costs a lane of 8, 16 or 32 bits, compared with p 2^bits: 8 where that is an integer; 16 for the other
    0.01 <= p <= 0.99, where the threshold floor(p 2^16 + u) with u = counter / golden ratio mod 1 differs from p by
    less than 2^-16 in one draw and not at all in the mean over draws; else 32.
    """
    bits = 8 if p * 256 == int(p * 256) else 16 if 0.01 <= p <= 0.99 else 32
    threshold = int(p * 2**bits + counter * GOLDEN % 2**64 / 2**64)
    if threshold == 0 or threshold >= 2**bits:
        return xp.full(shape, threshold == 0, dtype=bool)
    lane, per_word = {8: xp.uint8, 16: xp.uint16, 32: xp.uint32}[bits], 32 // bits
    size = math.prod(shape)
    out = xp.empty(size, dtype=bool)
    for start, words in _draw(xp, seed, counter, -(-size // per_word)):
        part = out[start * per_word : (start + words.size) * per_word]
        xp.greater_equal(words.view(lane)[: part.size], threshold, out=part)
    return out.reshape(shape)
