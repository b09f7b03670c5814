"""Activations: golden numbers (mpmath, 40 digits), extremes, kinks and refused arguments."""

import math
import re

import numpy
import pytest

import mtorch
from mtorch import Parameter, Sequential, ShapeMismatchError, layers
from mtorch.layers.activation import Activation
from mtorch.math.logistic import sigmoid
from mtorch.testing import check_gradients

D = "float64"
X = [-12.5, -3, -0.75, 0.125, 0.5, 2, 9]
GOLDEN = [  # layer, values at X, derivatives at X
    (
        layers.Sigmoid(dtype=D),
        [
            3.7266392841865614e-6,
            0.047425873177566781,
            0.32082130082460703,
            0.53120937337375626,
            0.62245933120185456,
            0.88079707797788244,
            0.99987660542401377,
        ],
        [
            3.7266253963462069e-6,
            0.045176659730912133,
            0.21789499376181403,
            0.24902597501361747,
            0.23500371220159449,
            0.10499358540350652,
            0.00012337934976484891,
        ],
    ),
    (
        layers.Tanh(dtype=D),
        [
            -0.99999999997222411,
            -0.99505475368673045,
            -0.63514895238728732,
            0.12435300177159621,
            0.46211715726000976,
            0.96402758007581688,
            0.99999996954004097,
        ],
        [
            5.5551775458313083e-11,
            0.0098660371654401913,
            0.59658580828133143,
            0.98453633095039339,
            0.78644773296592741,
            0.070650824853164466,
            6.0919917123232292e-8,
        ],
    ),
    (
        layers.LeakyReLU(negative_slope=0.25, dtype=D),
        [-3.125, -0.75, -0.1875, 0.125, 0.5, 2.0, 9.0],
        [0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0],
    ),
    (
        layers.ELU(dtype=D),
        [-0.99999627334682792, -0.95021293163213606, -0.52763344725898529, 0.125, 0.5, 2.0, 9.0],
        [3.726653172078671e-6, 0.049787068367863943, 0.47236655274101471, 1.0, 1.0, 1.0, 1.0],
    ),
    (
        layers.ELU(alpha=0.5, dtype=D),
        [-0.49999813667341396, -0.47510646581606803, -0.26381672362949265, 0.125, 0.5, 2.0, 9.0],
        [1.8633265860393355e-6, 0.024893534183931971, 0.23618327637050735, 1.0, 1.0, 1.0, 1.0],
    ),
    (
        layers.GELU(dtype=D),
        [
            -4.6657053735971417e-35,
            -0.0040496940948902836,
            -0.16997051428265115,
            0.068717278103764112,
            0.34573123063700655,
            1.9544997361036416,
            9.0,
        ],
        [
            -5.8316685544801554e-34,
            -0.011945647204183927,
            0.00077427826076489563,
            0.59921793569820658,
            0.86749512465616284,
            1.0852318010781969,
            1.0,
        ],
    ),
    (
        layers.GELU(approximate="tanh", dtype=D),
        [
            0.0,
            -0.0036373920817730188,
            -0.1700394448343797,
            0.068717198624223388,
            0.34571400982514392,
            1.954597694087775,
            9.0,
        ],
        [
            6.4815971715788967e-70,
            -0.011584166630969726,
            0.0010617438625857023,
            0.59921540616279144,
            0.86736990353464231,
            1.0860992566236184,
            1.0,
        ],
    ),
    (
        layers.SiLU(dtype=D),
        [
            -4.6582991052332017e-5,
            -0.14227761953270034,
            -0.24061597561845527,
            0.066401171671719532,
            0.31122966560092728,
            1.7615941559557649,
            8.9988894488161239,
        ],
        [
            -4.2856178170141025e-5,
            -0.088104106015169617,
            0.1574000555032465,
            0.56233762025045844,
            0.73996118730265181,
            1.0907842487848955,
            1.0009870195718974,
        ],
    ),
    (
        layers.Softplus(dtype=D),
        [
            3.7266462281239903e-6,
            0.048587351573742059,
            0.38687100611489994,
            0.75759903531716907,
            0.97407698418010668,
            2.1269280110429725,
            9.0001234021897233,
        ],
        [
            3.7266392841865614e-6,
            0.047425873177566781,
            0.32082130082460703,
            0.53120937337375626,
            0.62245933120185456,
            0.88079707797788244,
            0.99987660542401377,
        ],
    ),
    (
        layers.Hardtanh(dtype=D),
        [-1.0, -1.0, -0.75, 0.125, 0.5, 1.0, 1.0],
        [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    ),
]
ALL = [layers.ReLU, *{type(layer) for layer, _, _ in GOLDEN}, layers.Softmax, layers.LogSoftmax]
ALL = sorted(ALL, key=lambda cls: cls.__name__)


def value_and_slope(layer, x):
    y = layer(x)
    return y, layer.backward(numpy.ones_like(y))


@pytest.mark.parametrize("layer, values, slopes", GOLDEN, ids=lambda value: repr(value) if callable(value) else "")
def test_values_and_derivatives_are_the_golden_numbers(layer, values, slopes):
    y, dy = value_and_slope(layer, numpy.array(X))
    assert y == pytest.approx(values, rel=2e-14, abs=1e-15)
    assert dy == pytest.approx(slopes, rel=1e-14, abs=4e-16)
    narrow = layer.to(dtype="float32")
    y, dy = value_and_slope(narrow, numpy.array(X, dtype="float32"))
    assert y.dtype == dy.dtype == numpy.float32
    assert y == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert dy == pytest.approx(slopes, rel=1e-5, abs=3e-7)


def test_softmax_and_its_logarithm_are_the_golden_numbers():
    x, y = numpy.log(numpy.array([[1.0, 2.0, 5.0]])), numpy.array([[1, 2, 5]]) / 8
    g = numpy.array([[8.0, 0.0, 0.0]])
    layer = layers.Softmax(dtype=D)
    assert layer(x) == pytest.approx(y, rel=1e-15)
    assert layer.backward(g) == pytest.approx(numpy.array([[7, -2, -5]]) / 8)
    layer = layers.LogSoftmax(dtype=D)
    assert layer(x) == pytest.approx(numpy.log(y), rel=1e-14)
    assert layer.backward(g) == pytest.approx(numpy.array([[7.0, -2, -5]]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("cls", ALL)
def test_far_out_values_and_gradients_are_finite_and_raise_no_flags(cls, dtype):
    big = [1e4, 3e4 if dtype == "float16" else 1e30, 87.3, 88.8, 103.0, 709.0, 710.0, 745.0, 11356.0, 11400.0]
    big = numpy.array(big, dtype=dtype)
    x = numpy.concatenate([big, -big, numpy.zeros(1, dtype)])
    with numpy.errstate(over="raise", divide="raise", invalid="raise"):
        y, dy = value_and_slope(cls(dtype=dtype), x)
    assert y.dtype == dy.dtype == numpy.dtype(dtype)
    assert numpy.isfinite(y).all() and numpy.isfinite(dy).all()
    if cls in (layers.ReLU, layers.ELU, layers.GELU, layers.SiLU, layers.Softplus):
        assert (y[:10] == big).all() and (dy[:10] == 1).all()
        assert (abs(dy[10:12]) <= 1e-30).all()


@pytest.mark.parametrize(
    "cls, options",
    [(layers.GELU, {}), (layers.GELU, {"approximate": "tanh"}), (layers.SiLU, {}), (layers.Softplus, {}),
     (layers.ReLU, {}), (layers.ELU, {"alpha": 0})],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_infinities_have_their_limits(cls, options, dtype):
    y, dy = value_and_slope(cls(dtype=dtype, **options), numpy.array([numpy.inf, -numpy.inf], dtype=dtype))
    assert y[0] == numpy.inf and abs(y[1]) <= 1e-30
    assert dy[0] == 1 and abs(dy[1]) <= 1e-30


@pytest.mark.parametrize("slope, left", [(0.0, 0.0), (0.5, -math.inf), (2.5, -math.inf), (-0.5, math.inf)])
def test_the_leaky_rectifier_takes_infinities(slope, left):
    x = numpy.array([math.inf, -math.inf, 1.0, -2.0], "float32")
    y, dy = value_and_slope(layers.LeakyReLU(negative_slope=slope), x)
    assert y.tolist() == [math.inf, left, 1, -2 * slope]
    assert dy.tolist() == [1, slope, 1, slope]


def test_softmax_of_infinities():
    inf = math.inf
    none = numpy.array([[-inf, 0.0, 0.0]], "float32")
    y, log = layers.Softmax()(none), layers.LogSoftmax()(none)
    assert y.tolist() == [[0, 0.5, 0.5]] and log[0].tolist() == pytest.approx([-inf, *[-math.log(2)] * 2])
    for row in ([inf, 0.0, 1.0], [-inf] * 3, [inf, -inf, 0.0]):  # no softmax, in its own row only, and no warning
        for cls in (layers.Softmax, layers.LogSoftmax):
            layer = cls()
            y = layer(numpy.array([row, [0.0, 0.0, 0.0]]))
            dx = layer.backward(numpy.ones((2, 3)))
            assert numpy.isnan(y[0]).all() and numpy.isfinite(y[1]).all()
            assert numpy.isnan(dx[0]).all() and numpy.isfinite(dx[1]).all()
    far = numpy.array([[3e38, -3e38, 0.0]], "float32")  # the difference is no float32
    assert layers.Softmax()(far).tolist() == [[1, 0, 0]] and layers.LogSoftmax()(far)[0, 1] == -inf


def test_logits_of_1e30_are_a_certain_choice():
    x = numpy.array([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]], dtype="float32")
    for axis in (0, 1):
        y = layers.Softmax(axis=axis)(x)
        assert y.sum(axis) == pytest.approx(1)
    assert (y == numpy.array([[1, 0, 0], [1 / 3] * 3], "float32")).all()
    log = layers.LogSoftmax()(x)
    assert log[0].tolist() == [0, numpy.float32(-2e30), numpy.float32(-1e30)]
    assert log[1] == pytest.approx(-math.log(3))


@pytest.mark.parametrize(
    "layer, slopes",
    [
        (layers.ReLU(), {0.0: 0.0}),
        (layers.LeakyReLU(negative_slope=0.25), {0.0: 0.25}),
        (layers.LeakyReLU(negative_slope=-2.0), {0.0: -2.0, -1.0: -2.0, 1.0: 1.0}),
        (layers.ELU(alpha=0.5), {0.0: 0.5}),
        (layers.Hardtanh(), {-1.0: 0.0, 1.0: 0.0}),
    ],
    ids=repr,
)
def test_the_derivative_at_a_kink_is_the_documented_one(layer, slopes):
    _, dy = value_and_slope(layer, numpy.array(list(slopes), dtype="float32"))
    assert dy.tolist() == list(slopes.values())


@pytest.mark.parametrize("cls", ALL)
def test_the_order_of_memory_of_images_is_kept_and_changes_nothing(cls):
    """Convolutions hand on images whose memory runs C, H, W, N."""
    x, g = numpy.random.default_rng(0).standard_normal((2, 4, 3, 5, 6))
    turned = numpy.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    layer = cls(dtype=D)
    y, dx = layer(x), layer.backward(g)
    z = layer(turned)
    assert z == pytest.approx(y, abs=1e-15)
    assert z.strides == turned.strides or cls in (layers.Softmax, layers.LogSoftmax)
    assert layer.backward(g) == pytest.approx(dx, abs=1e-15)
    assert layer(x[::-1]) == pytest.approx(y[::-1], abs=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
@pytest.mark.parametrize("cls, options", [(layers.SiLU, {}), (layers.GELU, {}), (layers.GELU, {"approximate": "tanh"})])
def test_gates_are_open_far_right_and_shut_far_left(cls, options, dtype):
    y = cls(**options, dtype=dtype)(numpy.array([-1e6, -1e3, 1e3, 1e6]))
    assert y.tolist() == pytest.approx([0, 0, 1e3, 1e6], rel=1e-6)


@pytest.mark.parametrize("cls", [layers.Softplus, layers.Sigmoid, layers.Tanh, layers.ELU, layers.SiLU])
def test_float32_is_right_to_a_few_units_in_the_last_place_everywhere(cls):
    x = numpy.linspace(-6, 6, 2001, dtype="float32")
    (y, dy), (exact, slope) = value_and_slope(cls(), x), value_and_slope(cls(dtype=D), x.astype(D))
    numpy.testing.assert_allclose(y, exact, rtol=5e-7, atol=1e-30)
    numpy.testing.assert_allclose(dy, slope, rtol=0, atol=1e-6)


def test_small_exponentials_are_not_lost_in_float32():
    """log(1 + u) and exp(n) - 1 keep their relative accuracy near 0."""
    x = numpy.array([-1e-6, -1e-4, -0.01], dtype="float32")
    assert layers.ELU()(x) == pytest.approx(numpy.expm1(x.astype(D)), rel=5e-7)
    x = numpy.array([-20.0, -15, -9], dtype="float32")
    y, dy = value_and_slope(layers.Softplus(), x)
    assert y == pytest.approx(numpy.log1p(numpy.exp(x.astype(D))), rel=1e-6)
    assert dy == pytest.approx(1 / (1 + numpy.exp(-x.astype(D))), rel=1e-6)
    assert layers.GELU()(numpy.array([-6.0], "float32")) == pytest.approx(-5.919527e-09, rel=2e-5)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: layers.LeakyReLU(negative_slope=math.nan), ValueError, "LeakyReLU expected a finite negative_slope"),
        (lambda: layers.LeakyReLU(negative_slope="1"), TypeError, "LeakyReLU expected a number as negative_slope"),
        (lambda: layers.ELU(alpha=-1), ValueError, "ELU expected alpha >= 0, got -1"),
        (lambda: layers.ELU(alpha=math.inf), ValueError, "ELU expected alpha >= 0, got inf"),
        (lambda: layers.GELU(approximate="erf"), ValueError, "GELU expected approximate to be 'none' or 'tanh'"),
        (lambda: layers.GELU(3), ValueError, "GELU expected approximate to be 'none' or 'tanh', got 3"),
        (lambda: layers.Softplus(0), ValueError, "Softplus expected beta > 0, got 0"),
        (lambda: layers.Softplus(1, "20"), TypeError, "Softplus expected a number as threshold, got '20'"),
        (lambda: layers.Hardtanh(1, 0), ValueError, "Hardtanh expected max_val >= 1, got 0"),
        (lambda: layers.ReLU(True), TypeError, "ReLU expected an integer dim, got True"),
        (lambda: layers.Softmax(axis=1.0), TypeError, "Softmax expected an integer axis, got 1.0"),
        (lambda: layers.Softmax(1.0), TypeError, "Softmax expected an integer dim, got 1.0"),
        (lambda: layers.Softmax(1, axis=0), TypeError, "Softmax expected dim or axis, .* got both: 1 and 0"),
        (lambda: layers.LogSoftmax(3)(numpy.zeros((2, 3))), ShapeMismatchError, r"along axis 3, got shape \(2, 3\)"),
        (lambda: layers.Softmax(axis=2)(numpy.zeros((2, 3))), ShapeMismatchError, r"along axis 2, got shape \(2, 3\)"),
        (lambda: layers.LogSoftmax()(numpy.zeros((2, 0))), ShapeMismatchError, r"along axis -1, got shape \(2, 0\)"),
        (lambda: layers.Softmax()(1.0), ShapeMismatchError, r"along axis -1, got shape \(\)"),
    ],
)
def test_bad_arguments_name_the_layer_and_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_the_repr_shows_options():
    shown = [
        layers.LeakyReLU(4), layers.ELU(), layers.GELU(), layers.GELU("tanh"), layers.Softmax(), layers.ReLU(7),
        layers.Softplus(), layers.Softplus(2, 20), layers.Hardtanh(), layers.Hardtanh(0, 6),
    ]  # fmt: skip
    assert [repr(layer) for layer in shown] == [
        "LeakyReLU(negative_slope=4)", "ELU(alpha=1)", "GELU()", "GELU(approximate='tanh')", "Softmax(dim=-1)",
        "ReLU(7)", "Softplus()", "Softplus(beta=2, threshold=20)", "Hardtanh()", "Hardtanh(min_val=0, max_val=6)",
    ]  # fmt: skip


@pytest.mark.parametrize("ids", [{"dim": 1}, {"axis": 1}, {"dim": -2}], ids=str)
@pytest.mark.parametrize("cls", [layers.Softmax, layers.LogSoftmax])
def test_the_dim_of_a_softmax_is_an_axis(cls, ids):
    x, g = numpy.random.default_rng(0).standard_normal((2, 2, 4, 3))
    layer, last = cls(**ids, dtype=D), cls(dtype=D)
    y, dx = layer(x), layer.backward(g)
    turned = last(x.swapaxes(1, 2)), last.backward(g.swapaxes(1, 2))
    assert y == pytest.approx(turned[0].swapaxes(1, 2), rel=1e-14)
    assert dx == pytest.approx(turned[1].swapaxes(1, 2), rel=1e-12)
    function = mtorch.softmax if cls is layers.Softmax else mtorch.log_softmax
    assert (function(x, 1) == y).all() and (function(x, dim=1) == y).all() and (function(x, axis=1) == y).all()


SIZED = [layers.ReLU, layers.Relu, layers.Sigmoid, layers.Tanh]
PLACES = {
    "alone": lambda layer: layer,
    "alone in predict": lambda layer: layer.predict,
    "behind a layer of unknown size": lambda layer: Sequential(layers.Identity(), layer),
    "first in a chain": lambda layer: Sequential(layer, layers.Tanh()),
    "in a branch": lambda layer: mtorch.Residual(layer),
    "in a graph": lambda layer: mtorch.Graph.of(layer(mtorch.Input("x"))),
}


@pytest.mark.parametrize("rows", [2, 2000], ids=["small", "large"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cls", SIZED)
def test_a_size_that_is_given_is_checked_in_every_call(cls, place, rows):
    layer = cls(7)
    run = PLACES[place](layer)
    assert run(numpy.zeros((rows, 7))).shape == (rows, 7)
    layer.forget()
    for shape in ((rows, 8), (rows, 7, 1), ()):
        with pytest.raises(ShapeMismatchError, match=re.escape(f"{layer!r} expected input of shape (..., 7)")):
            run(numpy.zeros(shape))
        with mtorch.fast.disabled(), pytest.raises(ShapeMismatchError, match=r"\.\.\., 7"):
            run(numpy.zeros(shape))
    with pytest.raises(mtorch.BackwardError):
        layer.backward(numpy.zeros((rows, 8)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("beta", [1e-3, 0.5, 3.0, 1e4])
def test_a_steep_or_flat_softplus_does_not_overflow(beta, dtype):
    big = 6e4 if dtype == "float16" else 1e37
    x = numpy.array([0.0, 1.0, -1.0, big, -big], dtype)
    with numpy.errstate(over="raise", divide="raise", invalid="raise"):
        y, dy = value_and_slope(layers.Softplus(beta, dtype=dtype), x)
    z = beta * x.astype(D)
    assert y.dtype == dy.dtype == numpy.dtype(dtype)
    assert y.astype(D) == pytest.approx(numpy.logaddexp(0, z) / beta, rel=2e-3)
    assert dy.astype(D) == pytest.approx(sigmoid(numpy, z), rel=2e-3)


def test_a_threshold_makes_softplus_the_identity_beyond_it():
    x = numpy.array([9.9, 10.1, 30.0, -30.0])
    y, dy = value_and_slope(layers.Softplus(2, 20, dtype=D), x)
    exact, slope = value_and_slope(layers.Softplus(2, dtype=D), x)
    assert y.tolist() == [exact[0], 10.1, 30.0, exact[3]] and dy.tolist() == [slope[0], 1, 1, slope[3]]
    assert (exact > x).tolist() == [True, True, False, True]


def test_a_hard_tanh_has_the_bounds_that_are_given():
    y, dy = value_and_slope(layers.Hardtanh(0, 6), numpy.array([-1.0, 0.0, 0.5, 6.0, 7.0]))
    assert y.tolist() == [0, 0, 0.5, 6, 6] and dy.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("cls", ALL)
def test_an_empty_batch_is_an_empty_result(cls):
    y, dy = value_and_slope(cls(), numpy.zeros((0, 3), "float32"))
    assert y.shape == dy.shape == (0, 3)


@pytest.mark.parametrize("shape", [(20, 16), (64, 100, 9), (5000,), (0, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_fast_rectifier_is_the_reference_one(shape, dtype):
    rng = numpy.random.default_rng(0)
    x, g = rng.standard_normal((2, *shape)).astype(dtype)
    x[rng.random(shape) < 0.1] = -0.0
    layer = layers.ReLU(dtype=dtype)
    for turn in (lambda a: a, lambda a: a.T, lambda a: a[::-1]):
        y, dx = layer(turn(x)), layer.backward(turn(g))
        with mtorch.fast.disabled():
            expected, slope = layer(turn(x)), layer.backward(turn(g))
        assert y.dtype == dx.dtype == dtype
        numpy.testing.assert_array_equal(y, expected)
        numpy.testing.assert_array_equal(dx, slope)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize("size", [10, 5000])
def test_a_rectifier_of_integers_keeps_their_type(dtype, size):
    x = (numpy.arange(size) % 5 - 2).astype(dtype)
    layer = layers.ReLU(dtype=D)
    y = layer.forward(x)
    numpy.testing.assert_array_equal(y, numpy.where(x > 0, x, numpy.zeros_like(x)), strict=True)
    numpy.testing.assert_array_equal(layer.backward(numpy.ones(size)), numpy.where(x > 0, 1.0, 0.0), strict=True)


@pytest.mark.parametrize("of_grad", ["f", ">f4", "d", "e", "int64"])
@pytest.mark.parametrize("of_input", ["f", ">f4", "d"])
def test_a_large_rectifier_takes_a_gradient_of_another_type_as_a_small_one_does(of_input, of_grad):
    layer, x, g = layers.ReLU(dtype=D), numpy.linspace(-1, 1, 10).astype(of_input), numpy.arange(10).astype(of_grad)
    y, dx = layer.forward(x), layer.backward(g)
    large = layer.forward(numpy.repeat(x, 500)), layer.backward(numpy.repeat(g, 500))
    numpy.testing.assert_array_equal(large, numpy.repeat([y, dx], 500, axis=1), strict=True)
    assert [each.dtype for each in large] == [y.dtype, dx.dtype]


@pytest.mark.parametrize("cls", ALL)
def test_not_a_number_stays_one(cls):
    for size in (10, 10_000):
        x = numpy.linspace(-1, 1, size, dtype="float32")
        x[3] = numpy.nan
        y = cls()(x)
        assert numpy.isnan(y[3])
        if cls not in (layers.Softmax, layers.LogSoftmax):
            assert numpy.isfinite(numpy.delete(y, 3)).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_sigmoid_is_exact_at_every_size(dtype):
    x = numpy.array([-1e4, -80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0, 1e4], dtype)
    if dtype == "float16":
        x = x[(abs(x) < 9) | (x > 0)]
    wide = x.astype(numpy.longdouble)
    with numpy.errstate(over="ignore", under="ignore"):
        expected = 1 / (1 + numpy.exp(-wide))
    y = sigmoid(numpy, x)
    assert y.dtype == x.dtype
    numpy.testing.assert_allclose(y.astype(numpy.longdouble), expected, rtol=4 * numpy.finfo(dtype).eps, atol=1e-45)


class Swish(Activation):
    """y = x s(beta x): an activation of a user's own that is trained."""

    def __init__(self, beta=1.0, **options):
        super().__init__(**options)
        self.beta = Parameter(self.xp.asarray([beta], dtype=self.dtype))

    def forward(self, x):
        s = sigmoid(self.xp, self.beta.value * x)
        self.remember(x, s)
        return x * s

    def backward(self, output_grad):
        g = self.cast_grad(output_grad)
        x, s = self.recall()
        slope = x * s * (1 - s)
        self.beta.accumulate((g * x * slope).sum().reshape(1))
        return g * (s + self.beta.value * slope)


@pytest.mark.parametrize("wrap", [lambda layer: layer, Sequential], ids=["alone", "in a net"])
def test_an_activation_with_a_parameter_learns(wrap):
    x, g = numpy.random.default_rng(0).standard_normal((2, 4, 3))
    swish = Swish(0.5, dtype=D)
    layer = wrap(swish)
    check_gradients(layer, x)
    layer(x)
    layer.backward(g)
    grad = swish.beta.grad.copy()
    assert abs(grad) > 0.01
    layer.step(0.1)
    assert swish.beta.value == pytest.approx(0.5 - 0.1 * grad)
    assert not swish.beta.has_grad


def test_regression_m_the_derivative_of_sigmoid_below_minus_710_is_zero():
    _, dy = value_and_slope(layers.Sigmoid(dtype=D), numpy.array([-711.0, -1e4]))
    assert (abs(dy) < 1e-300).all()
