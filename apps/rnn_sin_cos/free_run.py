"""What the net does beyond the ten steps it was trained on."""

import math
from typing import NamedTuple

import numpy

from mtorch import Sequential
from mtorch.arrays import as_numpy
from mtorch.data import sample_times

PERIODS = 6


class Curves(NamedTuple):
    """time (M,); the steps that were trained; the net's cosine while it reads sine; its sine and cosine alone."""

    time: numpy.ndarray
    trained: int
    reading: numpy.ndarray
    own_sine: numpy.ndarray
    own_cosine: numpy.ndarray


def free_run(net: Sequential) -> Curves:
    """Goes on from the state the net has after its ten steps, for several periods, in two ways.

    Reading: sine is given on. On its own: the next sine is made from the last sine and the net's own cosine, by
    sin(t + d) = sin(t) cos(d) + cos(t) sin(d); nothing comes from outside any more.
    """
    xp = net.xp
    first = sample_times(0, 1)[:, 0]
    d = float(first[1] - first[0])
    time = d * numpy.arange(len(first) + round(PERIODS * 2 * math.pi / d))
    sine = numpy.sin(time).astype(numpy.float32)

    reading = as_numpy(net.predict(xp.asarray(sine[:, None, None])))[:, 0, 0]
    state, own_sine, own_cosine = None, [], []
    for t in range(len(time)):
        s = sine[t] if t < len(first) else own_sine[-1] * math.cos(d) + own_cosine[-1] * math.sin(d)
        cosine, state = net.predict(xp.full((1, 1, 1), s, dtype="float32"), state=state)
        own_sine.append(float(s))
        own_cosine.append(float(as_numpy(cosine)[0, 0, 0]))
    return Curves(time, len(first), reading, numpy.array(own_sine), numpy.array(own_cosine))
