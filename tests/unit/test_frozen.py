"""Frozen parameters: no gradient is collected, none is computed, and a chain goes back only as far as it must."""

import contextlib
import copy
import pickle
import sys
import threading

import numpy
import pytest

import mtorch
from mtorch import Fork, Graph, Input, Layer, Module, Parallel, Parameter, Residual, Sequential, fast, layers
from mtorch.bidirectional import Bidirectional
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.insight.summary import summary
from mtorch.parallel import DataParallel
from mtorch.testing import check_gradients
from mtorch.testing.gradients import GradientError
from mtorch.unroll import Recurrent

X, G = numpy.arange(12.0).reshape(4, 3) / 7 - 0.6, numpy.arange(12.0).reshape(4, 3) / 5 - 1
BODIES = ["fast", "reference"] if fast.ENABLED else ["reference"]
each_body = pytest.mark.parametrize("bodies", BODIES)


def linear(seed=0, in_dim=3, out_dim=3, **options) -> layers.Linear:
    return layers.Linear(in_dim, out_dim, dtype="float64", rng=seed, **options)


def freeze(layer, frozen=True):
    for parameter in layer.parameters().values():
        parameter.trainable = not frozen
    return layer


def thaw(layer):
    return freeze(layer, False)


class Watch(layers.Identity):
    """y = x, and counts how often a gradient came."""

    count = 0

    def backward(self, output_grad):
        self.count += 1
        return super().backward(output_grad)


def watch(**options):
    return Watch(dtype="float64", **options)


class Products:
    """Within this context: how many products of NumPy ran, called as `dot`, `matmul` or `vecdot` (not as `@`)."""

    NAMES = ("matmul", "vecdot")

    def __enter__(self):
        self.count, self.before = 0, {name: getattr(numpy, name) for name in self.NAMES}
        for name, function in self.before.items():
            setattr(numpy, name, self.counted(function))
        sys.setprofile(self.profile)
        return self

    def counted(self, function):
        def product(*args, **options):
            self.count += 1
            return function(*args, **options)

        return product

    def profile(self, frame, event, argument):
        if event == "c_call" and argument.__name__ == "dot":
            self.count += 1

    def __exit__(self, *error):
        sys.setprofile(None)
        for name, function in self.before.items():
            setattr(numpy, name, function)


def products(function, *args) -> int:
    with Products() as counted:
        function(*args)
    return counted.count


def in_bodies(bodies):
    return fast.disabled() if bodies == "reference" else contextlib.nullcontext()


def refuse(*args, **options):
    raise AssertionError("computed for a frozen parameter")


# ---------------------------------------------------------------------- one parameter


def test_freezing_drops_the_gradient_and_the_direction():
    p = Parameter(numpy.ones(2))
    p.accumulate(numpy.ones(2))
    p.direction = numpy.ones(2)
    p.trainable = True  # nothing changes
    assert p.has_grad and p.direction is not None
    p.trainable = False
    assert not p.has_grad and p.direction is None and p.grad.tolist() == [0, 0]
    p.trainable = True
    assert not p.has_grad and p.grad.tolist() == [0, 0]
    p.step(1.0)
    assert p.value.tolist() == [1, 1]


def test_a_frozen_parameter_collects_nothing_and_nothing_is_computed_for_it():
    for p in (Parameter(numpy.ones((2, 2)), trainable=False), Parameter(numpy.ones((2, 2)))):
        p.accumulate(numpy.ones((2, 2)))
        p.trainable = False
        p.accumulate(numpy.ones((2, 2)))
        p.accumulate(refuse)
        p.accumulate_result(refuse, 1, 2)
        assert products(p.accumulate_product, numpy.ones((2, 2)), numpy.ones((2, 2))) == 0
        assert not p.has_grad and not p.grad.any()


def test_a_function_makes_the_contribution_of_a_trainable_one():
    p = Parameter(numpy.ones(2))
    for _ in range(2):
        p.accumulate(lambda: numpy.array([1.0, 2.0]))
    assert p.grad.tolist() == [2, 4]
    with pytest.raises(ShapeMismatchError, match=r"gradient of its shape, got \(3,\)"):
        p.accumulate(lambda: numpy.ones(3))


def test_thawing_drops_what_a_layer_of_a_user_has_put_there_all_the_same():
    p = Parameter(numpy.ones(2), trainable=False)
    p.grad[...] = 5
    p.has_grad = True
    p.step(1.0)
    p.grad[...], p.has_grad = 5, True
    p.trainable = True
    p.step(1.0)
    assert p.value.tolist() == [1, 1]


@pytest.mark.parametrize("wrong", ["no", 0, None])
def test_trainable_is_a_truth_value(wrong):
    p = Parameter(numpy.ones(2))
    p.accumulate(numpy.ones(2))
    with pytest.raises(TypeError, match="Parameter expected trainable to be True or False"):
        p.trainable = wrong
    assert p.trainable is True and p.has_grad
    p.trainable = numpy.bool_(False)
    assert p.trainable is False


def test_copies_and_pickles_stay_frozen():
    net = Sequential(freeze(linear()), linear(1))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.to(dtype="float32")):
        assert [p.trainable for p in twin.parameters().values()] == [False, False, True, True]
        twin.backward(numpy.ones_like(twin(X.astype(twin.dtype))))
        assert [p.has_grad for p in twin.parameters().values()] == [False, False, True, True]


# ---------------------------------------------------------------------- training


@each_body
@pytest.mark.parametrize("verb", ["backward", "backward_parameters"])
def test_after_thawing_a_step_moves_only_by_what_was_collected_since(bodies, verb):
    with in_bodies(bodies):
        net, alone = (Sequential(linear(), layers.Tanh(), linear(1)) for _ in range(2))
        freeze(net[0])
        for _ in range(3):  # without a step, so that nothing is consumed
            net(X)
            getattr(net, verb)(G)
        assert [p.has_grad for p in net.parameters().values()] == [False, False, True, True]
        thaw(net[0])
        net.zero_grad()
        for each in (net, alone):
            each(X)
            getattr(each, verb)(G)
            each.step(0.1)
        for name, value in alone.state_dict().items():
            numpy.testing.assert_array_equal(net.state_dict()[name], value)


def test_what_stood_before_freezing_is_gone_after_thawing():
    net = linear()
    before = net.state_dict()
    net(X)
    net.backward(G)
    thaw(freeze(net))
    net.step(1.0)
    for name, value in net.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


def test_a_parameter_that_is_frozen_between_direction_and_step_stays():
    net = linear()

    class Late(mtorch.Adam):
        def _direct(self):
            super()._direct()
            freeze(self.module)

    before = net.state_dict()
    net(X)
    net.backward(G)
    Late(net, lr=1.0).step()
    for name, value in net.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("make", [mtorch.SGD, mtorch.Adam, mtorch.AdamW])
def test_optimizers_train_the_rest_as_if_it_stood_alone(make):
    """Norms for clipping, decay and states are those of the trainable ones; a thawed one goes on from its state."""
    net, rest = Sequential(linear(), linear(1)), linear(1)
    optimizers = [make(each, lr=0.1, clip_norm=0.5, weight_decay=0.1) for each in (net, rest)]
    net(X)
    net.backward(100 * G)  # a large gradient, frozen before the step: it must not count in the norm
    hidden = net[0](X)
    freeze(net[0])
    net[1].zero_grad()
    for _ in range(3):
        net(X)
        net.backward_parameters(G)
        rest(hidden)
        rest.backward_parameters(G)
        for optimizer in optimizers:
            optimizer.step()
    assert optimizers[0].last_norm == optimizers[1].last_norm
    for name, value in rest.state_dict().items():
        numpy.testing.assert_array_equal(net.state_dict()[f"1.{name}"], value)
    assert optimizers[0].state_dict().get("0.weight.steps", 0) == 0
    before = net.state_dict()
    thaw(net[0])
    optimizers[0].step()
    for name, value in net.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


def test_frozen_or_not_is_no_part_of_a_checkpoint(tmp_path):
    net, other = Sequential(freeze(linear()), linear(1)), Sequential(linear(2), freeze(linear(3)))
    optimizer = mtorch.Adam(net, lr=0.1)
    net(X)
    net.backward(G)
    optimizer.step()
    mtorch.save(tmp_path / "net.npz", net, optimizer)
    mtorch.load(tmp_path / "net.npz", other, mtorch.Adam(other, lr=0.1))
    assert [p.trainable for p in other.parameters().values()] == [True, True, False, False]
    for name, value in net.state_dict().items():
        numpy.testing.assert_array_equal(other.state_dict()[name], value)
    assert "24 parameters, 12 of them frozen" in summary(net)


def test_check_gradients_checks_what_is_trainable_and_finds_who_collects_for_a_frozen_one():
    net = Sequential(linear(), layers.Tanh(), linear(1))
    assert check_gradients(freeze(net), (4, 3)) < 1e-6
    net[2].bias.trainable = True
    assert check_gradients(net, (4, 3), "longdouble") < 1e-10

    class Deaf(Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.weight = Parameter(numpy.ones(3), trainable=False)

        def forward(self, x):
            self.remember()
            return x * 1.0

        def backward(self, output_grad):
            self.recall()
            self.weight.has_grad = True
            return output_grad

    with pytest.raises(GradientError, match=r"a gradient was added for the frozen weight"):
        check_gradients(Deaf(), (4, 3))


# ---------------------------------------------------------------------- how far a chain goes back


@each_body
def test_no_product_runs_for_the_frozen_layers_below(bodies):
    with in_bodies(bodies):
        net = Sequential(*[linear(i) for i in range(5)])

        def back(verb):
            net(X)
            return products(getattr(net, verb), G)

        assert back("backward_parameters") == 5 * 2 + 4  # dW, db, and dx of all but the first
        for k in range(4):
            freeze(net[k])
            assert back("backward_parameters") == (4 - k) * 2 + 3 - k
        assert back("backward") == 5 + 2
        net[1].bias.trainable = True
        assert back("backward_parameters") == 3 + 1 + 2
        freeze(net)
        assert back("backward_parameters") == 0
        assert back("backward") == 5
        thaw(net)
        assert back("backward_parameters") == 14


@pytest.mark.parametrize("size", [(4, 3), (128, 192)])
def test_large_layers_compute_no_gradient_either(size):
    net = linear(0, size[1], 2)
    x, g = numpy.ones(size), numpy.ones((size[0], 2))
    net.weight.trainable = False
    net(x)
    assert products(net.backward, g) == 2  # db and dx
    net.bias.trainable = False
    net(x)
    assert products(net.backward, g) == 1


def described(*chain):
    """A Module whose forward calls these layers, one after the other."""

    class Described(Module):
        def __init__(self):
            super().__init__()
            self.chain = chain

        def forward(self, x):
            for layer in self.chain:
                x = layer(x)
            return x + 0.0

    return Described()


NESTED = {
    "Sequential": Sequential,
    "Sequential in Sequential": lambda *chain: Sequential(Sequential(*chain[:3]), Sequential(*chain[3:])),
    "Module": lambda *chain: Module(Sequential(*chain)),
    "Module with a forward": described,
    "Residual": lambda *chain: Residual(Sequential(*chain)),
    "Residual with a shortcut": lambda *chain: Residual(Sequential(*chain), shortcut=linear(9)),
    "DataParallel": lambda *chain: DataParallel(Sequential(*chain), workers=1),
    "in a Graph": lambda *chain: Graph("x", {"h": (Sequential(*chain), "x"), "y": (layers.Add(), ("h", "x"))}, "y"),
    "nodes": lambda *chain: Graph.of(Sequential(*chain[2:])(chain[1](chain[0](Input("x")) * 2.0) ** 2)),
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_chain_goes_back_to_the_first_trainable_layer_at_any_time(kind):
    chain = [watch(), linear(0), watch(), linear(1), watch(), linear(2), watch()]
    net = NESTED[kind](*chain)
    watches = chain[::2]

    def reached():
        for each in watches:
            each.count = 0
        net(X)
        assert net.backward_parameters(G) is None
        with pytest.raises(BackwardError):
            net.backward_parameters(G)
        return [each.count for each in watches]

    assert reached() == [0, 1, 1, 1]
    freeze(chain[1])
    assert reached() == [0, 0, 1, 1]
    chain[1].bias.trainable = True
    assert reached() == [0, 1, 1, 1]
    freeze(chain[1])
    freeze(chain[3])
    assert reached() == [0, 0, 0, 1]
    freeze(chain[5])
    assert reached() == [0, 0, 0, 0]
    thaw(chain[3])
    assert reached() == [0, 0, 1, 1]
    thaw(chain[1])
    assert reached() == [0, 1, 1, 1]


@pytest.mark.parametrize("kind", NESTED)
def test_with_the_input_gradient_wanted_it_goes_back_to_the_input(kind):
    chain = [watch(), linear(0), watch(), linear(1), watch(), linear(2), watch()]
    net = NESTED[kind](*chain)
    if isinstance(net, Module):
        net.input_grad = True
    net(X)
    dx = net.backward(G)
    freeze(net)
    net(X)
    numpy.testing.assert_array_equal(net.backward(G), dx)
    assert [each.count for each in chain[::2]] == [2, 2, 2, 2]
    assert not any(p.has_grad for p in net.parameters().values())


def test_branches_are_left_out_by_themselves():
    for kind, x, g in ((Fork, X, (G, G)), (Parallel, (X, X), (G, G))):
        frozen, other = Sequential(linear(), watch()), Sequential(linear(1), watch())
        net = kind(freeze(frozen), other)
        net(x)
        net.backward_parameters(g)
        assert frozen[1].count == 0 and other[1].count == 1 and other[0].weight.has_grad
    frozen, other = Sequential(linear(), watch()), Sequential(linear(1), watch())
    net = Bidirectional(freeze(frozen), other)
    net(X[:, None])
    net.backward_parameters(numpy.ones((4, 1, 6)))
    assert frozen[1].count == 0 and other[1].count == 1


def test_a_cell_over_time_is_left_out_when_nothing_in_it_trains():
    cell = layers.RNNCell(3, 2, dtype="float64", rng=0)
    net = Recurrent(freeze(cell))
    net(X[None])
    pending = cell((numpy.zeros((4, 2)), X))  # waits for an answer of its own
    assert products(net.backward_parameters, numpy.ones((1, 4, 2))) == 0
    cell.backward(pending)
    thaw(cell)
    net(X[None])
    net.backward_parameters(numpy.ones((1, 4, 2)))
    assert all(p.has_grad for p in cell.parameters().values())


class Gated(Layer):
    """A layer of a user, made of layers; it remembers nothing itself."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.value, self.watch, self.gate = linear(0), watch(), linear(1)

    def forward(self, x):
        return self.gate(self.watch(self.value(x)))

    def backward(self, output_grad):
        return self.value.backward(self.watch.backward(self.gate.backward(self.cast_grad(output_grad))))


def test_a_composite_of_a_user_is_left_out_when_nothing_in_it_trains():
    gated, last = Gated(), linear(2)
    for net in (gated, Sequential(gated, last), Sequential(watch(), Residual(gated)), described(gated)):
        for frozen in (True, False):
            thaw(net)
            freeze(gated, frozen)
            before = gated.watch.count
            net(X)
            net.backward_parameters(G)
            assert gated.watch.count == before + (not frozen)
            assert gated.gate.weight.has_grad == (not frozen)
            with pytest.raises(BackwardError):
                net.backward_parameters(G)
    gated(X)
    freeze(gated)
    with pytest.raises(ShapeMismatchError):
        gated.backward_parameters(G[:2])
    gated.backward_parameters(G)


@each_body
@pytest.mark.parametrize("kind", [layers.RNN, layers.GRU, layers.LSTM])
def test_a_recurrent_layer_stops_at_its_first_trainable_layer(kind, bodies):
    with in_bodies(bodies):
        net = kind(3, 4, num_layers=3, dtype="float64", rng=0)
        x, g = numpy.random.default_rng(0).standard_normal((6, 2, 3)), numpy.ones((6, 2, 4))

        def back(verb="backward_parameters"):
            net(x)
            return products(getattr(net, verb), g)

        counts = [back()]
        for layer in range(3):
            for name, parameter in net.parameters().items():
                if f"_l{layer}" in name:
                    parameter.trainable = False
            counts.append(back())
            assert [p.has_grad for p in net.parameters().values()] == [False] * 4 * (layer + 1) + [True] * 4 * (
                2 - layer
            )
        assert counts[3] == 0 and counts[0] > counts[1] > counts[2] > 0
        assert back("backward") < counts[0] + 1


@each_body
def test_attention_computes_only_what_leads_to_something_trainable(bodies):
    with in_bodies(bodies):
        net = layers.MultiHeadAttention(4, 2, dtype="float64", rng=0)
        x, g = numpy.random.default_rng(0).standard_normal((2, 3, 2, 4))

        def back():
            net(x)
            return products(net.backward_parameters, g)

        everything = back()
        freeze(net.out_proj)
        without_output = back()
        thaw(net)
        net.in_proj_weight.trainable = net.in_proj_bias.trainable = False
        assert back() == 2 < without_output < everything
        assert net.out_proj.weight.has_grad
        freeze(net)
        assert back() == 0


@each_body
def test_a_frozen_batch_norm_in_eval_mode_sums_nothing(bodies, monkeypatch):
    from mtorch.fast.numpy import batch_norm

    with in_bodies(bodies):
        net = layers.BatchNorm2d(3, dtype="float64").eval()
        x = numpy.random.default_rng(0).standard_normal((2, 3, 4, 4))
        net(x)
        dx = net.backward(x)
        freeze(net)
        net(x)
        monkeypatch.setattr(batch_norm, "channel_sums", refuse)
        monkeypatch.setattr(batch_norm, "channel_products", refuse)
        numpy.testing.assert_array_equal(net.backward(x), dx)


@each_body
def test_a_frozen_convolution_computes_no_kernel_gradient(bodies, monkeypatch):
    from mtorch.fast.numpy import convolution
    from mtorch.layers import conv, conv_transpose

    for module in (conv, conv_transpose):
        monkeypatch.setattr(module, "convolve_weight_grad", refuse)
    for name in ("weight_grad", "channel_sum"):
        monkeypatch.setattr(convolution, name, refuse)
    with in_bodies(bodies):
        for kind in (layers.Conv2d, layers.ConvTranspose2d):
            net = freeze(kind(2, 2, 3, dtype="float64", rng=0))
            for n in (2, 64):
                y = net(numpy.ones((n, 2, 5, 5)))
                net.backward(y)
                net(numpy.ones((n, 2, 5, 5)))
                net.backward_parameters(y)


def test_a_formula_computes_no_gradient_of_a_frozen_parameter():
    w, x = Parameter(numpy.random.default_rng(0).standard_normal((3, 3))), Input("x")
    net = Graph.of(mtorch.tanh(x @ w) * 2.0)

    def back(verb):
        net(X)
        return products(getattr(net, verb), G)

    assert back("backward") == 2
    assert back("backward_parameters") == 1  # the gradient of the data is not computed
    w.trainable = False
    net(X)
    dx = net.backward(G)
    assert back("backward") == 1 and back("backward_parameters") == 0 and not w.has_grad
    w.trainable = True
    net(X)
    numpy.testing.assert_array_equal(net.backward(G), dx)
    assert w.has_grad and check_gradients(net, (4, 3), "longdouble") < 1e-10


def test_two_formulas_share_a_parameter_that_freezes_in_both():
    shared = linear()
    one, two = Sequential(shared, layers.Tanh()), Sequential(linear(1), shared)
    two[0].weight = shared.weight
    shared.weight.trainable = False
    for net in (one, two):
        net(X)
        net.backward(G)
    assert not shared.weight.has_grad and shared.bias.has_grad and two[0].bias.has_grad


# ---------------------------------------------------------------------- between forward and backward


@pytest.mark.parametrize("kind", NESTED)
def test_backward_goes_by_what_is_trainable_when_it_runs(kind):
    chain = [watch(), linear(0), watch(), linear(1), watch(), linear(2), watch()]
    net = NESTED[kind](*chain)
    net(X)
    net.backward_parameters(G)
    grads = {name: p.grad.copy() for name, p in net.parameters().items()}
    net.zero_grad()
    net(X)
    freeze(chain[1])
    net.backward_parameters(G)
    assert not chain[1].weight.has_grad and chain[3].weight.has_grad
    net.zero_grad()
    net(X)  # frozen in forward, thawed before backward
    thaw(chain[1])
    net.backward_parameters(G)
    for name, p in net.parameters().items():
        numpy.testing.assert_array_equal(p.grad, grads[name], err_msg=name)


def test_replaced_parameters_are_asked_too():
    net = Sequential(linear(0), watch(), linear(1))
    net[0].weight, net[0].bias = Parameter(numpy.ones((3, 3)), trainable=False), None
    net(X)
    net.backward_parameters(G)
    assert net[2].weight.has_grad and not net[0].weight.has_grad
    net[0].weight = Parameter(numpy.ones((3, 3)))
    net(X)
    net.backward_parameters(G)
    assert net[0].weight.has_grad


# ---------------------------------------------------------------------- threads and processes


def test_freezing_during_predictions_and_training_of_other_threads_disturbs_neither():
    net = Sequential(linear(), layers.Tanh(), linear(1))
    expected, errors, done = net.predict(X), [], threading.Event()

    def predict():
        try:
            while not done.is_set():
                numpy.testing.assert_array_equal(net.predict(X), expected)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for k in range(100):
            freeze(net[0], k % 2 == 0)
            net(X)
            net.backward_parameters(G)
            assert net[0].weight.has_grad == (k % 2 == 1)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_the_workers_of_data_parallel_learn_of_freezing_and_thawing():
    net, twin = (Sequential(linear(0), layers.Tanh(), linear(1)) for _ in range(2))
    parallel = DataParallel(net, workers=2)
    freeze(net[0])
    parallel(X)  # the workers begin with what is frozen now
    parallel.backward(G)
    assert [p.has_grad for p in net.parameters().values()] == [False, False, True, True]
    for k in range(4):
        frozen = (net[0], twin[0]) if k < 2 else (net[2], twin[2])
        for each in (net, twin):
            thaw(each).zero_grad()
        for layer in frozen:
            freeze(layer)
        parallel(X)
        twin(X)
        dx, expected = (each.backward(G) if k % 2 else each.backward_parameters(G) for each in (parallel, twin))
        assert (dx is None) == (expected is None)
        if k % 2:
            numpy.testing.assert_allclose(dx, expected, rtol=1e-12)
        for name, p in twin.parameters().items():
            assert net.parameters()[name].has_grad == p.has_grad
            numpy.testing.assert_allclose(net.parameters()[name].grad, p.grad, rtol=1e-12, atol=1e-14)
    freeze(net)
    parallel(X)
    assert parallel.backward_parameters(G) is None
    with pytest.raises(BackwardError):
        parallel.backward_parameters(G)


def test_setting_trainable_on_a_layer_freezes_and_thaws_all_below():
    net = Module(Sequential(layers.Linear(3, 4), layers.Tanh(), layers.Linear(4, 2)))
    assert net.trainable and net[0].trainable and not net[1].trainable
    net[0].trainable = False
    assert not net[0].trainable and net.trainable
    assert [p.trainable for p in net.parameters().values()] == [False, False, True, True]
    net.trainable = False
    assert not any(p.trainable for p in net.parameters().values())
    net.trainable = True
    assert all(p.trainable for p in net.parameters().values())
    with pytest.raises(TypeError, match="trainable"):
        net.trainable = "no"
