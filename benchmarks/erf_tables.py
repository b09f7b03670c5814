"""Makes the coefficient tables of mtorch/math/erf.py. Needs mpmath and SciPy: `python benchmarks/erf_tables.py`."""

import numpy
from mpmath import chebyt, cos, erf, erfc, exp, mp, mpf, nstr, pi, sqrt, taylor
from scipy.special import erfcx

mp.dps = 50


def chebyshev(function, degree):
    """Power-series coefficients of the interpolant of `function` at the Chebyshev nodes of [-1, 1]."""
    count = degree + 1
    nodes = [cos(pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    values = [function(node) for node in nodes]
    total = [mpf(0)] * count
    for j in range(count):
        weight = (2 if j else 1) * sum(v * chebyt(j, s) for v, s in zip(values, nodes, strict=True)) / count
        for i, c in enumerate(taylor(lambda s, j=j: chebyt(j, s), 0, j)):
            total[i] += weight * c
    return total


def tail_over_t(v, c=5):
    """Phi(-a) exp(a^2/2) / t with t = c / (c + a) and v = 1 - 2t."""
    t = (1 - v) / 2
    a = c / t - c
    return erfc(a / sqrt(2)) * exp(a * a / 2) / 2 / t


def narrow(p=0.34, degree=7, rounds=4000):
    """Minimax by Lawson's reweighting: 2e-8 of Phi or 1e-5 of the tail, whichever is the smaller demand."""
    a = numpy.concatenate([numpy.linspace(0, 6, 3001), numpy.linspace(6, 15, 600)])
    g = erfcx(a / 2**0.5) / 2
    demand = numpy.maximum(numpy.exp(-a * a / 2) / 2e-8, 1 / (g * 1e-5))
    powers = (1 / (1 + p * a))[:, None] ** numpy.arange(1, degree + 1)
    weight, best = numpy.ones(a.size), (numpy.inf, None)
    for _ in range(rounds):
        scale = demand * numpy.sqrt(weight / weight.sum())
        c = numpy.linalg.lstsq(powers * scale[:, None], g * scale, rcond=None)[0]
        miss = abs(powers @ c - g) * demand
        best = min(best, (miss.max(), c), key=lambda pair: pair[0])
        weight = weight * miss
    return best


if __name__ == "__main__":
    print("wide tail", *(nstr(c, 22) for c in chebyshev(tail_over_t, 27)), sep="\n")
    for name, degree, digits in (("narrow centre", 7, 10), ("wide centre", 14, 22)):
        in_square = chebyshev(lambda s: erf(sqrt((1 + s) / 2)) / sqrt((1 + s) / 2), degree)
        print(name, *(nstr(c, digits) for c in in_square), sep="\n")
    print("narrow tail", *narrow(), sep="\n")
