"""The normal distribution function and erf, for float32, float64 and longdouble, in operations every array module has.

One smooth function of a = |x| serves the whole axis, the tail Phi(-a) = exp(-a^2/2) g(a), where g falls from 1/2 like
1/a. In t = c / (c + a), which maps [0, inf) to (0, 1], g(a) = t P(t) with a polynomial P:

    Phi(x) = 1 - Phi(-a)  for x > 0,   Phi(-a)  else;        erf(x) = sign(x) (1 - 2 Phi(-sqrt(2) a)).

The tail keeps its relative accuracy; near 0, where 1 - 2 Phi cancels, erf is x C(x^2) instead.

The tables were made by `benchmarks/erf_tables.py`: for wide types Chebyshev interpolation of g/t in 1 - 2t at 50 digits
(c = 5, degree 27, relative error 1e-19); for float32 the minimax fit in t to 2e-8 of Phi or 1e-5 of the tail, whichever
asks less (1/c = 0.34, degree 7). The form is that of Hastings, "Approximations for Digital Computers", 1955.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy

from mtorch.arrays import Array

NARROW_TAIL = "0.1359269 0.13082566 0.15199147 -0.02095784 0.2529104 -0.19396195 0.04326535"
NARROW_CENTRE = """
    0.9654687386 -0.140536089 0.01985249772 -0.002285485612 0.0002175119906 -1.753691418e-5
    1.231639598e-6 -7.552378571e-8
"""
WIDE_TAIL = """
    0.1538386099500125919256 -0.1330765005780113704179 0.09906112319399520648329
    -0.06270663133425746038132 0.03300407323408195259087 -0.01382372774137744394915
    0.004159013359838679413128 -0.0005986753523306665574133 -0.0001595738776741701548981
    0.0001089797980338299587647 -0.00001187516305655214284609 -0.000009952487633265433774983
    0.000003336336947999120420965 7.959455735099314292592e-7 -5.541793639476159536947e-7
    -6.687354442908187435719e-8 8.735349486515110073119e-8 7.969085046366248587478e-9
    -1.420165116072254711782e-8 -1.656394014750576859598e-9 2.364496803437963871243e-9
    4.416251574773066615407e-10 -3.764355235249968044739e-10 -1.08389089976966482357e-10
    4.91870246180777097148e-11 1.962843950615107119577e-11 -3.730500788567140212027e-12
    -1.864974899837868599892e-12
"""
WIDE_CENTRE = """
    0.9654687386698673083227 -0.1405360890227171209826 0.01985249668898370744177
    -0.002285485561144067300783 0.0002175171560415977932806 -0.00001753716944149210010766
    0.00000122338273837207462834 -7.511569160678144311608e-8 4.115800541454470325839e-9
    -2.035249392023687439087e-10 9.167689188119806603777e-12 -3.791093040150038144923e-13
    1.448821290500775846113e-14 -5.166061346551405774431e-16 1.713081554907913969202e-17
"""


class Table(NamedTuple):
    limit: float  # exp(-limit^2/2) is 0 in this precision
    c: Any
    centred: bool  # the tail's polynomial is in 1 - 2t, else in t
    tail: tuple[Any, ...]
    centre: tuple[Any, ...]  # in 2x^2 - 1
    density: Any  # 1 / sqrt(2 pi)
    root: Any  # sqrt(2)


def _table(number: Any, limit: float, c: str, centred: bool, tail: str, centre: str) -> Table:
    density, root = number("0.39894228040143267793995"), number("1.41421356237309504880169")
    in_tail, in_centre = (tuple(number(text) for text in part.split()) for part in (tail, centre))
    return Table(limit, number(c), centred, in_tail, in_centre, density, root)


_NARROW = _table(float, 15.0, str(1 / 0.34), False, NARROW_TAIL, NARROW_CENTRE)
_WIDE = _table(float, 40.0, "5", True, WIDE_TAIL, WIDE_CENTRE)
_LONG = _table(numpy.longdouble, 160.0, "5", True, WIDE_TAIL, WIDE_CENTRE)


def table_for(dtype: Any) -> Table:
    """The constants for a floating dtype; they do not widen its arrays."""
    return _NARROW if dtype.itemsize <= 4 else _WIDE if dtype.itemsize == 8 else _LONG


def _polynomial(x: Array, coefficients: tuple[Any, ...]) -> Array:
    y = coefficients[-1] * x
    for c in coefficients[-2:0:-1]:
        y += c
        y *= x
    return y + coefficients[0]


def normal_tail(xp: ModuleType, x: Array) -> Array:
    """Phi(-|x|) to full relative accuracy."""
    table = table_for(x.dtype)
    a = xp.absolute(xp.clip(x, -table.limit, table.limit))  # a^2 must not overflow
    t = table.c / (table.c + a)
    p = _polynomial(1 - 2 * t if table.centred else t, table.tail)
    return xp.exp(-0.5 * (a * a)) * t * p


def normal_density(xp: ModuleType, x: Array) -> Array:
    """phi(x) = exp(-x^2/2) / sqrt(2 pi), the standard normal density."""
    table = table_for(x.dtype)
    x = xp.clip(x, -table.limit, table.limit)
    return table.density * xp.exp(-0.5 * (x * x))


def normal_cdf(xp: ModuleType, x: Array) -> Array:
    """Phi(x), the standard normal distribution function."""
    q = normal_tail(xp, x)
    return xp.where(x > 0, 1 - q, q)


def erf(xp: ModuleType, x: Array) -> Array:
    """The error function."""
    table = table_for(x.dtype)
    near = xp.clip(x, -1, 1)
    centre = near * _polynomial(2 * near * near - 1, table.centre)
    q = normal_tail(xp, xp.clip(x, -table.limit, table.limit) * table.root)
    return xp.where(xp.absolute(x) < 1, centre, xp.copysign(1 - 2 * q, x))
