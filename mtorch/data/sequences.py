"""Sine sequences for recurrent nets; time comes first, (T, N, 1), float32."""

import math
from typing import Any

import numpy

from mtorch.checks import check_memory, check_number, check_size
from mtorch.initializers import as_generator


def sine_cosine(first: int = 0, count: int = 32, steps: int = 10) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The sine of samples first … first + count - 1 and, as its target, the cosine: two arrays (T, N, 1).

    They are taken at `sample_times`. Sine alone at one moment does not tell the sign of cosine, so that the best
    guess for the first step is 0: half of cosine's square remains, 0.5 / T of the mean squared error.
    """
    times = _times("sine_cosine", first, count, steps)[..., None]
    return numpy.sin(times).astype(numpy.float32), numpy.cos(times).astype(numpy.float32)


def sample_times(first: int = 0, count: int = 32, steps: int = 10) -> numpy.ndarray:
    """(T, N) float64: sample i is T equally spaced points, both ends included, of [i, i + 1] · 13π/11.

    After 22 samples, 13 periods of sine, the samples repeat.
    """
    return _times("sample_times", first, count, steps)


def _times(who: str, first: int, count: int, steps: int) -> numpy.ndarray:
    first, count = check_size(who, "first", first, 0), check_size(who, "count", count)
    steps = check_size(who, "steps", steps, 2)
    check_memory(who, count * steps, count=count, steps=steps)
    return (first + numpy.arange(count, dtype=float) + numpy.linspace(0, 1, steps)[:, None]) * (13 * math.pi / 11)


def noisy_sine(
    points: int = 300, noise: float = 0.1, window: int = 4, rng: Any = None
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """One period of a sine with noise, and as targets the point that follows each window of it.

    points: equally spaced on [0, 2π], both ends included.  noise: the standard deviation of what is added to each.
    Returns windows (T = window, N = points - window, 1), the noisy next points (N, 1), and these without noise (N, 1).

    With 300 points, noise 0.1 and windows of 4 even one who knows the sine is off by 0.058 (root mean square) from the
    noise-free next point, and thus by 0.115 from the noisy one.
    """
    points, window = check_size("noisy_sine", "points", points), check_size("noisy_sine", "window", window)
    check_memory("noisy_sine", points * window, points=points, window=window)
    if window >= points:
        raise ValueError(f"noisy_sine expected window < points, got a window of {window} and {points} points")
    noise = check_number("noisy_sine", "noise", noise, least=0)
    clean = numpy.sin(numpy.linspace(0, 2 * math.pi, points))
    noisy = clean + noise * as_generator(rng, "noisy_sine").standard_normal(points)
    windows = numpy.lib.stride_tricks.sliding_window_view(noisy[:-1], window).T[..., None]
    parts = windows, noisy[window:, None], clean[window:, None]
    given, following, without_noise = (numpy.ascontiguousarray(part, numpy.float32) for part in parts)
    return given, following, without_noise
