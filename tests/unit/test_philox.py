"""Philox against the known answers of Random123, and what is built on it."""

import math

import numpy
import pytest

from mtorch.math import philox
from mtorch.math.philox import keep_mask, random_bits, uniform

KNOWN_ANSWERS = [  # counter words, key words, answer (kat_vectors of Random123)
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def in_integers(counter, key):
    """The same ten rounds in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = philox.M0 * c0, philox.M1 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + philox.W0) % 2**32, (k1 + philox.W1) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, answer):
    even, odd = (numpy.repeat(numpy.array(counter[i::2], dtype=numpy.uint64)[:, None], 3, axis=1) for i in (0, 1))
    philox.philox(numpy, even, odd, key[0] | key[1] << 32)
    assert in_integers(counter, key) == answer
    for i, expected in enumerate(answer):
        assert (odd if i % 2 else even)[i // 2].tolist() == [expected] * 3


def test_words_are_numbered_by_block_and_by_draw():
    seed, counter = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    n = 25_002
    words = random_bits(numpy, seed, counter, n)
    assert words.dtype == numpy.uint32 and words.shape == (n,)
    for i in (0, 1, n - 11, n - 10, n - 1):
        block = in_integers((i // 4, 0, counter & 0xFFFFFFFF, counter >> 32), (seed & 0xFFFFFFFF, seed >> 32))
        assert words[i] == block[i % 4]
    assert (random_bits(numpy, seed, counter, 7) == words[:7]).all()
    assert random_bits(numpy, seed, counter, 0).shape == (0,)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"seed": 2**64}, {"counter": -1}, {"counter": 2**64}])
def test_seed_and_counter_are_64_bit(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        random_bits(numpy, **({"seed": 0, "counter": 0, "n": 1} | bad))


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_uniform_numbers_have_the_moments_of_the_unit_interval(dtype):
    u = uniform(numpy, (200, 500), 3, 4, dtype)
    assert u.dtype == numpy.dtype(dtype) and 0 <= u.min() and u.max() < 1
    assert abs(float(u.mean()) - 1 / 2) < 4 * math.sqrt(1 / 12 / u.size)
    assert abs(float(u.var()) - 1 / 12) < 4 * math.sqrt(1 / 180 / u.size)


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.999, 1.0])
def test_a_mask_drops_each_element_with_probability_p_independently(p):
    masks = numpy.stack([keep_mask(numpy, (300, 401), p, 11, counter) for counter in (0, 1)])
    assert masks.dtype == bool
    sigma = math.sqrt(p * (1 - p) / masks.size)
    dropped = ~masks
    assert abs(dropped.mean() - p) <= 4 * sigma
    both = [dropped[0] & dropped[1], dropped[:, :, 1:] & dropped[:, :, :-1], dropped[:, 1:] & dropped[:, :-1]]
    for pairs in both:  # other draw, other column, other row
        assert abs(pairs.mean() - p * p) <= 5 * math.sqrt(p * p * (1 - p * p) / pairs.size) + 1e-12


def test_the_threshold_of_16_bits_is_right_in_the_mean_over_draws(monkeypatch):
    """Counts what the comparison would drop among all 65536 lanes, for many draws."""
    lanes = numpy.arange(2**16, dtype=numpy.uint16)
    monkeypatch.setattr(philox, "random_bits", lambda xp, seed, counter, words: lanes.view(numpy.uint32))
    kept = [keep_mask(numpy, (2**16,), 0.1, 0, counter).sum() for counter in range(1000)]
    assert len(set(kept)) == 2
    assert abs(sum(kept) / 1000 / 2**16 - 0.9) < 2**-16 / 500
    golden_ratio = (1 + math.sqrt(5)) / 2
    assert kept == [2**16 - int(0.1 * 2**16 + counter / golden_ratio % 1) for counter in range(1000)]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (5, 7, 2)])
def test_masks_come_in_any_shape(shape):
    for p in (0.5, 0.3, 0.001, 0.0, 1.0):
        assert keep_mask(numpy, shape, p, 0, 0).shape == shape
        assert uniform(numpy, shape, 0, 0).shape == shape


def test_numbers_are_the_documented_function_of_the_words():
    words = random_bits(numpy, 5, 6, 14)
    assert (uniform(numpy, (7, 2), 5, 6, "float32").ravel() == (words >> 8) * 2.0**-24).all()
    wide = ((words[0::2] >> 5) * 2.0**26 + (words[1::2] >> 6)) * 2.0**-53
    for dtype in ("float64", "longdouble"):
        assert (uniform(numpy, (7,), 5, 6, dtype) == wide).all()


@pytest.mark.parametrize("p, lane", [(0.25, "uint8"), (0.3, "uint16"), (0.01, "uint16"), (0.99, "uint16"),
                                     (0.00999, "uint32"), (0.9901, "uint32")])  # fmt: skip
def test_masks_are_the_documented_function_of_the_words(p, lane):
    """So a run that goes on from a checkpoint draws the masks it would have drawn, on any machine."""
    lanes = random_bits(numpy, 5, 0, 4000).view(lane)
    threshold = int(p * 2 ** (8 * lanes.itemsize))
    assert (keep_mask(numpy, lanes.shape, p, 5, 0) == (lanes >= threshold)).all()
