"""Operators: what they refuse, ties, edges of the domain, un-broadcasting. Gradients are proved elsewhere."""

import copy
import pickle
import warnings

import numpy
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import Graph, Input, Sequential, ShapeMismatchError, arrays, layers
from mtorch.testing import strict

rng = numpy.random.default_rng(0)
PAIRS = [layers.Add, layers.Subtract, layers.Multiply, layers.Divide, layers.Maximum, layers.Minimum, layers.Pow]
DATA = numpy.arange(24.0).reshape(2, 3, 4)


def through(layer, x, grad=None):
    """(y, dx) for an output gradient of ones, or the one given."""
    y = layer(x)
    return y, layer.backward(numpy.ones_like(y) if grad is None else grad)


# ---------------------------------------------------------------------- two operands


def test_only_axes_counted_from_the_end_are_sure_to_meet():
    add = layers.Add()
    assert add.broadcast_shapes({0: 2, -1: 4}, {0: 3, -1: 1}) == {-1: 4}
    assert add.broadcast_shapes({-1: 1, -2: 3}, {}) == {-2: 3}
    with pytest.raises(ShapeMismatchError, match="on axis -1, got 4 and 5"):
        add.broadcast_shapes({-1: 4}, {-1: 5})


@pytest.mark.parametrize("kind", PAIRS)
def test_operators_of_two_refuse_what_is_no_pair_or_does_not_broadcast(kind):
    layer = kind(dtype="float64")
    for wrong in (numpy.ones(3), (numpy.ones(3),), (numpy.ones(3),) * 3, (numpy.ones(3), (numpy.ones(3),))):
        with pytest.raises(ShapeMismatchError, match="expected a tuple of two arrays"):
            layer(wrong)
    with pytest.raises(ShapeMismatchError, match=r"got \(2, 3\) and \(4,\)"):
        layer((numpy.ones((2, 3)), numpy.ones(4)))
    with pytest.raises(TypeError, match="expected floats of one dtype"):
        layer.forward((numpy.ones(3), numpy.ones(3, int)))


def test_a_call_casts_integers_to_floats():
    assert layers.Add()(([1, 2], 3)).dtype == numpy.float32


def test_a_gradient_is_summed_over_every_axis_along_which_its_operand_was_stretched():
    a, b, g = rng.standard_normal((3, 1)), rng.standard_normal((2, 1, 4)), rng.standard_normal((2, 3, 4))
    _, (da, db) = through(layers.Multiply(dtype="float64"), (a, b), g)
    assert_allclose(da, (g * b).sum(axis=(0, 2)).reshape(3, 1))
    assert_allclose(db, (g * a).sum(axis=1, keepdims=True))


def test_at_a_tie_the_left_operand_takes_the_whole_gradient():
    x = numpy.array([1.0, 2.0, 3.0])
    for kind in (layers.Maximum, layers.Minimum):
        _, (da, db) = through(kind(dtype="float64"), (x, x.copy()))
        assert_array_equal(da, numpy.ones(3))
        assert_array_equal(db, numpy.zeros(3))


def test_results_without_axes_are_arrays():
    x = numpy.array(2.0)
    for layer, value in ((layers.Add(dtype="float64"), (x, x)), (layers.Square(dtype="float64"), x)):
        y = layer(value)
        dx = layer.backward(y)
        for leaf in (y, *(dx if isinstance(dx, tuple) else (dx,))):
            assert type(leaf) is numpy.ndarray and leaf.shape == ()
    assert type(layers.Sum(dtype="float64")(DATA)) is numpy.ndarray


@pytest.mark.parametrize("kind", [layers.Exp, layers.Log, layers.Sqrt, layers.Square, layers.Abs, layers.Negative])
def test_functions_of_one_array_refuse_tuples_and_in_a_net_integers(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__}.* expected floats, got int64"):
        kind().forward(numpy.ones(3, "int64"))
    with pytest.raises(ShapeMismatchError, match="expected one array"):
        kind()((1.0, 2.0))
    assert kind()([1, 2]).dtype == numpy.float32


# ---------------------------------------------------------------------- matrix products


@pytest.mark.parametrize("a, b", layers.MatMul.example_shapes() + [((1, 2, 3), (4, 3, 5)), ((1, 3), (3,))])
def test_matmul_is_numpys(a, b):
    a, b = rng.standard_normal(a), rng.standard_normal(b)
    assert_allclose(layers.MatMul(dtype="float64")((a, b)), a @ b)


def test_matmul_backward_is_two_matrix_products():
    """A named bug of gradflow: its backward multiplied elementwise."""
    a, b, g = rng.standard_normal((4, 3)), rng.standard_normal((3, 2)), rng.standard_normal((4, 2))
    _, (da, db) = through(layers.MatMul(dtype="float64"), (a, b), g)
    assert_allclose(da, g @ b.T)
    assert_allclose(db, a.T @ g)


@pytest.mark.parametrize("a, b", [((4, 3), (4, 2)), ((3,), (4,)), ((), (3,)), ((3, 2), ()), ((2, 4, 3), (3, 3, 2))])
def test_matmul_refuses_what_does_not_fit(a, b):
    with pytest.raises(ShapeMismatchError, match="MatMul"):
        layers.MatMul(dtype="float64")((numpy.ones(a), numpy.ones(b)))


# ---------------------------------------------------------------------- powers


@pytest.mark.parametrize(
    "exponent, slope", [(0, [0, 0, 0]), (1, [1, 1, 1]), (2, [0, 2, -4]), (3, [0, 3, 12]), (3.0, [0, 3, 12])]
)
def test_whole_powers_have_exact_gradients_at_zero_and_for_negative_bases(exponent, slope):
    x = numpy.array([0.0, 1.0, -2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, dx = through(layers.Power(exponent, dtype="float64"), x)
    assert_array_equal(y, x**exponent)
    assert_array_equal(dx, slope)


def test_a_negative_whole_power_takes_a_negative_base():
    y, dx = through(layers.Power(-1, dtype="float64"), numpy.array([-2.0, 4.0]))
    assert_allclose(y, [-0.5, 0.25])
    assert_allclose(dx, [-0.25, -0.0625])


def test_outside_of_the_domain_numpys_answer_stands():
    with numpy.errstate(all="ignore"):
        assert numpy.isnan(layers.Power(0.5)(-1.0)) and layers.Log()(0.0) == -numpy.inf
        assert numpy.isnan(layers.Log()(-1.0)) and layers.Divide()((1.0, 0.0)) == numpy.inf


def test_a_power_of_two_values_is_smooth_where_one_of_them_is_zero():
    a, b = numpy.array([0.0, 0.0, 2.0]), numpy.array([0.0, 2.0, 0.0])
    y, (da, db) = through(layers.Pow(dtype="float64"), (a, b))
    assert_allclose(y, [1, 0, 1])
    assert_allclose(da, [0, 0, 0])
    assert_allclose(db, [0, 0, numpy.log(2)])


@pytest.mark.parametrize("exponent, error", [(True, TypeError), ("2", TypeError), (1e400, ValueError)])
def test_power_refuses_what_is_no_finite_number(exponent, error):
    with pytest.raises(error, match="Power expected a"):
        layers.Power(exponent)


def test_numpy_numbers_as_exponent_do_not_change_the_dtype():
    assert layers.Power(numpy.float64(2.5))(numpy.ones(2, "float32")).dtype == numpy.float32
    assert repr(layers.Power(numpy.int64(2))) == "Power(2)"


# ---------------------------------------------------------------------- reductions


@pytest.mark.parametrize("kind", [layers.Sum, layers.Mean, layers.Max, layers.Min])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, -3), (1,), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_are_numpys(kind, axis, keepdims):
    x = rng.standard_normal((2, 3, 4))
    y = kind(axis, keepdims, dtype="float64")(x)
    assert_allclose(y, getattr(x, kind.__name__.lower())(axis=axis, keepdims=keepdims))


def test_the_first_of_equal_entries_takes_the_whole_gradient():
    x = numpy.array([[1.0, 5.0, 5.0], [5.0, 1.0, 1.0]])
    assert_array_equal(through(layers.Max(dtype="float64"), x)[1], [[0, 1, 0], [0, 0, 0]])
    assert_array_equal(through(layers.Max(0, dtype="float64"), x)[1], [[0, 1, 1], [1, 0, 0]])
    assert_array_equal(through(layers.Min(1, dtype="float64"), x)[1], [[1, 0, 0], [0, 1, 0]])
    assert_array_equal(through(layers.Min((1, 0), dtype="float64"), x)[1], [[1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("kind", [layers.Max, layers.Min])
@pytest.mark.parametrize("xp", [numpy, strict])
def test_nan_is_the_extremum_and_gets_the_gradient(kind, xp):
    x = xp.asarray([[1.0, numpy.nan, 3.0, numpy.nan], [numpy.inf, -numpy.inf, 0.0, 1.0]])
    layer = kind(1, xp=xp, dtype="float64")
    y = arrays.as_numpy(layer(x))
    assert numpy.isnan(y[0]) and y[1] == (numpy.inf if kind is layers.Max else -numpy.inf)
    dx = arrays.as_numpy(layer.backward(xp.asarray([5.0, 7.0])))
    assert_array_equal(dx, [[0, 5, 0, 0], [7, 0, 0, 0] if kind is layers.Max else [0, 7, 0, 0]])


@pytest.mark.parametrize("kind", [layers.Maximum, layers.Minimum])
@pytest.mark.parametrize("xp", [numpy, strict])
def test_nan_wins_over_the_other_operand_and_gets_the_gradient(kind, xp):
    a = xp.asarray([numpy.nan, 1.0, numpy.nan, numpy.nan, numpy.inf])
    b = xp.asarray([1.0, numpy.nan, numpy.nan, -numpy.inf, numpy.nan])
    layer = kind(xp=xp, dtype="float64")
    assert numpy.isnan(arrays.as_numpy(layer((a, b)))).all()
    da, db = layer.backward(xp.ones(5, dtype="float64"))
    assert_array_equal(arrays.as_numpy(da), [1, 0, 1, 1, 0])
    assert_array_equal(arrays.as_numpy(db), [0, 1, 0, 0, 1])
    constant = layers.ConstantOperand(kind(dtype="float64"), right=2.0)
    constant(numpy.array([numpy.nan, 2.0]))
    assert_array_equal(constant.backward(numpy.ones(2)), [1, 1])
    constant = layers.ConstantOperand(kind(dtype="float64"), left=numpy.nan)
    constant(numpy.array([1.0]))
    assert_array_equal(constant.backward(numpy.ones(1)), [0])


def test_reductions_refuse_axes_that_are_none_or_are_not_there():
    for axis in (1.0, True, [0, 1], "0", (0, None)):
        with pytest.raises(TypeError, match="Sum expected axis"):
            layers.Sum(axis)
    with pytest.raises(ValueError, match="different axes"):
        layers.Mean((1, 1))
    for axis in (3, -4, (0, 5), (0, -3)):
        with pytest.raises(ShapeMismatchError, match="expected input with the axes"):
            layers.Max(axis, dtype="float64")(DATA)


def test_nothing_to_average_or_to_choose_from_is_an_error_and_nothing_to_add_is_zero():
    empty = numpy.zeros((0, 3))
    assert_array_equal(layers.Sum(0, dtype="float64")(empty), numpy.zeros(3))
    assert layers.Mean(1, dtype="float64")(empty).shape == layers.Max(1, dtype="float64")(empty).shape == (0,)
    for kind in (layers.Mean, layers.Max, layers.Min):
        with pytest.raises(ShapeMismatchError, match=r"got shape \(0, 3\)"):
            kind(0, dtype="float64")(empty)


# ---------------------------------------------------------------------- joining, cutting, picking


def test_concat_refuses_what_does_not_join():
    a = numpy.ones((2, 3), "float32")
    for wrong in (a, (), (a, (a,))):
        with pytest.raises(ShapeMismatchError, match="expected a tuple of arrays"):
            layers.Concat(0).forward(wrong)
    for wrong, axis in (((a, a.T), 0), ((a, a), 2), ((a, a[0]), 0)):
        with pytest.raises(ShapeMismatchError, match="expected shapes that agree"):
            layers.Concat(axis)(wrong)
    with pytest.raises(TypeError, match="one dtype"):
        layers.Concat(0).forward((a, a.astype(int)))
    with pytest.raises(TypeError, match="integer axis"):
        layers.Concat(1.0)


def test_split_gives_equal_parts_and_refuses_others():
    parts = layers.Split(2, axis=-1, dtype="float64")(DATA)
    assert [part.shape for part in parts] == [(2, 3, 2)] * 2
    assert_array_equal(parts[1], DATA[..., 2:])
    for sections, axis in ((2, 1), (2, 3), (5, -1)):
        with pytest.raises(ShapeMismatchError, match=f"multiple of {sections}"):
            layers.Split(sections, axis, dtype="float64")(DATA)
    with pytest.raises(ValueError, match="sections >= 1"):
        layers.Split(0, 1)


def test_select_undoes_fork_and_leaves_zeros_for_the_branch_it_did_not_take():
    net = Sequential(layers.Split(2, -1), layers.GetItem(1))
    y = net(DATA)
    assert_array_equal(y, DATA[..., 2:].astype("float32"))
    assert_array_equal(net.backward(y), numpy.concatenate([numpy.zeros_like(y), y], axis=-1))
    with pytest.raises(ShapeMismatchError, match="entry at position 2"):
        layers.GetItem(2)((DATA, DATA))
    with pytest.raises(ShapeMismatchError, match="expected a tuple"):
        layers.GetItem(0)(DATA)


def test_transpose_takes_a_full_permutation():
    assert layers.Transpose((2, 0, -2))(DATA).shape == (4, 2, 3)
    assert layers.Transpose((1, 2, 0)).infer_shape({0: 2, -1: 4}) == {1: 4, 2: 2, -2: 4, -1: 2}
    for axes in ((0, 2), (0, 0), (1, -1)):
        with pytest.raises(ValueError, match="permutation"):
            layers.Transpose(axes)
    with pytest.raises(ShapeMismatchError, match="2 axes"):
        layers.Transpose((1, 0))(DATA)


# ---------------------------------------------------------------------- indexing

INDICES = [
    0, -1, slice(None), slice(1, None, 2), slice(None, None, -1), ..., None, [1, 0, 1], [[0, 1], [1, 1]], (), [],
    (0, 1, 2), (slice(None), [0, 2, 0]), (..., 0), (0, ..., None), ([0, 1], [2, 2]), ([0, 1], slice(None), [3, 3]),
    (slice(None), numpy.array([-1, 0])), (numpy.int64(1), slice(0, 2)), ([True, False],), DATA > 11,
    (slice(None), [True, False, True], 1), (None, [0, 0], None), numpy.array(1), (slice(None), slice(5, 9)),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=lambda index: repr(index)[:40])
def test_slice_is_numpys_and_repeated_entries_accumulate(index):
    layer = layers.Slice(index, dtype="float64")
    expected = DATA[index]
    g = rng.standard_normal(expected.shape)
    for each in (layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), layer.to(dtype="float64")):
        y, dx = through(each, DATA, g)
        assert_array_equal(y, expected)
        slow = numpy.zeros_like(DATA)
        numpy.add.at(slow, index, g)
        assert_allclose(dx, slow)
    device = layers.Slice(index, xp=strict, dtype="float64")
    assert_array_equal(device(strict.asarray(DATA)).get(), expected)
    assert_allclose(device.backward(strict.asarray(g)).get(), slow)


def test_slice_refuses_what_is_no_index():
    for wrong in (1.0, "a", True, [0.5], (0, True), {1: 2}):
        with pytest.raises(TypeError, match="Slice expected"):
            layers.Slice(wrong)
    with pytest.raises(ValueError, match="one Ellipsis"):
        layers.Slice((..., ...))


@pytest.mark.parametrize("index", [2, -3, [0, 2], (0, 3), (..., 4), (0, 0, 0, 0), [-3], [True] * 3, (..., [4], None)])
@pytest.mark.parametrize("xp", [numpy, strict])
def test_an_entry_that_is_not_there_is_an_error_on_every_array_module(index, xp):
    with pytest.raises(ShapeMismatchError, match=r"expected input with entries at \[.*got shape \(2, 3, 4\)"):
        layers.Slice(index, xp=xp)(xp.asarray(DATA))


def test_later_edits_of_an_index_array_change_nothing():
    index = numpy.array([0, 1])
    layer = layers.Slice(index, dtype="float64")
    index[:] = 0
    assert_array_equal(layer(DATA), DATA)


def test_integers_are_moved_as_integers_and_have_no_gradient():
    ids = numpy.array([[1, 2], [3, 4]])
    for layer in (layers.Slice((0, [1, 1])), layers.Concat(0), layers.Transpose((1, 0))):
        x = (ids, ids) if isinstance(layer, layers.Concat) else ids
        assert layer.forward(x).dtype == ids.dtype
        net = Sequential(layer, layers.Embedding(5, 3, rng=0))
        assert net.backward(numpy.ones_like(net(x))) is None


# ---------------------------------------------------------------------- constants


def test_fixed_is_the_operator_with_a_constant_that_is_no_state():
    layer = layers.ConstantOperand(layers.Divide(dtype="float64"), left=6)
    y, dx = through(layer, numpy.array([2.0, 3.0]))
    assert_allclose(y, [3, 2])
    assert_allclose(dx, [-1.5, -2 / 3])
    assert layer.state_dict() == {} and repr(layer) == "ConstantOperand(Divide, left=6)"


def test_fixed_casts_its_constant_anew_from_what_was_given():
    layer = layers.ConstantOperand(layers.Add(), right=0.1)
    assert layer(0.0).dtype == numpy.float32
    assert layer.to(dtype="float64")(0.0) == 0.1
    assert layer.to(xp=strict)(0.0).get() == numpy.float32(0.1)


def test_later_edits_of_a_constant_array_change_nothing():
    given = numpy.ones(2)
    layer = layers.ConstantOperand(layers.Add(dtype="float64"), right=given)
    given[:] = 7
    assert_array_equal(layer(numpy.zeros(2)), [1, 1])


def test_fixed_needs_an_operator_and_one_constant():
    with pytest.raises(TypeError, match="operator of two"):
        layers.ConstantOperand(layers.Exp(), right=1.0)
    for constants in ({}, {"left": 1.0, "right": 1.0}):
        with pytest.raises(ValueError, match="one constant"):
            layers.ConstantOperand(layers.Add(), **constants)


# ---------------------------------------------------------------------- functions of data


def test_functions_compute_on_data_in_its_own_dtype():
    x = rng.uniform(0.5, 1.5, (2, 3))
    assert_allclose(mtorch.exp(x), numpy.exp(x))
    assert mtorch.log(x.astype("float32")).dtype == numpy.float32 and mtorch.sqrt(x).dtype == numpy.float64
    assert mtorch.sum([1, 2, 3]).dtype == numpy.float32
    assert_allclose(mtorch.concat([x, x], axis=0), numpy.concatenate([x, x]))
    assert_allclose(mtorch.matmul(x, x.T), x @ x.T)
    assert [part.shape for part in mtorch.split(x, 3, axis=1)] == [(2, 1)] * 3
    assert_allclose(mtorch.power(x, 3), x**3)
    assert_allclose(mtorch.power(2.0, x), 2.0**x)
    assert type(mtorch.exp(strict.asarray(x))) is strict.ndarray
    with pytest.raises(TypeError, match="real numbers"):
        mtorch.exp("text")


def test_every_function_is_its_layer():
    """All of `mtorch.graph.functions`, on an expression and on data."""
    x = rng.uniform(0.5, 0.9, (4, 6))
    more = {"concat": [0], "split": [2, 1], "reshape": [(2, 3)], "transpose": [(1, 0)], "power": [2.5]}
    more |= {"clip": [0.6, 0.8], "take": [[0, 5, 2, 2]]}
    names = [*mtorch.graph.functions.__all__, "abs", "sum", "max", "min"]
    for name in names:
        function = getattr(mtorch, name)
        two = name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")
        e = Input("x")
        if two:
            formula, direct = function(e, e * 0.5), function(x, x * 0.5)
        elif name == "matmul":
            formula, direct = function(e, x.T), function(x, x.T)
        elif name == "where":
            formula, direct = function(x > 0.7, e, e * 0.5), function(x > 0.7, x, x * 0.5)
        elif name == "concat":
            formula, direct = function((e, e), *more[name]), function((x, x), *more[name])
        else:
            formula, direct = function(e, *more.get(name, [])), function(x, *more.get(name, []))
        y = Graph.of(formula, dtype="float64")(x)
        for mine, other in zip(y, direct, strict=True) if isinstance(y, tuple) else [(y, direct)]:
            assert_allclose(mine, other, err_msg=name)


def test_names_that_shadow_python_stay_out_of_a_star_import():
    for name in ("abs", "sum", "max", "min"):
        assert name not in mtorch.__all__ and callable(getattr(mtorch, name))
