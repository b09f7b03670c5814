"""Initial values, and the random generator they are drawn from.

An initializer is a function `init(rng, shape, fan_in, fan_out)` that returns a float64 array on the host; the functions
here make them: `Linear(784, 128, init=kaiming_normal())`. The layer says how many numbers flow into and out of a unit
(`fans` computes them for torch's weight layout), draws on the host and casts, so that one seed is one network on every
array module and in every dtype. Formulas and defaults are PyTorch's.

`numpy.random` is touched only when a number is drawn: importing it takes as long as importing NumPy.
"""

import math
from collections.abc import Callable

import numpy

from mtorch.arrays import refuse_masked
from mtorch.checks import check_integer, check_number, shown

Initializer = Callable[["numpy.random.Generator", tuple[int, ...], float, float], numpy.ndarray]

_default: "numpy.random.Generator | None" = None


def default_generator() -> "numpy.random.Generator":
    """The generator behind `rng=None`."""
    global _default
    if _default is None:
        _default = numpy.random.default_rng()
    return _default


def seed(n: int) -> None:
    """Starts the default generator anew from `n`; layers and loaders that already hold it go on from there too."""
    n = check_integer("seed", "a seed", n, least=0, wanted="an int")
    default_generator().bit_generator.state = as_generator(n).bit_generator.state


def as_generator(rng: "int | numpy.random.Generator | None" = None, who: str = "") -> "numpy.random.Generator":
    """The generator itself, a new one seeded with the int, or the default one for None. who: named in errors."""
    if rng is None:
        return default_generator()
    if isinstance(rng, numpy.random.Generator):
        return rng
    wanted = "an int, a numpy.random.Generator or None"
    return numpy.random.default_rng(check_integer(f"{who} rng".lstrip(), "a seed", rng, least=0, wanted=wanted))


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...): each times the number of taps that the trailing axes hold."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"fans expected the shape of a weight, got {shown(shape)}")
    shape = tuple(check_integer("fans", "a shape of sizes", size, least=0) for size in shape)
    if not 2 <= len(shape) <= 64:
        raise ValueError(f"fans expected a weight of at least two axes, got shape {shown(shape)}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def draw(
    who: str, init: Initializer, rng: "numpy.random.Generator", shape: tuple[int, ...], fan_in: int, fan_out: int
) -> numpy.ndarray:
    """init(rng, shape, fan_in, fan_out), with an error in the name of `who` where `init` is not such a function."""
    if not callable(init):
        raise TypeError(f"{who} expected a function from mtorch.initializers as init, got {shown(init)}")
    try:
        weight = init(rng, shape, fan_in, fan_out)
    except TypeError as error:
        wanted = "a function of (rng, shape, fan_in, fan_out) as init, such as orthogonal()"
        raise TypeError(f"{who} expected {wanted}, got {shown(init)}: {error}") from error
    refuse_masked(weight, f"{who} init:")
    if getattr(weight, "shape", ()) != shape or weight.dtype.kind not in "fiu":
        got = f"{weight.dtype} {weight.shape}" if hasattr(weight, "dtype") else repr(weight)
        raise ValueError(f"{who} expected init to return an array of shape {shape}, got {got}")
    return weight


_GAINS = {"linear": 1.0, "conv": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": 2**0.5, "selu": 0.75}


def gain(nonlinearity: str, a: float = 0.01) -> float:
    """The factor on the standard deviation that keeps the variance through the nonlinearity.

    ReLU halves the second moment, hence sqrt(2); LeakyReLU of slope a leaves (1 + a^2) / 2 of it.
    """
    return _gain("gain", nonlinearity, a)


def _gain(who: str, nonlinearity: str, a: float) -> float:
    if isinstance(nonlinearity, str) and nonlinearity == "leaky_relu":
        a = check_number(who, "a", a)
        return math.sqrt(2 / (1 + a * a))
    if not isinstance(nonlinearity, str) or nonlinearity not in _GAINS:
        known = ", ".join(sorted([*_GAINS, "leaky_relu"]))
        raise ValueError(f"{who} expected a nonlinearity out of {known}, got {shown(nonlinearity)}")
    return _GAINS[nonlinearity]


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """N(mean, std^2)."""
    mean, std = check_number("normal", "mean", mean), abs(check_number("normal", "std", std, least=0))  # -0.0 is 0
    return lambda rng, shape, fan_in, fan_out: rng.normal(mean, std, shape)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """U(low, high)."""
    low = check_number("uniform", "low", low)
    high = check_number("uniform", "high", high, least=low) + 0.0  # -0.0 is 0
    return lambda rng, shape, fan_in, fan_out: rng.uniform(low, high, shape)


def constant(value: float) -> Initializer:
    """The same number everywhere."""
    value = check_number("constant", "value", value)
    return lambda rng, shape, fan_in, fan_out: numpy.full(shape, value, dtype="float64")


def coe(coe: float = 1.0) -> Initializer:
    """N(0, coe / fan_in), the original mtorch's."""
    coe = check_number("coe", "coe", coe, above=0)
    return lambda rng, shape, fan_in, fan_out: rng.normal(0.0, math.sqrt(coe / _flow("coe", fan_in)), shape)


def xavier_normal(gain: float = 1.0) -> Initializer:
    """N(0, s^2) with s = gain * sqrt(2 / (fan_in + fan_out)), which halves the wish of both directions.

    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    return _by_spread("xavier_normal", gain, lambda fan_in, fan_out: (fan_in + fan_out) / 2, _normal)


def xavier_uniform(gain: float = 1.0) -> Initializer:
    """As `xavier_normal`, with the uniform distribution of that variance: the bound is s * sqrt(3)."""
    return _by_spread("xavier_uniform", gain, lambda fan_in, fan_out: (fan_in + fan_out) / 2, _uniform)


def kaiming_normal(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Initializer:
    """N(0, s^2) with s = gain(nonlinearity, a) / sqrt(fan), the fan of the direction that `mode` names.

    He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.
    """
    return _by_spread("kaiming_normal", _gain("kaiming_normal", nonlinearity, a), _fan("kaiming_normal", mode), _normal)


def kaiming_uniform(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Initializer:
    """As `kaiming_normal`, with the uniform distribution of that variance: the bound is s * sqrt(3).

    With a = sqrt(5) this is U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what PyTorch's own layers start from.
    """
    return _by_spread(
        "kaiming_uniform", _gain("kaiming_uniform", nonlinearity, a), _fan("kaiming_uniform", mode), _uniform
    )


def orthogonal(gain: float = 1.0) -> Initializer:
    """gain * Q, where Q as a matrix (out, everything else) has orthonormal rows or columns, whichever are fewer.

    Q is that of a QR decomposition of normal numbers; with the signs of R's diagonal moved into it, all orthogonal
    matrices are equally likely. Saxe, McClelland & Ganguli, "Exact solutions ...", 2014, arXiv:1312.6120.
    """
    gain = check_number("orthogonal", "gain", gain)

    def init(rng: "numpy.random.Generator", shape: tuple[int, ...], fan_in: float, fan_out: float) -> numpy.ndarray:
        if len(shape) < 2:
            raise ValueError(f"orthogonal expected a weight of at least two axes, got shape {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = numpy.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q *= numpy.where(numpy.diag(r) < 0, -gain, gain)
        return (q if rows >= columns else q.T).reshape(shape)

    return init


def _by_spread(name: str, gain: float, fan: Callable[[float, float], float], draw: Callable) -> Initializer:
    gain = check_number(name, "gain", gain)
    return lambda rng, shape, fan_in, fan_out: draw(rng, gain / math.sqrt(_flow(name, fan(fan_in, fan_out))), shape)


def _normal(rng: "numpy.random.Generator", spread: float, shape: tuple[int, ...]) -> numpy.ndarray:
    return rng.normal(0.0, abs(spread), shape)


def _uniform(rng: "numpy.random.Generator", spread: float, shape: tuple[int, ...]) -> numpy.ndarray:
    bound = abs(spread) * math.sqrt(3)
    return rng.uniform(-bound, bound, shape)


def _fan(who: str, mode: str) -> Callable[[float, float], float]:
    if not isinstance(mode, str) or mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{who} expected mode 'fan_in' or 'fan_out', got {shown(mode)}")
    return lambda fan_in, fan_out: fan_in if mode == "fan_in" else fan_out


def _flow(name: str, fan: float) -> float:
    if not 0 < fan < math.inf:
        raise ValueError(f"{name} expected fans > 0, got {shown(fan)}")
    return fan
