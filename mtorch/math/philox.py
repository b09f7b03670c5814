"""Philox4x32-10: random bits that are a function of (seed, counter, position), the same on every array module.

One block of four words c = (c0, c1, c2, c3) goes through ten rounds; with P0 = M0 c0 and P1 = M1 c2 (64-bit products)

    c <- (hi(P1) ^ c1 ^ k0,  lo(P1),  hi(P0) ^ c3 ^ k1,  lo(P0)),     then (k0, k1) += (W0, W1) mod 2^32.

Here (c0, c1) is the block's position in a draw, (c2, c3) the number of the draw and (k0, k1) the seed, so a mask is
remembered as two integers, and draws of different numbers never overlap.

The products need 64 bits, so a word is kept in a 64-bit lane; rows (c0, c2) and (c1, c3) share each call, because for
small draws the calls are what costs.

Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from functools import lru_cache
from types import ModuleType
from typing import Any

from mtorch.arrays import Array, device_of, on_device
from mtorch.checks import shown

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = 2**32 - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


@lru_cache(maxsize=256)
def _constants(xp: ModuleType, seed: int, device: Any) -> tuple[Array, Array, Array, list[Array]]:
    """(multipliers, 32, low mask, round keys), rows as in the counters."""
    rounds = [(((seed & LOW) + r * W0) & LOW, ((seed >> 32) + r * W1) & LOW) for r in range(10)]
    with on_device(xp, device):
        columns = xp.asarray([(M0, M1), *rounds], dtype=xp.uint64)[:, :, None]
        return columns[0], xp.asarray(32, dtype=xp.uint64), xp.asarray(LOW, dtype=xp.uint64), list(columns[1:])


def philox(xp: ModuleType, even: Array, odd: Array, seed: int) -> None:
    """Encrypts counters in place: uint64 arrays (c0, c2) and (c1, c3) of shape (2, n), each value below 2^32."""
    multipliers, half, low, keys = _constants(xp, seed, device_of(even))
    products = xp.empty_like(even)
    swapped = products[::-1]
    for key in keys:
        xp.multiply(even, multipliers, out=swapped)
        xp.right_shift(products, half, out=even)
        xp.bitwise_xor(even, odd, out=even)
        xp.bitwise_xor(even, key, out=even)
        xp.bitwise_and(products, low, out=odd)


def seed_and_counter(state: dict[str, int]) -> tuple[int, int]:
    """What a layer's random state says; ValueError unless that is two integers of 64 bits."""
    seed, counter = (state.get("seed"), state.get("counter")) if isinstance(state, dict) else (None, None)
    if type(seed) is type(counter) is int and 0 <= seed < 2**64 and 0 <= counter < 2**63:  # it is counted on
        return seed, counter
    wanted = "a seed below 2**64 and a counter below 2**63, both >= 0"
    raise ValueError(f"a random state is {wanted}, got {shown(state)}")


def random_bits(xp: ModuleType, seed: int, counter: int, n: int) -> Array:
    """The first `n` words (uint32) of draw number `counter`."""
    for name, value in (("seed", seed), ("counter", counter)):
        if not 0 <= value < 2**64:
            raise ValueError(f"Philox expected 0 <= {name} < 2**64, got {value}")
    blocks = -(-n // 4)
    position = xp.arange(blocks, dtype=xp.uint64)
    even, odd = xp.empty((2, blocks), dtype=xp.uint64), xp.empty((2, blocks), dtype=xp.uint64)
    even[0], odd[0] = position & LOW, position >> 32
    even[1], odd[1] = counter & LOW, counter >> 32
    philox(xp, even, odd, seed)
    words = xp.empty((blocks, 4), dtype=xp.uint32)
    words[:, 0::2], words[:, 1::2] = even.T, odd.T
    return words.reshape(-1)[:n]


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
    lanes = random_bits(xp, seed, counter, -(-size // per_word)).view(lane)
    return (lanes[:size] >= threshold).reshape(shape)
