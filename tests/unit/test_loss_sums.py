"""Losses as numbers: sums of several on one output or on several outputs of one net, factors, and what is refused."""

import copy
import gc
import pickle
import weakref

import numpy
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import (
    SGD,
    BackwardError,
    CrossEntropyLoss,
    DataParallel,
    Fork,
    Loss,
    Module,
    MSELoss,
    Sequential,
    SquareLoss,
    layers,
)
from mtorch.testing import strict

LABELS = numpy.array([0, 2, 1, 1])


class TwoHeads(Module):
    """x -> (scores (N, 3), (place (N, 2), size (N, 1)))."""

    def __init__(self, dtype="float64", **options):
        super().__init__()
        nn = layers.on(numpy, dtype=dtype, rng=0)
        self.body, self.scores, self.place, self.size = (
            nn.Linear(4, 3),
            nn.Linear(3, 3),
            nn.Linear(3, 2),
            nn.Linear(3, 1),
        )

    def forward(self, x):
        h = mtorch.tanh(self.body(x))
        return self.scores(h), (self.place(h), self.size(h))


def data(dtype="float64"):
    rng = numpy.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((4, 4), (4, 2), (4, 1))]


def grads(module):
    return {name: parameter.grad.copy() for name, parameter in module.parameters().items()}


def one_output(dtype="float64"):
    return Module(Sequential(layers.Linear(4, 3, dtype=dtype, rng=0), layers.Tanh(dtype=dtype)))


# ---------------------------------------------------------------------- one output


def test_two_losses_on_one_output_have_one_gradient():
    module, (x, *_), target = one_output(), data(), numpy.full((4, 3), 0.3)
    y = module(x)
    a, b = MSELoss(module)(y, target), CrossEntropyLoss(module)(y, LABELS)
    total = a + 0.5 * b
    assert isinstance(total, Loss) and total.value == pytest.approx(a.value + 0.5 * b.value)
    assert_allclose(total.grad, a.grad + 0.5 * b.grad)
    total.backward()
    found = grads(module)
    module.zero_grad()
    module(x)
    module.backward(a.grad + 0.5 * b.grad)
    for name, grad in grads(module).items():
        assert_allclose(found[name], grad)


def test_a_sum_does_what_numbers_do():
    y = numpy.array([[1.0, 2.0]])
    a, b = MSELoss()(y, y + 1), SquareLoss()(y, y - 2)
    assert (a.value, b.value) == (1.0, 4.0)
    cases = [
        (a + b, 5),
        (a - b, -3),
        (-a, -1),
        (+a, 1),
        (3 * a, 3),
        (b / 2, 2),
        (sum([a, b]), 5),
        (1 - a, 0),
        (a + 2, 3),
    ]
    cases += [(a - 2, -1), (numpy.float64(0.5) * b, 2), (numpy.float32(0.5) * b, 2), (numpy.int64(2) * a, 2)]
    for total, value in cases:
        assert total.value == float(total) == value
    assert f"{a + b:.3f}" == "5.000" and f"{a + b}" == repr(a + b) == "Loss(5.0)" and f"{0.5 * b:6.1f}" == "   2.0"
    assert_array_equal((a - 2 * b).grad, a.grad - 2 * b.grad)
    assert_array_equal((1 - a).grad, -a.grad)
    assert a.value == 1 and b.value == 4  # neither was changed


@pytest.mark.parametrize("dtype", ["float16", "float32", "longdouble"])
def test_a_factor_changes_no_dtype(dtype):
    y = numpy.ones((2, 3), dtype)
    loss = MSELoss()(y, y + 1)
    assert (numpy.float64(0.5) * loss + loss).grad.dtype == loss.grad.dtype


@pytest.mark.parametrize(
    "wrong",
    [lambda a: a + "2", lambda a: a * True, lambda a: a + None, lambda a: a * a, lambda a: a / a, lambda a: 2 / a],
)
def test_what_is_no_number_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="unsupported operand"):
        wrong(MSELoss()(numpy.ones(3), numpy.zeros(3)))


def test_what_is_not_finite_is_a_value_error():
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="MSELoss expected a finite factor"):
            wrong * MSELoss()(numpy.ones(3), numpy.zeros(3))


def test_arrays_do_not_spread_over_a_loss():
    for wrong in (lambda a: numpy.ones(3) * a, lambda a: a * numpy.ones(3), lambda a: numpy.ones(3) + a):
        with pytest.raises(TypeError):
            wrong(MSELoss()(numpy.ones(3), numpy.zeros(3)))


# ---------------------------------------------------------------------- several outputs


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_every_loss_finds_its_head(order):
    module, (x, place, size) = TwoHeads(), data()
    scores, (there, large) = module(x)
    terms = [
        CrossEntropyLoss(module)(scores, LABELS),
        0.5 * MSELoss(module)(there, place),
        SquareLoss(module)(large, size),
    ]
    total = sum(terms[i] for i in order)
    assert total.value == pytest.approx(sum(term.value for term in terms))
    assert_array_equal(total.grad[0], terms[0].grad)
    assert_array_equal(total.grad[1][0], terms[1].grad)
    total.backward()
    found = grads(module)
    module.zero_grad()
    module(x)
    module.backward((terms[0].grad, (terms[1].grad, terms[2].grad)))
    for name, grad in grads(module).items():
        assert_allclose(found[name], grad)


def test_a_head_without_a_loss_gets_zeros():
    module, (x, place, _) = TwoHeads(), data()
    there = module(x)[1][0]
    MSELoss(module)(there, place).backward()
    found = grads(module)
    assert found["place.weight"].any() and found["body.weight"].any()
    assert not found["scores.weight"].any() and not found["size.weight"].any()


def test_two_losses_on_one_head_and_one_on_another():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module(x)
    a, b, c = MSELoss(module)(there, place), SquareLoss(module)(there, 2 * place), MSELoss(module)(large, size)
    total = (a + c) + b
    assert_allclose(total.grad[1][0], a.grad + b.grad)
    assert_array_equal(total.grad[1][1], c.grad)
    assert total.grad[0] is None
    total.backward()


def test_the_predictions_need_not_live_until_backward():
    module, (x, place, size) = TwoHeads("float32"), data("float32")

    def loss():
        _, (there, large) = module(x)
        return MSELoss(module)(there, place) + MSELoss(module)(large, size)

    total = loss()
    gc.collect()
    total.backward()
    assert module.parameters()["size.weight"].has_grad


def test_a_loss_keeps_no_prediction():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module(x)
    total = MSELoss(module)(there, place) + MSELoss(module)(large, size)
    kept = [weakref.ref(there), weakref.ref(large)]
    module.zero_grad()
    module.core().forget()
    del there, large, _
    gc.collect()
    assert total.value > 0 and [each() for each in kept] == [None, None]


def test_weights_reach_the_head():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module(x)
    each = MSELoss(module, reduction="none")(there, place)
    weights = numpy.arange(8.0).reshape(4, 2)
    total = each.weighted(weights) + MSELoss(module)(large, size)
    assert total.value == pytest.approx((weights * each.value).sum() + MSELoss()(large, size).value)
    total.backward()
    found = grads(module)["place.weight"]
    module.zero_grad()
    there = module(x)[1][0]
    MSELoss(module, reduction="none")(there, place).backward(weights)
    assert_allclose(found, grads(module)["place.weight"])


@pytest.mark.parametrize("input_grad", [False, True])
def test_the_module_may_be_given_in_any_form(input_grad):
    """The module, its method, its net, and a module around a module drive one net."""
    net = Sequential(layers.Linear(4, 3, rng=0), Fork(layers.Linear(3, 2, rng=0), layers.Linear(3, 1, rng=0)))
    module, (x, place, size) = Module(net, input_grad=input_grad), data("float32")
    first, second = module(x)
    total = MSELoss(module.backward)(first, place) + MSELoss(net)(second, size)
    dx = total.backward()
    assert (dx is not None and dx.shape == x.shape) if input_grad else dx is None
    assert all(parameter.has_grad for parameter in net.parameters().values())


def test_fast_and_reference_bodies_and_recurrent_tuples():
    """An LSTM with return_state is a net of several heads like any other."""
    lstm = layers.LSTM(3, 2, return_state=True, dtype="float64", rng=0)
    x = numpy.random.default_rng(0).standard_normal((5, 4, 3))
    (h, c), y = lstm(x)
    total = MSELoss(lstm)(y, numpy.zeros_like(y)) + 2 * MSELoss(lstm)(c, numpy.ones_like(c))
    dx = total.backward()
    (h, c), y = lstm(x)
    wanted = lstm.backward(((numpy.zeros_like(h), 4 * (c - 1) / c.size), 2 * y / y.size))
    assert_allclose(dx, wanted)


def test_one_array_at_two_places_gets_its_gradient_once():
    class Twice(layers.Identity):
        def forward(self, x):
            self.remember()
            return x, x

        def backward(self, output_grad):
            a, b = self.cast_grad(output_grad)
            self.recall()
            return a + b

    module = Module(Sequential(layers.Linear(4, 2, rng=0), Twice()))
    a, b = module(data("float32")[0])
    assert a is b
    loss = MSELoss(module)(a, 0 * a)
    loss.backward()
    assert_allclose(module.parameters()["0.bias"].grad, loss.grad.sum(axis=0), rtol=1e-5)


# ---------------------------------------------------------------------- what is refused


def refused(total, module):
    """backward is a ValueError which says what was expected, and changes nothing: the right call still works."""
    with pytest.raises(
        ValueError, match="an array that the last forward of TwoHeads|Graph.* returned, the array itself"
    ):
        total.backward()
    assert not any(parameter.has_grad for parameter in module.parameters().values())


def test_a_part_or_a_copy_of_a_head_is_refused():
    module, (x, _, size) = TwoHeads(), data()
    scores, (there, large) = module(x)
    rest = MSELoss(module)(large, size)
    for part in (there[:, 0], there.copy(), there[:], 2 * there):
        wrong = MSELoss(module)(part, numpy.zeros_like(part))
        assert (wrong + rest).value == wrong.value + rest.value  # for a report
        refused(wrong + rest, module)
        refused(rest - wrong, module)
        refused(0.5 * (rest + wrong) + rest, module)
        refused(wrong, module)
    rest.backward()


def test_losses_of_two_forwards_are_refused():
    module, (x, place, size) = TwoHeads(), data()
    old = MSELoss(module)(module(x)[1][0], place)
    pair = MSELoss(module)(module(x)[1][0], place)
    large = module(x)[1][1]
    new = MSELoss(module)(large, size)
    refused(old + new, module)
    refused(old, module)
    refused(pair, module)
    total = new + MSELoss(module)(large, size)
    module(x)
    refused(total, module)


def test_losses_of_two_forwards_of_one_output_are_refused():
    module, (x, *_) = one_output(), data()
    real, fake = module(x), module(2 * x)
    total = MSELoss(module)(real, 0 * real) + MSELoss(module)(fake, 0 * fake)
    with pytest.raises(ValueError, match="and no forward between"):
        total.backward()
    # an array that went and another that came to its address are two, too
    total = MSELoss(module)(module(x), 0 * x[:, :3]) + MSELoss(module)(module(x), 0 * x[:, :3])
    with pytest.raises(ValueError, match="and no forward between"):
        total.backward()


def test_a_running_total_keeps_numbers_only():
    module, (x, *_) = one_output(), data()
    total = 0
    for _ in range(3):
        total = total + MSELoss(module)(module(x), 0 * x[:, :3])
    assert total.grad is None and total.value > 0


def test_losses_of_two_nets_do_not_add():
    one, two, (x, *_) = one_output(), one_output(), data()
    a, b = MSELoss(one)(one(x), 0 * x[:, :3]), MSELoss(two)(two(x), 0 * x[:, :3])
    for wrong in (lambda: a + b, lambda: a - b, lambda: sum([a, b])):
        with pytest.raises(ValueError, match=r"MSELoss \+ MSELoss drive different nets"):
            wrong()
    with pytest.raises(ValueError, match="different nets"):
        a + MSELoss()(one(x), 0 * x[:, :3])


def test_a_second_backward_says_that_losses_add():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module(x)
    a, b = MSELoss(module)(there, place), MSELoss(module)(large, size)
    a.backward()
    with pytest.raises(BackwardError, match=r"add the losses of one forward: \(a \+ b\).backward\(\)"):
        b.backward()
    module = one_output()
    y = module(x)
    a, b = MSELoss(module)(y, 0 * y), MSELoss(module)(y, 1 + y)
    a.backward()
    with pytest.raises(BackwardError, match=r"\(a \+ b\).backward\(\)"):
        b.backward()


def test_a_value_for_each_item_is_no_number():
    y = numpy.ones((4, 3))
    each, a = MSELoss(reduction="none")(y, 0 * y), MSELoss()(y, 0 * y)
    for wrong in (lambda: each + a, lambda: a + each, lambda: 2 * each, lambda: -each, lambda: float(each)):
        with pytest.raises(ValueError, match=r"MSELoss has a value for each item, of shape \(4, 3\).*weighted"):
            wrong()
    with pytest.raises(ValueError, match="each item"):
        f"{each:.3f}"
    assert f"{each}" == repr(each)
    with pytest.raises(ValueError, match="no weights"):
        a.weighted([1.0])


def test_predictions_are_values_for_a_report():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module.predict(x)
    total = MSELoss(module)(there, place) + 0.5 * MSELoss(module)(large, size)
    assert total.value == pytest.approx(MSELoss()(there, place).value + 0.5 * MSELoss()(large, size).value)
    refused(total, module)


def test_predict_leaves_a_pending_backward_alone():
    module, (x, place, size) = TwoHeads(), data()
    _, (there, large) = module(x)
    total = MSELoss(module)(there, place) + MSELoss(module)(large, size)
    module.predict(2 * x)
    total.backward()


def test_a_loss_without_a_net_adds_up_and_drives_nothing():
    y = numpy.ones((4, 3))
    total = MSELoss()(y, 0 * y) + SquareLoss()(2 * y, 0 * y)
    assert total.value == pytest.approx(1 + 6)
    with pytest.raises(BackwardError, match="has no net to drive"):
        total.backward()


def test_a_function_takes_the_gradient_of_a_sum_on_one_array():
    caught, y = [], numpy.ones((4, 3))
    loss = MSELoss(caught.append)
    (loss(y, 0 * y) + 2 * loss(y, 2 * y)).backward()
    assert_allclose(caught[0], -2 * y / 12)
    with pytest.raises(ValueError, match="expected each prediction"):
        (loss(y, 0 * y) + loss(2 * y, 2 * y)).backward()


def test_a_net_that_returned_a_tuple_before_returns_an_array_now():
    class Either(layers.Identity):
        def forward(self, x):
            self.remember(self.pair)
            return (x, 2 * x) if self.pair else x

        def backward(self, output_grad):
            g = self.cast_grad(output_grad)
            return g[0] + 2 * g[1] if self.recall() else g

    layer, x = Either(dtype="float64"), data()[0]
    layer.pair = True
    layer(x)
    layer.pair = False
    y = layer(x)
    dx = (MSELoss(layer)(y, 0 * y) + MSELoss(layer)(y, 0 * y)).backward()
    assert_allclose(dx, 4 * y / y.size)


# ---------------------------------------------------------------------- copies, devices, training


def test_copies_and_pickles_between_forward_and_backward():
    module, (x, place, size) = Module(Fork(layers.Linear(4, 2, rng=0), layers.Linear(4, 1, rng=0))), data("float32")
    there, large = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        twin.backward((there, large))
        assert twin.parameters()["0.weight"].has_grad
    total = MSELoss(module)(there, place) + MSELoss(module)(large, size)
    assert pickle.loads(pickle.dumps(MSELoss()(there, place) * 2)).value == 2 * MSELoss()(there, place).value
    total.backward()


def test_on_a_device_nothing_waits_for_a_sum():
    xp = strict
    net = Fork(layers.Linear(4, 2, xp=xp, rng=0), layers.Linear(4, 1, xp=xp, rng=0))
    x = xp.asarray(data("float32")[0])
    loss = MSELoss(net)
    with strict.count_synchronisations() as places:
        first, second = net(x)
        total = loss(first, xp.zeros_like(first)) + 0.5 * loss(second, xp.zeros_like(second)) - 1
        lazy = total.lazy_value
        total.backward()
    assert not places
    assert not isinstance(lazy, float) and float(total) == pytest.approx(float(lazy))


def test_a_net_of_two_heads_learns():
    module, (x, place, size) = TwoHeads(), data()
    place_loss, size_loss, optimizer = MSELoss(module), SquareLoss(module), SGD(module, lr=0.1)
    history = []
    for _ in range(60):
        _, (there, large) = module(x)
        loss = place_loss(there, place) + 0.5 * size_loss(large, size)
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    assert history[-1] < 0.3 * history[0]


def test_a_sum_of_losses_trains_and_evaluates_like_one_loss():
    from mtorch.training.loop import evaluate, train_epoch

    module, (x, *_) = one_output(), data()
    cross, square = CrossEntropyLoss(module), SquareLoss(module, transform=True)

    def loss(prediction, labels):
        return cross(prediction, labels) + 0.5 * square(prediction, labels)

    batches = [(x, LABELS), (2 * x, LABELS)]
    before = evaluate(module, loss, batches).loss
    for _ in range(20):
        train_epoch(module, loss, SGD(module, lr=0.5), batches)
    assert evaluate(module, loss, batches).loss < before


def test_heads_of_a_net_that_is_divided_among_processes():
    nn = layers.on(numpy, dtype="float64", rng=0)
    net = Sequential(nn.Linear(4, 3), Fork(nn.Linear(3, 2), nn.Linear(3, 1)))
    x, place, size = (numpy.concatenate([part] * 3) for part in data())
    found = []
    for module in (Module(net), Module(DataParallel(copy.deepcopy(net), workers=2))):
        there, large = module(x)
        (MSELoss(module)(there, place) + 0.5 * MSELoss(module)(large, size)).backward()
        found.append(list(grads(module).values()))
    for one, two in zip(*found, strict=True):
        assert_allclose(one, two, rtol=1e-12)


@pytest.mark.gpu
def test_heads_on_a_gpu():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install -e '.[cuda12]'")
    net = Fork(layers.Linear(4, 2, xp=cupy, rng=0), layers.Linear(4, 1, xp=cupy, rng=0))
    loss, x = MSELoss(net), cupy.asarray(data("float32")[0])
    first, second = net(x)
    total = loss(first, cupy.zeros_like(first)) + 0.5 * loss(second, cupy.zeros_like(second))
    assert isinstance(total.lazy_value, cupy.ndarray)
    total.backward()
    assert float(total) > 0 and net.parameters()["1.weight"].has_grad
    assert isinstance(cupy.ones((2, 4), dtype="float32") * net.parameters()["0.weight"], mtorch.graph.Expression)


@pytest.mark.parametrize("driven", [True, False])
def test_a_sum_tells_what_the_device_found_in_any_of_its_losses(driven):
    xp, labels = strict, strict.asarray([0, 9])
    net = layers.Linear(4, 3, xp=xp, rng=0)
    y = net(xp.asarray(data("float32")[0][:2]))
    cross, square = (kind(net) if driven else kind() for kind in (CrossEntropyLoss, MSELoss))
    for total in (
        lambda: cross(y, labels) + square(y, xp.zeros_like(y)),
        lambda: square(y, xp.zeros_like(y)) + 0.5 * cross(y, labels),
        lambda: 1 - cross(y, labels),
    ):
        with pytest.raises(ValueError, match=r"labels in \[0, 3\)"):
            float(total())
    assert float(square(y, xp.zeros_like(y)) + 1) > 1


def test_a_fault_that_two_losses_may_have_is_told_if_either_has_it():
    xp = strict
    y, loss = xp.asarray(data("float32")[0][:2]), CrossEntropyLoss()
    for labels in (([0, 9], [0, 1]), ([0, 1], [9, 0])):
        a, b = (loss(y, xp.asarray(each)) for each in labels)
        with pytest.raises(ValueError, match=r"labels in \[0, 4\)"):
            float(a + b)
