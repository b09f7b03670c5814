"""The protocol of `Layer`, its containers and `Module`, one sentence a test."""

import copy
import gc
import math
import pickle
import tracemalloc

import numpy
import pytest

import mtorch
from mtorch import (
    SGD,
    BackwardError,
    Buffer,
    Fork,
    Layer,
    Module,
    Parallel,
    Parameter,
    Residual,
    Sequential,
    ShapeMismatchError,
    SquareLoss,
    layers,
)
from mtorch.layer import EMPTY
from mtorch.testing import check_gradients, strict

RNG = numpy.random.default_rng(0)
X = RNG.standard_normal((5, 3)).astype("float32")


def chain(**options):
    nn = layers.on(rng=0, **options)
    return Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


class Failing(layers.Identity):
    """Raises in forward or backward, where told to."""

    where = "forward"

    def forward(self, x):
        if self.where == "forward":
            raise RuntimeError("burst")
        return super().forward(x)

    def backward(self, output_grad):
        raise RuntimeError("burst")


class Counting(layers.Identity):
    """Counts its training passes in a buffer."""

    def __init__(self):
        super().__init__()
        self.count = Buffer(numpy.zeros((), "int64"))

    def forward(self, x):
        self.count.value = self.count.value + 1
        return super().forward(x)


# ---------------------------------------------------------------------- input casting


@pytest.mark.parametrize(
    "x", [[[1, 2, 3]], numpy.uint8([[1, 2, 3]]), numpy.float64([[1, 2, 3]]), numpy.array([[1, 2, 3]], ">f4"),
          numpy.array([[True, False, True]]), numpy.float16([[1, 2, 3]]), numpy.longdouble([[1, 2, 3]])]
)  # fmt: skip
def test_a_call_casts_real_and_integer_data_once(x):
    y = layers.Linear(3, 2)(x)
    assert y.dtype == numpy.float32 and y.dtype.isnative and y.shape == (1, 2)


@pytest.mark.parametrize(
    "x, kind", [(numpy.array([["a"]]), TypeError), (numpy.array([[1j, 2, 3]]), TypeError), ("text", TypeError),
                (numpy.array([[None, 1, 2]]), TypeError), ([[1.0], [1.0, 2.0]], ValueError), (None, TypeError)]
)  # fmt: skip
def test_a_call_with_anything_but_numbers_is_an_error_that_names_the_layer(x, kind):
    with pytest.raises(kind, match=r"Linear\(3 -> 2\)"):
        layers.Linear(3, 2)(x)


def test_arrays_of_another_module_are_a_type_error_that_says_how_to_convert():
    with pytest.raises(TypeError, match=r"\(3 -> 2\) lives on mtorch.testing.strict, got an array of numpy.*asarray"):
        layers.Linear(3, 2, xp=strict)(X)
    with pytest.raises(TypeError, match=r"lives on numpy, got an array of mtorch.testing.strict.*x\.get\(\)"):
        layers.Linear(3, 2)(strict.asarray(X))


def test_a_wrong_shape_says_who_expected_what_got_what_and_where():
    net = Sequential(layers.Linear(3, 9), Sequential(layers.Reshape((8,)), layers.Linear(8, 2)))
    with pytest.raises(ShapeMismatchError, match=r"Reshape\(\(8,\)\) expected 8 entries a sample") as caught:
        net(X)
    notes = ["in layer 0 of Sequential", "in layer 1 of Sequential"]
    assert caught.value.__notes__ == notes
    with pytest.raises(ShapeMismatchError, match="expected 8 entries a sample") as caught:
        net.predict(X)
    assert caught.value.__notes__ == notes
    text = r"Linear\(9 -> 2\) expected input of shape \(\.\.\., 9\), got \(2, 8\)"
    with pytest.raises(ShapeMismatchError, match=text):
        layers.Linear(9, 2)(numpy.zeros((2, 8)))


def test_zero_one_and_many_samples_and_leading_axes_work():
    layer = layers.Linear(3, 2)
    for shape in [(0, 3), (1, 3), (3,), (2, 0, 3), (2, 4, 5, 3)]:
        y = layer(numpy.ones(shape))
        assert y.shape == shape[:-1] + (2,)
        assert layer.backward(numpy.ones_like(y)).shape == shape
    with pytest.raises(ShapeMismatchError):
        layer(numpy.float32(1))


# ---------------------------------------------------------------------- order of calls


@pytest.mark.parametrize(
    "cls", [layers.Tanh, layers.Sigmoid, layers.ReLU, layers.LeakyReLU, layers.Hardtanh, layers.GELU, layers.Identity]
)
def test_what_has_no_axes_stays_an_array(cls):
    x = numpy.array(0.5, "float32")
    for layer in (cls(), Sequential(cls(), cls()), Residual(cls()), Module(cls(), input_grad=True)):
        y = layer(x)
        dx = layer.backward(numpy.ones((), "float32"))
        for result in (y, dx, layer.predict(x)):
            assert type(result) is numpy.ndarray and result.shape == () and result.dtype == numpy.float32
    a, b = Fork(cls(), cls())(x)
    assert type(a) is type(b) is numpy.ndarray


def test_several_values_are_one_tuple():
    a, b = numpy.ones((2, 3), "float32"), numpy.full((2, 3), 2, "float32")
    x, y = mtorch.Input("x"), mtorch.Input("y")
    for net in (layers.Add(), mtorch.Graph.of(x + y), Module(mtorch.Graph.of(x + y)), Sequential(layers.Add())):
        assert (net(a, b) == 3).all() and (net.predict(a, b) == 3).all() and (net((a, b)) == 3).all()
    assert (mtorch.Graph.of(layers.Add()(x, y))(a, b) == 3).all()
    with pytest.raises(ShapeMismatchError, match=r"Linear\(3 -> 2\) expected one array, got a tuple of 2"):
        layers.Linear(3, 2)(a, b)


def test_backward_before_forward_and_twice_names_the_layer():
    layer = layers.Linear(3, 2)
    with pytest.raises(BackwardError, match=r"Linear\(3 -> 2\)"):
        layer.backward(numpy.ones((5, 2)))
    y = layer(X)
    layer.backward(y)
    with pytest.raises(BackwardError):
        layer.backward(y)
    with pytest.raises(BackwardError):
        chain().backward(numpy.ones((5, 2)))


def test_a_second_forward_replaces_the_first():
    layer = layers.Linear(3, 2, dtype="float64")
    layer(X), layer(2 * X)
    layer.backward(numpy.ones((5, 2)))
    numpy.testing.assert_allclose(layer.weight.grad[0], 2 * X.astype(float).sum(axis=0))


def test_step_without_backward_moves_nothing():
    net = chain()
    before = net.state_dict()
    net.step(0.1)
    for name, value in net.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -0.1])
def test_a_bad_rate_is_refused_and_the_gradient_stays(lr):
    net = chain()
    net.backward(numpy.ones_like(net(X)))
    before, grad = net.state_dict(), net.layers[0].weight.grad.copy()
    with pytest.raises(ValueError, match="learning rate"):
        net.step(lr)
    numpy.testing.assert_array_equal(net.state_dict()["0.weight"], before["0.weight"])
    numpy.testing.assert_array_equal(net.layers[0].weight.grad, grad)


@pytest.mark.parametrize("mode", ["raise", "warn"])
@pytest.mark.parametrize("kind", ["chain", "formula", "optimizer"])
def test_an_overflow_does_not_stop_a_step_halfway(kind, mode):
    chain = Sequential(layers.Linear(3, 2), layers.Tanh(), mtorch.Residual(layers.Linear(2, 2)))
    x, scale = mtorch.Input(), Parameter(numpy.ones(2, "float32"))
    net = Module(mtorch.Graph.of(chain(x) * scale)) if kind == "formula" else chain
    net(X)
    net.backward_parameters(numpy.ones((len(X), 2), "float32"))
    before = net.state_dict()
    first = net.parameters()["0.weight" if kind != "formula" else next(iter(before))]
    first.grad[...] = 1e38
    with numpy.errstate(over=mode, invalid=mode):
        mtorch.SGD(net, lr=10).step() if kind == "optimizer" else net.step(10)
    assert all((value != before[name]).all() for name, value in net.state_dict().items())
    assert numpy.isinf(first.value).all()


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_a_parameter_that_overflows_is_moved_all_the_same(size):
    parameter = Parameter(numpy.full(size, 3e38, "float32"))
    for grad, expected in ((-1e38, math.inf), (math.inf, math.nan)):
        parameter.accumulate(numpy.full(size, grad, "float32"))
        with numpy.errstate(over="raise", invalid="raise"):
            parameter.step(1.0)
        numpy.testing.assert_array_equal(parameter.value, numpy.full(size, expected, "float32"))


def test_zero_grad_discards_without_moving():
    net = chain()
    net.backward(numpy.ones_like(net(X)))
    before = net.state_dict()
    net.zero_grad()
    net.step(1.0)
    numpy.testing.assert_array_equal(net.state_dict()["0.weight"], before["0.weight"])


def test_a_frozen_parameter_has_no_gradient_and_stays():
    net = chain()
    net.layers[0].weight.trainable = False
    net.backward(numpy.ones_like(net(X)))
    before = net.state_dict()
    assert not net.layers[0].weight.has_grad and net.layers[0].bias.has_grad
    net.step(0.5)
    after = net.state_dict()
    numpy.testing.assert_array_equal(after["0.weight"], before["0.weight"])
    assert (after["0.bias"] != before["0.bias"]).any()


# ---------------------------------------------------------------------- sharing


def test_a_layer_that_stands_twice_collects_both_gradients():
    twice = layers.Linear(3, 3, dtype="float64", rng=0)
    net = Sequential(twice, layers.Tanh(), twice)
    assert check_gradients(net, (4, 3), "longdouble") < 1e-10
    assert list(net.parameters()) == ["0.weight", "0.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_tied_parameter_collects_both_gradients_and_moves_once():
    a, b = layers.Linear(3, 3, dtype="float64", rng=0), layers.Linear(3, 3, dtype="float64", rng=1)
    net = Sequential(a, layers.Tanh(), b)
    b.weight = a.weight
    assert check_gradients(net, (4, 3), "longdouble") < 1e-10
    net.backward(numpy.ones_like(net(X)))
    before, grad = a.weight.value.copy(), a.weight.grad.copy()
    net.step(0.1)
    numpy.testing.assert_allclose(a.weight.value, before - 0.1 * grad)
    assert copy.deepcopy(net).layers[0].weight is not a.weight
    twin = pickle.loads(pickle.dumps(net))
    assert twin.layers[0].weight is twin.layers[2].weight


def test_one_layer_in_two_nets_answers_to_both():
    shared = layers.Linear(3, 3, dtype="float64", rng=0)
    one, two = Sequential(shared, layers.Tanh()), Sequential(shared, layers.Sigmoid())
    y1, y2 = one(X), two(X)
    one.backward(numpy.ones_like(y1))
    first = shared.weight.grad.copy()
    two.backward(numpy.ones_like(y2))
    assert not numpy.allclose(shared.weight.grad, first)


def test_a_layer_used_on_its_own_keeps_its_memory_while_its_net_predicts():
    net = chain()
    first = net.layers[0]
    y = first(X)
    net.predict(X)
    first.backward(y)


# ---------------------------------------------------------------------- errors in the middle


def test_a_forward_that_raises_leaves_no_memory_and_old_buffers():
    counting = Counting()
    net = Sequential(layers.Linear(3, 3), counting, counting, Residual(Failing()))
    with pytest.raises(RuntimeError, match="burst") as caught:
        net.forward(X)
    assert caught.value.__notes__ == ["in body of Residual", "in layer 3 of Sequential"]
    assert counting.count.value == 0
    assert all(layer._memory is EMPTY for _, layer in net.walk())


def test_an_error_in_the_middle_of_backward_drops_everything_below_and_says_so():
    failing = Failing()
    failing.where = "backward"
    net = Sequential(layers.Linear(3, 3, rng=0), failing, layers.Linear(3, 2, rng=0))
    y = net(X)
    with pytest.raises(RuntimeError, match="burst") as caught:
        net.backward(y)
    assert any("discarded" in note for note in caught.value.__notes__)
    assert "in layer 1 of Sequential" in caught.value.__notes__
    assert not any(p.has_grad for p in net.parameters().values())
    with pytest.raises(BackwardError):
        net.backward(y)


def test_a_refused_output_gradient_leaves_earlier_gradients_alone():
    net = chain()
    net.backward(numpy.ones_like(net(X)))
    grad = net.layers[0].weight.grad.copy()
    y = net(X)
    ones = numpy.ones
    for bad in [ones((5, 3)), ones((1, 2)), ones(2), 1.0, (y,), None, "text", ones((5, 2)) * 1j]:
        with pytest.raises((ShapeMismatchError, TypeError)):
            net.backward(bad)
    numpy.testing.assert_array_equal(net.layers[0].weight.grad, grad)
    net.backward(numpy.float64(numpy.ones((5, 2))))
    numpy.testing.assert_allclose(net.layers[0].weight.grad, 2 * grad, rtol=1e-6)


# ---------------------------------------------------------------------- containers


def test_neighbours_that_do_not_fit_are_refused_at_construction():
    for parts in (
        [layers.Linear(3, 4), layers.Linear(5, 2)],
        [layers.Linear(3, 4), layers.ReLU(5)],
        [layers.Linear(3, 4), layers.ReLU(), Residual(layers.Linear(9, 9))],
        [layers.Reshape((2, 3)), layers.Linear(4, 2)],
        [Sequential(layers.Linear(3, 4)), Sequential(layers.Linear(5, 2))],
    ):
        with pytest.raises(ShapeMismatchError) as caught:
            Sequential(parts)
        assert any("of Sequential" in note for note in caught.value.__notes__)


def test_a_fork_of_one_branch_is_a_tuple_of_one():
    (y,) = Fork(layers.Flatten())([[[1.0], [2.0]]])
    assert y.shape == (1, 2)


@pytest.mark.parametrize("parts", [[layers.ReLU], [numpy.ones(3)], ["Linear"], [None], 7, layers.ReLU])
def test_what_is_no_layer_is_refused_at_construction(parts):
    with pytest.raises(TypeError, match="Sequential is made of layers"):
        Sequential(parts)
    with pytest.raises(TypeError):
        Residual(parts)
    with pytest.raises(TypeError):
        Fork(parts)


def test_an_empty_sequential_is_refused():
    for empty in (lambda: Sequential(), lambda: Sequential([]), Fork, Parallel):
        with pytest.raises(ValueError):
            empty()


def test_layers_that_disagree_on_dtype_or_module_are_refused():
    with pytest.raises(ValueError, match=r"Linear\(3 -> 2\).*float32.*float64"):
        Sequential(layers.Linear(3, 2), layers.Linear(2, 2, dtype="float64"))
    with pytest.raises(ValueError, match="array module"):
        Fork(layers.Linear(3, 2), layers.Linear(3, 2, xp=strict))


def test_layers_without_parameters_follow_those_with():
    net = Sequential(layers.ReLU(), layers.Linear(3, 2, xp=strict, dtype="float64"), Sequential(layers.Tanh()))
    assert all(layer.xp is strict and layer.dtype == "float64" for _, layer in net.walk())


def test_residual_branches_must_agree():
    body = Sequential(layers.BatchNorm1d(3), layers.Linear(3, 1))
    before = body.state_dict()
    with pytest.raises(ShapeMismatchError, match="Residual.*one shape"):
        Residual(body)(X)
    for name, value in body.state_dict().items():
        assert (value == before[name]).all(), name
    with pytest.raises(ShapeMismatchError, match=r"Parallel.*tuple of 2"):
        Parallel(layers.ReLU(), layers.ReLU())((X, X, X))


def test_a_sequential_reads_like_a_list():
    net = chain()
    assert len(net) == 3 and net[1] is net.layers[1] and list(net) == list(net.layers)


# ---------------------------------------------------------------------- Module


def test_module_backward_returns_none_unless_the_input_gradient_is_asked_for():
    y = numpy.ones((5, 2))
    module = Module(chain())
    module(X)
    assert module.backward(y) is None
    wants = Module(chain(), input_grad=True)
    wants(X)
    assert wants.backward(y).shape == X.shape


def test_module_adds_no_prefix_and_nests():
    module = Module(chain())
    assert list(module.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    net = Sequential(module, layers.Linear(2, 2))
    assert list(net.parameters())[0] == "0.0.weight"
    y = net(X)
    assert net.backward(y).shape == X.shape


def test_module_of_no_layer_is_refused():
    for wrong in ([layers.ReLU()], None, layers.ReLU):
        with pytest.raises(TypeError, match="Module"):
            Module(wrong)


def test_modes_reach_the_whole_tree_and_predict_leaves_them():
    module = Module(Sequential(chain(), Residual(layers.Linear(2, 2))))
    assert all(layer.training for _, layer in module.walk())
    module.eval()
    assert not any(layer.training for _, layer in module.walk())
    module.train().predict(X)
    assert all(layer.training for _, layer in module.walk())


def test_predict_on_something_wrong_restores_everything():
    module = Module(Sequential(layers.Linear(3, 2), layers.Reshape((5,))))
    y_grad = numpy.ones((5, 2), "float32")
    module.net.layers[0](X)
    with pytest.raises(ShapeMismatchError):
        module.predict(X)
    assert all(layer.training for _, layer in module.walk())
    module.net.layers[0].backward(y_grad)


# ---------------------------------------------------------------------- copies, types, memory


def test_a_copy_in_mid_step_goes_its_own_way():
    net = chain(dtype="float64")
    y = net(X)
    twin = copy.deepcopy(net)
    assert (twin.backward(y) == net.backward(y)).all()
    twin.step(0.1)
    assert (twin.layers[0].weight.value != net.layers[0].weight.value).any()


def test_to_converts_values_and_leaves_the_original():
    net = chain()
    wide = net.to(dtype="float64")
    assert wide(X).dtype == numpy.float64 and net(X).dtype == numpy.float32
    device = net.to(xp=strict)
    numpy.testing.assert_allclose(device(strict.asarray(X)).get(), net(X), rtol=1e-6)
    back = device.to(xp=numpy)
    numpy.testing.assert_array_equal(back.layers[0].weight.value, net.layers[0].weight.value)


def test_a_converted_copy_forgets_the_gradients_memory_of_the_original():
    net = chain()
    net.backward(numpy.ones_like(net(X)))
    wide = net.to(dtype="float64")
    wide.backward(numpy.ones_like(wide(X)))
    assert wide.layers[0].weight.grad.dtype == numpy.float64 and wide.layers[0].weight.grad.any()


@pytest.mark.parametrize("dtype", ["int32", "complex64", "float31", None, "O"])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype"):
        layers.Linear(3, 2, dtype=dtype)


def test_one_seed_is_one_network_in_every_dtype_and_module():
    a = layers.Linear(3, 2, rng=7).weight.value
    b = layers.Linear(3, 2, rng=7, dtype="float64").weight.value
    c = layers.Linear(3, 2, rng=7, xp=strict).weight.value.get()
    assert (a == b.astype("float32")).all() and (a == c).all()


def test_seed_sets_the_default_generator():
    mtorch.seed(5)
    a = layers.Linear(3, 2).weight.value
    mtorch.seed(5)
    b = layers.Linear(3, 2).weight.value
    assert (a == b).all() and (layers.Linear(3, 2).weight.value != a).any()


def test_a_bound_namespace_shares_one_generator():
    nn = layers.on(strict, dtype="float64", rng=0)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    assert first.xp is strict and first.dtype == "float64" and nn.ReLU().xp is strict
    assert (first.weight.value.get() != second.weight.value.get()).any()
    with pytest.raises(AttributeError, match="Linaer"):
        _ = nn.Linaer


@pytest.mark.parametrize(
    "arguments, kind", [((0, 2), ValueError), ((3, -1), ValueError), ((3.0, 2), TypeError), ((True, 2), TypeError),
                        ((3, 2, 0), ValueError), ((3, 2, -1), ValueError), ((3, 2, float("nan")), ValueError)]
)  # fmt: skip
def test_bad_sizes_are_refused_by_name(arguments, kind):
    with pytest.raises(kind, match="Linear"):
        layers.Linear(*arguments)


def test_a_chain_of_one_layer_that_moves_data_casts_as_that_layer_does():
    net = Sequential(layers.Flatten())
    assert net(numpy.ones((2, 3, 4), "int32")).dtype == layers.Flatten()(numpy.ones((2, 3, 4), "int32")).dtype
    assert net([[[1.0]], [[2.0]]]).shape == (2, 1)


def test_a_forward_only_loop_does_not_grow():
    net = Module(Sequential(chain(), Residual(layers.Linear(2, 2)), Fork(layers.ReLU(), layers.Tanh())))
    for _ in range(3):
        net(X)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            net(X)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_state_dict_holds_copies_and_loading_casts():
    net = chain()
    state = net.state_dict()
    state["0.weight"][...] = 9
    assert not (net.layers[0].weight.value == 9).any()
    net.load_state_dict({name: value.astype("float64").tolist() for name, value in state.items()})
    assert (net.layers[0].weight.value == 9).all() and net.layers[0].weight.value.dtype == numpy.float32
    kept = net.layers[0].weight
    net.load_state_dict(state)
    assert net.layers[0].weight is kept


def test_a_layer_written_by_a_user_needs_two_methods():
    class Scale(Layer):
        def __init__(self, size):
            super().__init__()
            self.factor = Parameter(numpy.ones(size, "float32"))

        def forward(self, x):
            self.remember(x)
            return x * self.factor.value

        def backward(self, output_grad):
            g = self.cast_grad(output_grad)
            x = self.recall()
            self.factor.accumulate((g * x).sum(axis=0))
            return g * self.factor.value

    assert check_gradients(Scale(3), (4, 3), "longdouble") < 1e-10
    layer = Scale(3)
    y = layer(X)
    with pytest.raises(ShapeMismatchError, match=r"Scale\(\)"):
        layer.backward(y[:1])
    layer.backward(y)
    with pytest.raises(BackwardError):
        layer.backward(y)


def test_the_input_gradient_is_not_divided_by_out_dim():
    """The original mtorch divided it."""
    layer = layers.Linear(3, 2, dtype="float64", rng=0)
    layer(X)
    numpy.testing.assert_allclose(layer.backward(numpy.ones((5, 2))), numpy.ones((5, 2)) @ layer.weight.value)


def test_sequential_backward_returns_the_input_gradient():
    """The original mtorch's returned nothing."""
    net = chain()
    assert net.backward(numpy.ones_like(net(X))).shape == X.shape


def test_a_new_loss_does_not_overwrite_the_last():
    """The original mtorch returned one shared object."""
    loss_func = SquareLoss()
    first = loss_func(numpy.ones((2, 2)), numpy.zeros((2, 2)))
    loss_func(numpy.ones((2, 2)), numpy.ones((2, 2)))
    assert first.value == 1 and (first.grad == 0.5).all()


def test_training_learns():
    module, target = Module(chain(dtype="float64")), X[:, :2].astype(float)
    optimizer, loss_func = SGD(module, lr=0.2), SquareLoss(module)
    losses = []
    for _ in range(200):
        loss = loss_func(module(X), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.value)
    assert losses[-1] < 0.02 * losses[0]


def test_what_stands_before_the_first_parameters_is_not_asked_for_a_gradient():
    class Fixed(layers.Tanh):
        def backward(self, output_grad):
            raise AssertionError("nobody reads this gradient")

    net = mtorch.Sequential(Fixed(), layers.Tanh(), layers.Linear(3, 2), layers.Tanh())
    x, g = numpy.ones((4, 3), "float32"), numpy.ones((4, 2), "float32")
    for _ in range(2):
        net(x)
        assert net.backward_parameters(g) is None
    assert abs(net.layers[2].weight.grad).sum() > 0
    still = mtorch.Sequential(Fixed(), layers.Tanh())
    still(x)
    assert still.backward_parameters(x) is None
    with pytest.raises(mtorch.BackwardError):
        still.backward_parameters(x)


@pytest.mark.parametrize("values", [(), (1,), ((1, 2),), (1, None), (None,)])
def test_a_layer_recalls_what_it_remembered(values):
    layer = layers.ReLU()
    layer.remember(*values)
    assert layer.recall() == (values[0] if len(values) == 1 else values)
    with pytest.raises(BackwardError):
        layer.recall()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 3), (3, 2), (1, 2, 3)])
def test_a_gradient_of_another_shape_is_not_broadcast(shape):
    parameter = mtorch.Parameter(numpy.zeros((2, 3)))
    for _ in range(2):
        with pytest.raises(ShapeMismatchError, match=r"Parameter\(\(2, 3\), float64\) expected a gradient"):
            parameter.accumulate(numpy.ones(shape))
        parameter.accumulate(numpy.ones((2, 3)))
    assert (parameter.grad == 2).all()


def test_a_predict_that_fails_leaves_the_statistics_of_a_training_beside_it():
    class Gate(layers.Identity):
        def forward(self, x):
            if not self.training:  # training goes on in the meantime, and then this raises
                norm.running_mean.value = norm.running_mean.value + 1
                raise RuntimeError("gate")
            return super().forward(x)

    norm = layers.BatchNorm1d(3)
    for net in (Sequential(norm, Gate()), Residual(Sequential(norm, Gate()))):
        before = norm.running_mean.value
        with pytest.raises(RuntimeError, match="gate"):
            net.predict(X)
        assert (norm.running_mean.value == before + 1).all()


def test_a_forward_that_is_any_callable_is_honoured():
    class Twice:
        def __call__(self, x):
            return 2 * x

    kind = type("Doubled", (layers.Identity,), {"forward": Twice()})
    assert (Sequential(kind()).predict(X) == 2 * X).all()


def test_a_layer_assigned_to_a_container_is_moved():
    net = Residual(layers.Linear(3, 3, rng=0))
    net.body = layers.Linear(3, 3, rng=1)
    before = net.body.weight.value.copy()
    net.backward(net(X))
    net.step(0.1)
    assert (net.body.weight.value != before).any()
