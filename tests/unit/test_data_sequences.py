"""Sine sequences for the recurrent apps."""

import math

import numpy
import pytest

from mtorch.data import noisy_sine, sample_times, sine_cosine


def test_sample_i_is_ten_points_of_i_to_i_plus_1_times_13_pi_over_11():
    sine, cosine = sine_cosine()
    assert sine.shape == cosine.shape == (10, 32, 1) and sine.dtype == cosine.dtype == numpy.float32
    for i in (0, 7, 31):
        times = numpy.linspace(i * 13 * math.pi / 11, (i + 1) * 13 * math.pi / 11, 10)
        numpy.testing.assert_allclose(sine[:, i, 0], numpy.sin(times), atol=1e-6)
        numpy.testing.assert_allclose(cosine[:, i, 0], numpy.cos(times), atol=1e-6)
    numpy.testing.assert_allclose(sample_times(0, 2)[-1, 0], sample_times(0, 2)[0, 1])


def test_first_count_and_steps_choose_the_samples():
    sine, _ = sine_cosine(first=5, count=3, steps=4)
    assert sine.shape == (4, 3, 1)
    numpy.testing.assert_array_equal(sine[:, 1:], sine_cosine(6, 2, 4)[0])
    numpy.testing.assert_allclose(sine_cosine(22, 22)[0], sine_cosine(0, 22)[0], atol=1e-5)


def test_the_sign_of_cosine_cannot_be_known_at_the_first_step():
    """Each first sine belongs to two samples of opposite cosine, so that 0.5 / 10 is the floor of the error."""
    sine, cosine = (x[0, :, 0].astype(float) for x in sine_cosine(0, 22))
    order = numpy.argsort(numpy.round(sine, 4), kind="stable")
    numpy.testing.assert_allclose(sine[order[0::2]], sine[order[1::2]], atol=1e-6)
    numpy.testing.assert_allclose(cosine[order[0::2]], -cosine[order[1::2]], atol=1e-6)
    assert numpy.square(cosine).mean() / 10 == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("options", [{"first": -1}, {"count": 0}, {"steps": 1}, {"count": 2.0}, {"count": True}])
def test_wrong_counts_are_refused_by_name(options):
    kind = ValueError if type(options[next(iter(options))]) is int else TypeError
    with pytest.raises(kind, match=f"sine_cosine expected .*{next(iter(options))}"):
        sine_cosine(**options)


def test_noisy_sine_gives_windows_and_the_next_points():
    windows, noisy, clean = noisy_sine(rng=0)
    assert windows.shape == (4, 296, 1) and noisy.shape == clean.shape == (296, 1)
    assert {x.dtype.name for x in (windows, noisy, clean)} == {"float32"}
    assert all(x.flags.c_contiguous and x.flags.writeable for x in (windows, noisy, clean))
    numpy.testing.assert_array_equal(windows[3, 1:], noisy[:-1])
    numpy.testing.assert_array_equal(windows[0, 3:], windows[3, :-3])
    numpy.testing.assert_allclose(clean[:, 0], numpy.sin(numpy.linspace(0, 2 * numpy.pi, 300))[4:], atol=1e-6)


def test_the_noise_has_the_deviation_that_was_asked_for_and_comes_from_the_generator():
    _, noisy, clean = noisy_sine(points=20_000, rng=1)
    assert (noisy - clean).std() == pytest.approx(0.1, rel=0.03)
    assert (noisy_sine(rng=1)[1] == noisy_sine(rng=numpy.random.default_rng(1))[1]).all()
    assert (noisy_sine(rng=1)[1] != noisy_sine(rng=2)[1]).any()
    _, silent, clean = noisy_sine(noise=0, rng=0)
    assert (silent == clean).all()


def test_who_knows_the_sine_is_still_off_by_the_floor():
    """The best guess is the mean over all phases, weighted by how well each explains the four points."""
    windows, noisy, clean = noisy_sine(points=300, rng=0)
    phases = numpy.linspace(0, 2 * numpy.pi, 400, endpoint=False)[:, None] + numpy.arange(5) * (2 * numpy.pi / 299)
    curves = numpy.sin(phases)
    guesses, truth, heard = [], [], []
    for seed in range(20):
        windows, noisy, clean = noisy_sine(rng=seed)
        error = numpy.square(windows[:, :, 0].T[:, None, :] - curves[:, :4]).sum(axis=2)
        weight = numpy.exp(-(error - error.min(axis=1, keepdims=True)) / (2 * 0.1**2))
        guesses.append(weight @ curves[:, 4] / weight.sum(axis=1))
        truth.append(clean[:, 0])
        heard.append(noisy[:, 0])
    guesses = numpy.concatenate(guesses)
    assert numpy.sqrt(numpy.square(guesses - numpy.concatenate(truth)).mean()) == pytest.approx(0.058, abs=0.002)
    assert numpy.sqrt(numpy.square(guesses - numpy.concatenate(heard)).mean()) == pytest.approx(0.115, abs=0.003)


WRONG = {
    "points": [2.5, "3", None, True, -1, 4],
    "window": [2.5, "3", None, True, 0, 300],
    "noise": ["a", None, True, -0.1, math.nan, math.inf],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_sizes_and_noise_are_refused_by_name(name, value):
    number = int if name != "noise" else float
    with pytest.raises(ValueError if type(value) is number else TypeError, match=f"noisy_sine expected .*{name}"):
        noisy_sine(**{name: value})
