"""Module: the two ways to write one, and what they share."""

import copy
import pickle

import numpy
import pytest
from harness import assert_same
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import BackwardError, Buffer, Graph, Input, Module, Parameter, Sequential, ShapeMismatchError, layers
from mtorch.layer import EMPTY
from mtorch.layers import Linear, ReLU, Tanh
from mtorch.testing import check_gradients, strict

X = numpy.random.default_rng(0).standard_normal((4, 3)).astype("float32")


class Skip(Module):
    """y = fc2(tanh(fc1(x)) * scale + x)"""

    def __init__(self, out_dim=2, **options):
        super().__init__(**options)
        self.fc1, self.fc2 = Linear(3, 3, rng=0), Linear(3, out_dim, rng=1)
        self.scale = Parameter(numpy.ones(3, "float32"))
        self.half = 0.5

    def forward(self, x):
        h = mtorch.tanh(self.fc1(x)) * self.scale
        return self.fc2(h + x * self.half)


class Wrapped(Module):
    def __init__(self):
        super().__init__(Sequential(Linear(3, 4, rng=0), Tanh(), Linear(4, 2, rng=1)))


class Nested(Module):
    """Modules, lists, tuples and dicts of layers; some of it unused."""

    def __init__(self):
        super().__init__()
        self.skip, self.net = Skip(3), Wrapped()
        self.towers = [Linear(3, 3, rng=i) for i in range(2)]
        self.heads = {"left": Linear(2, 1, rng=2), "right": (Linear(2, 1, rng=3), Parameter(numpy.ones(1, "float32")))}
        self.mean = Buffer(numpy.full(3, 0.5, "float32"))
        self.unused = Linear(1, 1)

    def forward(self, x, weight):
        h = self.skip(x - self.mean)
        for tower in self.towers:
            h = mtorch.tanh(tower(h)) * weight
        h = self.net(h)
        right, scale = self.heads["right"]
        return self.heads["left"](h), right(h) * scale


def test_a_forward_becomes_a_graph_with_parameters_named_by_attribute():
    module = Skip()
    names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "scale"]
    assert sorted(module.parameters()) == sorted(module.state_dict()) == sorted(names)
    assert isinstance(module.core(), Graph) and module.parameters()["scale"] is module.scale
    expected = (numpy.tanh(X @ module.fc1.weight.value.T) + X * 0.5) @ module.fc2.weight.value.T
    assert_allclose(module(X), expected, rtol=1e-5, atol=1e-6)
    assert module(X).dtype == numpy.float32 and module.dtype == numpy.float32


def test_its_gradients_are_proved_like_any_layers():
    assert check_gradients(Skip().core(), X, "longdouble") < 1e-10
    assert check_gradients(Nested().core(), (X, numpy.ones((4, 1))), "longdouble") < 1e-10
    assert check_gradients(Skip(input_grad=True), X) < 1e-8


def test_names_go_through_modules_lists_tuples_and_dicts_and_unused_layers_stay():
    module = Nested()
    expected = {
        "skip.fc1.weight", "skip.fc1.bias", "skip.fc2.weight", "skip.fc2.bias", "skip.scale", "net.0.weight",
        "net.0.bias", "net.2.weight", "net.2.bias",
        "towers.0.weight", "towers.0.bias", "towers.1.weight", "towers.1.bias",
        "heads.left.weight", "heads.left.bias", "heads.right.0.weight", "heads.right.0.bias", "heads.right.1",
        "unused.weight", "unused.bias",
    }  # fmt: skip
    assert set(module.parameters()) == expected
    assert set(module.state_dict()) == expected | {"mean"}
    left, right = module((X, numpy.ones((4, 1))))
    module.backward((numpy.ones_like(left), numpy.ones_like(right)))
    assert all(p.has_grad != name.startswith("unused") for name, p in module.parameters().items())
    assert module.unused.training and module.skip.training
    module.eval()
    assert not (module.training or module.unused.training or module.skip.training or module.skip.fc1.training)


@pytest.mark.parametrize("unused", [Linear(3, 3, dtype="float64"), Linear(3, 3, xp=strict)])
def test_a_layer_that_nobody_uses_must_fit_the_others_too(unused):
    class Wider(Skip):
        def __init__(self):
            super().__init__()
            self.unused = unused

    with pytest.raises(ValueError, match="one array module and dtype"):
        Wider().core()


def test_backward_returns_none_unless_the_input_gradient_is_asked_for():
    module = Skip()
    y = module(X)
    assert module.backward(y) is None
    asking = Skip(input_grad=True)
    assert asking.backward(asking(X)).shape == X.shape
    with pytest.raises(BackwardError):
        module.backward(y)


def test_two_calls_one_backward_each_step_and_train():
    module = Skip()
    module(X)
    y = module(X)
    module.backward(y)
    before = {name: p.value.copy() for name, p in module.parameters().items()}
    grads = {name: p.grad.copy() for name, p in module.parameters().items()}
    module.step(0.1)
    for name, p in module.parameters().items():
        assert_allclose(p.value, before[name] - numpy.float32(0.1) * grads[name], rtol=1e-5, atol=1e-7)
    target = numpy.ones((4, 2), "float32") * [[1.0, -1.0]]
    loss_func, optimizer, losses = mtorch.SquareLoss(module), mtorch.SGD(module, lr=0.2), []
    for _ in range(50):
        loss = loss_func(module(X), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.value)
    assert losses[-1] < 0.05 * losses[0]


def test_predict_keeps_nothing_and_the_mode():
    class Dropping(Module):
        def __init__(self):
            super().__init__()
            self.drop = layers.Dropout(0.5, rng=0)

        def forward(self, x):
            return self.drop(x) * 2.0

    module = Dropping()
    assert_allclose(module.predict(X), 2 * X)
    assert module.training and module.drop.training and module.core()._memory is EMPTY
    y = module(X)
    assert not numpy.array_equal(y, 2 * X)
    assert_allclose(module.eval()(X), 2 * X)


def test_copies_pickles_and_conversions_compute_the_same_and_share_nothing():
    module = Nested()
    value = (X, numpy.ones((4, 1), "float32"))
    expected = module(value)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.to()):
        assert_same(twin(value), expected)
        assert twin.skip.fc1 is not module.skip.fc1
        twin.skip.fc1.weight.value[...] = 0  # the attributes are the graph's own layers
        assert not numpy.array_equal(twin(value)[0], expected[0])
    assert_same(module(value), expected)
    double = module.to(dtype="float64")
    assert double.dtype == double.skip.dtype == numpy.float64 and double.mean.value.dtype == numpy.float64
    assert_same(double(value), expected, 1e-6)
    device = module.to(xp=strict)
    assert_same(tuple(part.get() for part in device(tuple(map(strict.asarray, value)))), expected, 1e-6)


def test_state_goes_from_one_to_another():
    a, b = Skip(), Skip()
    a.scale.value *= 3
    b.load_state_dict(a.state_dict())
    assert_array_equal(a(X), b(X))
    with pytest.raises(ValueError, match=r"missing: scale; unexpected: nonsense"):
        b.load_state_dict({n: v for n, v in a.state_dict().items() if n != "scale"} | {"nonsense": numpy.ones(1)})


def test_a_module_is_a_layer_among_layers():
    net = Sequential(Skip(3), Tanh(), Wrapped())
    assert "0.fc1.weight" in net.parameters() and "2.0.weight" in net.parameters()
    assert check_gradients(net, X, "longdouble") < 1e-10
    graph = Graph.of(Skip(3)(Input("x")) * 2.0)
    assert "graph.fc1.weight" in graph.parameters() or "skip.fc1.weight" in graph.parameters()
    assert list(Module(Skip()).parameters()) == list(Skip().parameters())


def test_several_arguments_are_a_tuple_or_as_many_values():
    module = Nested()
    weight = numpy.ones((4, 1), "float32")
    assert_same(module(X, weight), module((X, weight)))
    assert_same(module.predict(X, weight), module.predict((X, weight)))
    with pytest.raises(ShapeMismatchError, match=r"expected a tuple of 2 \(x, weight\)"):
        module(X)


def test_errors_name_the_attribute_and_the_module():
    with pytest.raises(ShapeMismatchError) as caught:
        Nested()((X[:, :2], numpy.ones((4, 1))))
    assert caught.value.__notes__[-1] in ("in node 'skip' of Nested", "in node 'subtract' of Nested")
    with pytest.raises(ShapeMismatchError) as caught:
        Skip()(X[:, :2])
    assert caught.value.__notes__ == ["in node 'fc1' of Skip"]


def test_layers_that_do_not_fit_are_found_before_any_data_comes():
    class Misfit(Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = Linear(3, 4), Linear(5, 2)

        def forward(self, x):
            return self.fc2(self.fc1(x))

    with pytest.raises(ShapeMismatchError, match="expected 5 entries") as caught:
        Misfit().core()
    assert caught.value.__notes__ == ["in node 'fc2' of Misfit", "while Misfit.forward was run on Inputs"]


def test_another_layer_under_the_same_name_is_used_from_then_on():
    module = Skip()
    net = Sequential(module, ReLU())
    module.fc2 = Linear(3, 5, rng=7)
    assert module(X).shape == net(X).shape == (4, 5)
    assert module.parameters()["fc2.weight"] is module.fc2.weight
    module.scale = Parameter(numpy.zeros(3, "float32"))
    assert_allclose(module(X), (X * 0.5) @ module.fc2.weight.value.T, rtol=1e-5, atol=1e-6)
    y = module(X)
    module.history = [1.0, 2.0]  # no layer: a pending backward stays
    module.backward(y)
    fits, module.fc2 = module.fc2, Linear(4, 2)
    with pytest.raises(ShapeMismatchError, match="expected 4 entries"):
        module(X)
    module.fc2 = fits
    assert module(X).shape == (4, 5)
    module.towers = [Linear(2, 2)]
    module(X)
    module.towers[0] = Linear(3, 3)  # what changes in place goes unnoticed until it is said
    assert module.parameters()["towers.0.weight"].value.shape == (2, 2)
    module.retrace()
    assert module.parameters()["towers.0.weight"] is module.towers[0].weight
    wrapped = Wrapped()
    wrapped.net = Linear(3, 7)
    assert wrapped(X).shape == (4, 7)


def test_a_branch_on_the_mode_is_decided_once_in_train_mode():
    class Branching(Module):
        def __init__(self):
            super().__init__()
            self.fc = Linear(3, 3, rng=0)

        def forward(self, x):
            self.seen = [x]
            return self.fc(x) if self.training else x * 1.0

    module = Branching().eval()
    expected = module(X)
    module.fc = Linear(3, 3, rng=0)
    assert not module.training and not module.core().training
    assert_array_equal(module(X), expected)


def test_a_subclass_may_extend_its_parents_forward():
    class Doubled(Skip):
        def forward(self, x):
            return super().forward(x) * 2.0

    class Deeper(Doubled):
        def __init__(self):
            super().__init__()
            self.last = Linear(2, 2, rng=5)

        def forward(self, x):
            return self.last(super().forward(x))

    assert_allclose(Doubled()(X), 2 * Skip()(X), rtol=1e-6)
    assert "last.weight" in Deeper().parameters() and Deeper()(X).shape == (4, 2)


def test_layers_of_layers_keep_their_own_names_however_they_are_called():
    class Walks(Module):
        def __init__(self):
            super().__init__()
            self.body = Sequential(Linear(3, 3), ReLU())
            self.skip = Skip(3)

        def forward(self, x):
            for layer in self.body:
                x = layer(x)
            return self.skip.forward(x)

    assert set(Walks().state_dict()) == {"body.0.weight", "body.0.bias", *(f"skip.{n}" for n in Skip().state_dict())}


def test_arguments_with_a_default_keep_it():
    class Scaled(Module):
        def __init__(self):
            super().__init__()

        def forward(self, x, factor=3.0):
            return x * factor

    assert_array_equal(Scaled()([1.0, 2.0]), [3, 6])


def test_parameters_may_be_looked_at_in_init():
    class Small(Skip):
        def __init__(self):
            super().__init__()
            for parameter in self.parameters().values():
                parameter.value *= 0.1
            self.extra = Linear(1, 1)

    module = Small()
    assert "extra.weight" in module.parameters() and abs(module(X)).max() < 0.5


class ForgetsNothing(Module):
    pass


def forgets_init():
    class Forgets(Module):
        def __init__(self):
            self.fc = Linear(3, 3)

        def forward(self, x):
            return self.fc(x)

    return Forgets()


def returns(value):
    class Returns(Module):
        def forward(self, x):
            return value

    return Returns()


def takes_any():
    class TakesAny(Module):
        def forward(self, *x):
            return x[0] * 2.0

    return TakesAny()


def branches():
    class Branches(Module):
        def forward(self, x):
            return x if mtorch.sum(x) else -x

    return Branches()


def ignores():
    class Ignores(Module):
        def forward(self, x, y):
            return x * 2.0

    return Ignores()


def both():
    class Both(Module):
        def __init__(self):
            super().__init__(Linear(3, 3))

        def forward(self, x):
            return x

    return Both()


MISTAKES = {
    "no super().__init__()": (forgets_init, TypeError, r"Forgets.__init__ must begin with super\(\).__init__\(\)"),
    "neither net nor forward": (ForgetsNothing, TypeError, "ForgetsNothing wraps a layer, got None"),
    "net and forward": (both, TypeError, "Both defines forward"),
    "no layer": (lambda: Module("net"), TypeError, "Module wraps a layer, got 'net'"),
    "a forward that returns nothing": (lambda: returns(None), TypeError, "Returns.forward must return an expression"),
    "a forward that returns an array": (lambda: returns(X), TypeError, "Returns.forward must return an expression"),
    "a forward of any number of values": (takes_any, TypeError, "fixed number of arguments"),
    "a forward that branches on data": (branches, TypeError, "no truth value"),
    "a forward that ignores an argument": (ignores, ValueError, "never uses the input 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found_before_any_data_comes(mistake):
    make, error, text = MISTAKES[mistake]
    with pytest.raises(error, match=text):
        make().core()


def test_a_module_has_no_attributes_that_nobody_gave_it():
    with pytest.raises(AttributeError, match="'Skip' object has no attribute 'fc9'"):
        Skip().fc9  # noqa: B018


def test_a_wrapped_net_keeps_its_names_and_its_input_gradient_on_demand():
    module = Wrapped()
    assert list(module.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert module.core() is module.net and module(X).shape == (4, 2)
    asking = Module(module, input_grad=True)
    assert asking.backward(asking(X)).shape == X.shape


def containers():
    yield lambda m: Sequential(m, Linear(2, 2, rng=5))
    yield lambda m: mtorch.Residual(m, Linear(3, 2, rng=5))
    yield lambda m: mtorch.Fork(m, Linear(3, 2, rng=5))
    yield lambda m: Module(m)
    yield lambda m: Graph.of(m(Input()) * 2.0)


@pytest.mark.parametrize("wrap", list(containers()))
def test_a_layer_assigned_to_a_module_within_a_container_is_used_and_moved_at_once(wrap):
    module = Skip()
    net = wrap(module)
    optimizer = mtorch.SGD(net, lr=0.1)
    net(X)
    module.fc2 = Linear(3, 2, rng=9)
    before = module.fc2.weight.value.copy()
    y = net(X)
    net.backward_parameters(tuple(map(numpy.ones_like, y)) if isinstance(y, tuple) else numpy.ones_like(y))
    optimizer.step()
    assert not numpy.array_equal(module.fc2.weight.value, before)
    assert any(p is module.fc2.weight for p in net.parameters().values())


def test_a_failing_forward_is_tried_again_and_a_frozen_layer_stays_frozen():
    class Fragile(Skip):
        broken = False

        def __init__(self):
            super().__init__()
            self.norm = layers.BatchNorm1d(2)

        def forward(self, x):
            if self.broken:
                raise RuntimeError("broken")
            return self.norm(super().forward(x))

    module = Fragile()
    module(X)
    module.norm.eval()
    module.fc2, Fragile.broken = Linear(3, 2, rng=9), True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            module(X)
    Fragile.broken = False
    module(X)
    assert module.parameters()["fc2.weight"] is module.fc2.weight and not module.norm.training and module.training


def test_a_plain_layer_may_hold_a_module():
    class Holder(mtorch.Layer):
        def __init__(self, module):
            super().__init__()
            self.inner = module

        def forward(self, x):
            self.remember()
            return self.inner(x)

        def backward(self, output_grad):
            g = self.cast_grad(output_grad)
            self.recall()
            return self.inner.backward(g)

    for module in (Module(Linear(3, 2, rng=0), input_grad=True), Skip(input_grad=True)):
        holder = Holder(module)
        assert {name.removeprefix("inner.") for name in holder.parameters()} == set(module.parameters())
        before = holder.state_dict()
        holder.backward(numpy.ones_like(holder(X)))
        holder.step(0.1)
        assert all((value != before[name]).any() for name, value in holder.state_dict().items())


def test_two_threads_may_use_a_module_first():
    import threading

    module = Skip()
    thread = threading.Thread(target=lambda: module.predict(X))
    thread.start()
    y = module(X)
    thread.join()
    module.backward(y)
    assert all(p.has_grad for p in module.parameters().values())


def test_a_module_within_a_module_takes_ids_as_any_of_its_inputs_and_gives_the_parts_of_a_tuple():
    class Encoder(Module):
        def __init__(self):
            super().__init__()
            self.embed, self.gru = layers.Embedding(5, 3, rng=0), layers.GRU(3, 3, return_state=True, rng=1)

        def forward(self, ids):
            return self.gru(self.embed(ids))

    class Decoder(Module):
        def __init__(self):
            super().__init__()
            self.embed, self.gru = layers.Embedding(5, 3, rng=2), layers.GRU(3, 3, rng=3)

        def forward(self, first, ids):
            return self.gru((first, self.embed(ids)))

    class Both(Module):
        def __init__(self):
            super().__init__(input_grad=True)
            self.encoder, self.decoder = Encoder(), Decoder()

        def forward(self, source, target):
            state, h = self.encoder(source)
            return self.decoder(state, target) + mtorch.mean(h)

    ids = numpy.array([[0, 1], [2, 3], [4, 4]])
    net = Both()
    y = net(ids, ids)
    assert net.backward(numpy.ones_like(y)) == (None, None)
    state, h = net.encoder(ids)
    assert_allclose(y, net.decoder(state, ids) + h.mean(), rtol=1e-6)
    assert all(p.has_grad for p in net.parameters().values())
