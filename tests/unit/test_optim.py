"""Optimizers: golden paths, what each rewrite touches, state, resuming, and what is refused."""

import copy
import json
import math
import pickle
import textwrap
from pathlib import Path

import numpy
import pytest

import mtorch
from mtorch import Adadelta, Adagrad, Adam, AdamW, Layer, Module, MSELoss, Parameter, RMSprop, Sequential, layers, optim
from mtorch.optim import SGD, schedules
from mtorch.testing import strict

GOLDEN = json.loads(Path(__file__).with_name("golden_optim.json").read_text())
ALL = {
    "SGD": (SGD, {"lr": 0.1}),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": (Adagrad, {}),
    "RMSprop": (RMSprop, {}),
    "RMSprop centered": (RMSprop, {"centered": True, "momentum": 0.5}),
    "Adadelta": (Adadelta, {}),
    "Adam": (Adam, {}),
    "AdamW": (AdamW, {}),
}
every_optimizer = pytest.mark.parametrize("cls, options", ALL.values(), ids=ALL)
with_state = pytest.mark.parametrize("cls, options", list(ALL.values())[1:], ids=list(ALL)[1:])
RNG = numpy.random.default_rng(0)
X, T = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 2))


class Values(Layer):
    """Holds parameters and does nothing."""

    def __init__(self, dtype="float64", **values):
        super().__init__(dtype=dtype)
        for name, value in values.items():
            setattr(self, name, Parameter(numpy.array(value, dtype)))


def one(value=(1.0, -2.0), dtype="float64"):
    return Values(dtype, w=value)


def move(optimizer, *grads):
    """One step for each gradient of the first parameter."""
    for grad in grads:
        next(iter(optimizer.named.values())).accumulate(numpy.asarray(grad))
        optimizer.step()
    return next(iter(optimizer.named.values())).value


def small(dtype="float64", xp=numpy):
    nn = layers.on(xp, dtype=dtype, rng=0)
    return Module(Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))


def train(module, optimizer, steps=1):
    loss_func = MSELoss(module)
    for _ in range(steps):
        loss_func(module(X), T).backward()
        optimizer.step()


def copies(module):
    return {name: value.copy() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if (value != before[name]).any()}


# ---------------------------------------------------------------------- numbers that are too large or too small


@every_optimizer
@pytest.mark.parametrize("huge", [1e19, 2e19, 1e30, math.inf, math.nan])
def test_a_huge_gradient_does_not_stop_a_step_halfway(cls, options, huge):
    def moved(first):
        values = Values("float32", a=[1.0], b=[1.0, 2.0])
        optimizer = cls(values, **options)
        for _ in range(3):
            values.a.accumulate(numpy.array([first], "float32"))
            values.b.accumulate(numpy.array([0.5, -1.0], "float32"))
            optimizer.step()
        assert optimizer.steps == 3
        return values

    values = moved(huge)
    assert (values.b.value == moved(1.0).b.value).all()
    if huge < 1.8e19:
        assert numpy.isfinite(values.a.value).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("cls", [Adagrad, RMSprop, Adadelta, Adam, AdamW])
def test_without_eps_a_gradient_of_zero_moves_nothing(cls, dtype):
    for options in ({"eps": 0}, {"eps": 0, "centered": True}) if cls is RMSprop else ({"eps": 0},):
        values = one([1.0, 1.0, 1.0], dtype)
        plain = {"weight_decay": 0} if cls is AdamW else {}
        vanishing = numpy.finfo(dtype).smallest_normal  # its square is no number
        moved = move(cls(values, lr=0.125, **options, **plain), *[numpy.array([0.0, vanishing, 1.0], dtype)] * 2)
        assert moved[0] == 1 and 0.75 <= moved[1] <= 1
        assert moved[2] < 1 or cls is Adadelta  # whose first step is as long as its eps


def test_the_variance_of_a_constant_gradient_is_never_negative():
    """By rounding it comes out below 0 in one of these steps each, and the root of it would be NaN."""
    values = one([0.0, 0.0, 0.0], "float32")
    optimizer = RMSprop(values, lr=1e-3, alpha=0.5, centered=True)
    gradients = [numpy.array([0.3, 1.3, 3.3], "float32")] * 100
    assert numpy.isfinite(move(optimizer, *gradients)).all()


# ---------------------------------------------------------------------- the rules


@pytest.mark.parametrize("row", GOLDEN["table"], ids=lambda row: f"{row['optimizer']} {row['options']}")
def test_paths_are_the_golden_ones(row):
    module = one(GOLDEN["start"])
    optimizer = getattr(optim, row["optimizer"])(module, **row["options"])
    for grad, expected in zip(GOLDEN["grads"], row["path"], strict=True):
        numpy.testing.assert_allclose(move(optimizer, grad), expected, rtol=0, atol=1e-12)


def test_sgd_as_it_comes_moves_by_the_rate_times_the_gradient():
    """An original's SGD moved by twice that with its default options."""
    assert move(SGD(one([1.0]), lr=0.5), [1.0]) == [0.5]


def test_momentum_descends_and_does_not_climb():
    """An original's momentum had the wrong sign."""
    module, path = one([4.0]), [4.0]
    optimizer = SGD(module, lr=0.1, momentum=0.5)
    for _ in range(5):
        path.append(move(optimizer, module.w.value.copy())[0])  # downhill on w^2 / 2
    assert path == sorted(path, reverse=True) and path[-1] < 1.5
    assert path[2] == pytest.approx(path[1] - 0.1 * (path[1] + 0.5 * path[0]))


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_adams_first_step_is_the_rate_whatever_the_gradients_size(size):
    """Without bias correction an original's first step was more than three times as long."""
    for cls in (Adam, AdamW):
        moved = move(cls(one([0.0, 0.0]), lr=0.01, eps=0), [size, -size])
        numpy.testing.assert_allclose(moved, [-0.01, 0.01], rtol=1e-12)


def test_a_schedule_gives_each_step_its_rate():
    asked = []

    def rate(k):
        asked.append(k)
        return 1.0 / (k + 1)

    optimizer = SGD(one([10.0]), lr=rate)
    del asked[:]
    path = [float(move(optimizer, [1.0])[0]) for _ in range(3)]
    numpy.testing.assert_allclose(path, [9, 8.5, 8.5 - 1 / 3])
    assert asked == [0, 1, 2] and optimizer.rate == 0.25
    assert move(SGD(one([1.0]), schedules.StepLR(0.1, 1, 0.5)), [1.0], [1.0]) == pytest.approx([0.85])


def test_the_rate_may_be_changed_between_steps_and_never_enters_the_state():
    module = one([1.0])
    optimizer = SGD(module, lr=0.1, momentum=0.5)
    move(optimizer, [1.0])
    optimizer.lr = 0.0
    assert move(optimizer, [1.0]) == [0.9]
    optimizer.lr = 1.0
    numpy.testing.assert_allclose(move(optimizer, [1.0]), [0.9 - 1.75])
    for key in optimizer.state_dict():
        assert "lr" not in key and "rate" not in key


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_values_and_state_keep_the_dtype(cls, options, dtype):
    module = small(dtype)
    optimizer = cls(module, **options, weight_decay=0.1, clip_norm=1, scale={"0.*": 0.5})
    train(module, optimizer, 2)
    kinds = {p.value.dtype for p in module.parameters().values()}
    kinds |= {a.dtype for a in optimizer.state_dict().values() if isinstance(a, numpy.ndarray)}
    assert kinds == {numpy.dtype(dtype)}
    assert optimizer.lr == options.get("lr", optimizer.lr) and optimizer.steps == 2


@every_optimizer
def test_memory_order_changes_nothing(cls, options):
    """Large arrays of another memory order move as others do."""
    size = (50_000, 3)
    start, grads = RNG.standard_normal(size), RNG.standard_normal((2, *size))
    rows, columns = one(start), one(start)
    columns.w.value = numpy.asfortranarray(columns.w.value)
    for module in (rows, columns):
        move(cls(module, **options, weight_decay=0.1, clip_value=0.7), *grads)
    numpy.testing.assert_array_equal(rows.w.value, columns.w.value)
    assert (rows.w.value != start).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_steps_of_large_arrays_are_right_too(order):
    size = (20_000, 33)
    start, grad = RNG.standard_normal(size), RNG.standard_normal(size)
    module = one(start)
    module.w.value = numpy.array(start, order=order)
    move(SGD(module, 0.5), grad)
    numpy.testing.assert_array_equal(module.w.value, start - grad * 0.5)


# ---------------------------------------------------------------------- the rewrites around the rule


def test_clipping_by_norm_scales_all_gradients_together_and_only_down():
    module = Values(a=[3.0, 0.0], b=[[4.0]])
    optimizer = SGD(module, lr=1.0, clip_norm=1.0)
    for name, value in (("a", [3.0, 0.0]), ("b", [[4.0]])):
        getattr(module, name).accumulate(numpy.array(value))
    optimizer.step()
    numpy.testing.assert_allclose(module.a.value, [3 - 3 / (5 + 1e-6), 0], rtol=1e-14)
    numpy.testing.assert_allclose(module.b.value, [[4 - 4 / (5 + 1e-6)]], rtol=1e-14)
    assert move(SGD(one([1.0]), lr=1.0, clip_norm=5.0), [0.25]) == [0.75]
    assert move(SGD(one([1.0]), lr=1.0, clip_norm=0), [0.25]) == [1.0]


@pytest.mark.parametrize("dtype, size", [("float32", 1e30), ("float64", 1e300)])
def test_clipping_by_norm_survives_gradients_whose_squares_overflow(dtype, size):
    moved = move(SGD(one([0.0, 0.0], dtype), lr=1.0, clip_norm=5.0), numpy.array([3 * size, -4 * size], dtype))
    numpy.testing.assert_allclose(moved, [-3, 4], rtol=1e-6)


def test_clipping_by_value_holds_each_entry():
    assert move(SGD(one([0.0, 0.0, 0.0]), lr=1.0, clip_value=0.5), [2.0, -3.0, 0.25]).tolist() == [-0.5, 0.5, -0.25]


def test_clipping_comes_before_weight_decay():
    assert move(SGD(one([8.0]), lr=1.0, clip_value=1.0, weight_decay=0.25), [100.0]) == [8.0 - (1.0 + 2.0)]


@every_optimizer
def test_the_gradient_stays_readable_and_unchanged_until_the_module_steps(cls, options):
    class Watched(Values):
        def step(self, lr):
            self.seen = self.w.grad.copy()
            super().step(lr)

    module = Watched(w=[1.0, 2.0])
    move(cls(module, **options, weight_decay=0.5, clip_value=0.5, clip_norm=0.1), [3.0, -4.0])
    assert module.seen.tolist() == [3.0, -4.0]
    assert module.w.grad.tolist() == [0.0, 0.0] and module.w.direction is None


def test_frozen_parameters_stay_and_count_for_nothing():
    for cls, options in ALL.values():
        module = small()
        module.parameters()["0.weight"].trainable = False
        before = copies(module)
        optimizer = cls(module, **options, weight_decay=0.1)
        train(module, optimizer, 2)
        assert changed(module, before) == {"0.bias", "2.weight", "2.bias"}
        assert not module.parameters()["0.weight"].grad.any()
        assert optimizer.state_dict().get("0.weight.steps", 0) == 0
    module = Values(a=[0.0], b=[0.0])
    module.a.trainable = False
    for parameter in (module.a, module.b):
        parameter.accumulate(numpy.array([100.0]))
    SGD(module, lr=1.0, clip_norm=200.0).step()
    assert module.b.value == [-100.0] and module.a.value == [0.0]


def test_scale_changes_rates_by_dotted_name_and_the_last_pattern_counts():
    module, plain = small(), small()
    before = copies(module)
    train(module, SGD(module, 0.1, scale={"*": 0.5, "0.*": 0.0, "0.bias": 2.0}))
    train(plain, SGD(plain, 0.1))
    after, moved = module.state_dict(), plain.state_dict()
    for name, factor in {"0.weight": 0.0, "0.bias": 2.0, "2.weight": 0.5, "2.bias": 0.5}.items():
        numpy.testing.assert_allclose(after[name], before[name] + factor * (moved[name] - before[name]), atol=1e-15)


def test_scale_scales_decoupled_decay_as_well():
    moved = move(AdamW(one([1.0]), lr=0.1, weight_decay=0.5, scale={"w": 0.1}), [0.0])
    numpy.testing.assert_allclose(moved, [1 - 0.1 * 0.1 * 0.5], rtol=1e-15)


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_weight_decay_by_name_decays_what_its_last_pattern_says_and_nothing_else(cls):
    module, plain = small(), small()
    before = copies(module)
    train(module, cls(module, 0.1, weight_decay={"*": 0.5, "*.bias": 0, "2.*": 0.25}))
    train(plain, cls(plain, 0.1, weight_decay=0))
    after, moved = module.state_dict(), plain.state_dict()
    for name, decay in {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 0.25, "2.bias": 0.25}.items():
        wanted = moved[name] - 0.1 * decay * before[name]
        numpy.testing.assert_allclose(after[name], wanted, rtol=1e-12, atol=1e-12)
    module = small()
    SGD(module, 0.1, weight_decay={"0.weight": 0.5}).step()  # without gradients nothing decays
    assert not changed(module, before)


def test_the_norm_that_clipping_measured_is_told():
    module = Values(a=[0.0], b=[0.0])
    optimizer = SGD(module, lr=1.0, clip_norm=1.0)
    assert optimizer.last_norm is None
    module.a.accumulate(numpy.array([3.0]))
    module.b.accumulate(numpy.array([-4.0]))
    optimizer.step()
    assert optimizer.last_norm == pytest.approx(5, rel=1e-12) and isinstance(optimizer.last_norm, float)


@every_optimizer
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_are_refused_where_one_asks_for_it(cls, options, bad):
    module = Values(a=[1.0, 2.0], b=[3.0])
    optimizer = cls(module, **options, error_if_nonfinite=True)
    module.a.accumulate(numpy.array([1.0, bad]))
    module.b.accumulate(numpy.array([1.0]))
    before, steps = copies(module), optimizer.state_dict()
    with pytest.raises(FloatingPointError, match=f"^{cls.__name__}.* expected finite gradients, .* in a$"):
        optimizer.step()
    assert not changed(module, before) and optimizer.state_dict() == steps
    optimizer.zero_grad()
    module.b.accumulate(numpy.array([1.0]))
    optimizer.step()
    assert changed(module, before) == {"b"}


def test_buffers_do_not_decay():
    class WithBuffer(Values):
        def __init__(self):
            super().__init__(w=[1.0])
            self.table = mtorch.Buffer(numpy.ones(3))

    module = WithBuffer()
    move(SGD(module, lr=0.1, weight_decay=0.5), [0.0])
    assert module.w.value == [0.95] and module.table.value.tolist() == [1, 1, 1]


@every_optimizer
def test_a_shared_parameter_moves_once(cls, options):
    single, shared = Values(w=[1.0, 2.0]), Values(w=[1.0, 2.0])
    shared.again = shared.w
    optimizer = cls(shared, **options)
    assert list(optimizer.named) == ["w"]
    numpy.testing.assert_array_equal(move(optimizer, [1.0, -1.0]), move(cls(single, **options), [1.0, -1.0]))


@every_optimizer
def test_a_parameter_without_a_contribution_is_left_alone_with_its_state(cls, options):
    both, alone = Values(a=[1.0], b=[2.0]), Values(b=[2.0])
    optimizer, twin = cls(both, **options, weight_decay=0.1), cls(alone, **options, weight_decay=0.1)
    for k in range(4):
        both.b.accumulate(numpy.array([1.0]))
        if k in (1, 2):
            both.a.accumulate(numpy.array([0.5]))
        before = both.a.value.copy()
        optimizer.step()
        assert (both.a.value != before) == (k in (1, 2))
        move(twin, [1.0])
    numpy.testing.assert_array_equal(both.b.value, alone.b.value)
    if optimizer.slots:
        state = optimizer.state_dict()
        assert (state["steps"], state["a.steps"], state["b.steps"]) == (4, 2, 4)


class Two(Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = layers.Linear(3, 2, rng=0), layers.Linear(2, 1, rng=0)

    def forward(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_layer_that_comes_later_is_moved_by_the_same_rule_from_a_fresh_state(wrapped):
    two = Two()
    module = Module(Sequential(two)) if wrapped else two
    optimizer = Adam(module, lr=0.5, scale={"*a.weight": 0.5})

    def step():
        module(numpy.ones((2, 3), "float32"))
        module.backward(numpy.full((2, 1), 100, "float32"))
        before = {name: value.copy() for name, value in module.state_dict().items()}
        optimizer.step()
        return {name: abs(value - before[name]).max() for name, value in module.state_dict().items()}

    step()
    two.b = layers.Linear(2, 1, rng=1)
    if wrapped:  # a container holds the graph, which does not see the module's attributes
        two.retrace()
    moves = step()
    assert all(0 < move <= 0.51 for move in moves.values()), moves
    counts = {name: count for name, count in optimizer.state_dict().items() if name.endswith(".steps")}
    assert sorted(counts.values()) == [1, 1, 2, 2]
    resumed = Adam(module, lr=0.5, scale={"*a.weight": 0.5})
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.steps == 2


def test_a_state_is_loaded_for_the_layers_that_the_module_has_now():
    two = Two()
    optimizer = Adam(two)
    two.b = layers.Linear(2, 1, bias=False, rng=1)
    state = Adam(two).state_dict()
    optimizer.load_state_dict(state)
    assert optimizer.state_dict() == state and "b.bias.steps" not in state


def test_accumulated_gradients_are_one_step():
    module, twin = one([1.0]), one([1.0])
    module.w.accumulate(numpy.array([0.25]))
    assert move(Adam(module), [0.5]) == move(Adam(twin), [0.75])


def test_zero_grad_discards_what_was_collected():
    module = one([1.0])
    optimizer = SGD(module, 0.1)
    module.w.accumulate(numpy.array([5.0]))
    optimizer.zero_grad()
    optimizer.step()
    assert module.w.value == [1.0]


# ---------------------------------------------------------------------- state


@every_optimizer
def test_training_goes_on_bit_by_bit_from_a_loaded_state(cls, options):
    straight = small("float32")
    optimizer = cls(straight, **options)
    train(straight, optimizer, 3)
    resumed = small("float32")
    resumed.load_state_dict(straight.state_dict())
    twin = cls(resumed, **options)
    state = pickle.loads(pickle.dumps(optimizer.state_dict()))
    twin.load_state_dict(state)
    for value in state.values():  # what was given stays the caller's
        if isinstance(value, numpy.ndarray):
            value[...] = 99
    for module, each in ((straight, optimizer), (resumed, twin)):
        train(module, each, 4)
    for name, value in straight.state_dict().items():
        numpy.testing.assert_array_equal(resumed.state_dict()[name], value)
    for name, value in optimizer.state_dict().items():
        numpy.testing.assert_array_equal(twin.state_dict()[name], value)


@every_optimizer
def test_state_dicts_are_numbers_and_host_copies_by_dotted_name(cls, options):
    module = small(xp=strict)
    optimizer = cls(module, **options)
    fresh = optimizer.state_dict()
    assert all(isinstance(number, int) and number == 0 for number in fresh.values())
    loss_func = MSELoss(module)
    loss_func(module(strict.asarray(X)), strict.asarray(T)).backward()
    optimizer.step()
    state = optimizer.state_dict()
    names = {f"{path}.{slot}" for path in module.parameters() for slot in ("steps", *optimizer.slots)}
    assert set(state) == {"steps"} | (names if optimizer.slots else set())
    assert {type(value) for value in state.values()} <= {int, numpy.ndarray}
    host = cls(small(), **options)
    host.load_state_dict(state)
    numpy.testing.assert_equal(host.state_dict(), state)
    optimizer.load_state_dict(fresh)
    numpy.testing.assert_equal(optimizer.state_dict(), fresh)


@with_state
def test_a_state_that_does_not_fit_is_refused_whole_and_changes_nothing(cls, options):
    module = small()
    optimizer = cls(module, **options)
    train(module, optimizer, 2)
    good, slot = optimizer.state_dict(), optimizer.slots[0]
    first = f"0.weight.{slot}"
    before = copy.deepcopy(good)
    bad = {
        f"missing: {first}": {k: v for k, v in good.items() if k != first},
        "missing: steps": {k: v for k, v in good.items() if k != "steps"},
        "missing: 2.bias.steps": {k: v for k, v in good.items() if k != "2.bias.steps"},
        "unexpected: 7.weight.steps": good | {"7.weight.steps": 3},
        "wrong shape": good | {first: numpy.zeros((1, 1))},
        "expected a count": good | {"steps": -1},
        "steps is 1.5": good | {"0.bias.steps": 1.5},
    }
    for text, state in bad.items():
        with pytest.raises(ValueError, match=text.replace("wrong shape", r"has shape \(1, 1\), expected \(3, 4\)")):
            optimizer.load_state_dict(state)
        numpy.testing.assert_equal(optimizer.state_dict(), before)
    with pytest.raises(TypeError, match=first):
        optimizer.load_state_dict(good | {first: "text"})
    with pytest.raises(ValueError) as error:
        optimizer.load_state_dict({"steps": 1, "nonsense": 2})
    assert all(path in str(error.value) for path in ("0.weight.steps", "2.bias.steps", "unexpected: nonsense"))
    numpy.testing.assert_equal(optimizer.state_dict(), before)


def test_the_state_of_another_optimizer_is_refused():
    module = small()
    adam = Adam(module)
    train(module, adam)
    with pytest.raises(ValueError, match="SGD cannot load this state: unexpected"):
        SGD(module, 0.1).load_state_dict(adam.state_dict())


# ---------------------------------------------------------------------- what is refused


def test_the_optimizer_of_the_docstring_is_complete_and_trains():
    text = optim.Optimizer.__doc__
    names = {"Optimizer": optim.Optimizer}
    exec(textwrap.dedent(text[text.index("        class Lion") :]), names)
    module, weights = one([1.0, -2.0, 0.5]), []
    optimizer = names["Lion"](module, lr=0.1)
    for grad in ([3.0, -1.0, 0.0], [-1.0, -1.0, 0.0]):
        weights.append(move(optimizer, grad).copy())
    numpy.testing.assert_allclose(weights[0], [0.9, -1.9, 0.5], atol=1e-12)
    numpy.testing.assert_allclose(weights[1], [1.0, -1.8, 0.5], atol=1e-12)  # 0.9 * 0.03 - 0.1 < 0


@every_optimizer
@pytest.mark.parametrize(
    "bad, error",
    [
        ({"lr": -0.1}, ValueError),
        ({"lr": math.nan}, ValueError),
        ({"lr": math.inf}, ValueError),
        ({"lr": "0.1"}, TypeError),
        ({"lr": None}, TypeError),
        ({"lr": lambda k: -1.0}, ValueError),
        ({"weight_decay": -1e-9}, ValueError),
        ({"weight_decay": math.nan}, ValueError),
        ({"weight_decay": "a"}, TypeError),
        ({"weight_decay": {"w": -1}}, ValueError),
        ({"weight_decay": {1: 0.5}}, TypeError),
        ({"weight_decay": {"nothing.*": 0.1}}, ValueError),
        ({"error_if_nonfinite": 1}, TypeError),
        ({"clip_norm": -1}, ValueError),
        ({"clip_norm": math.nan}, ValueError),
        ({"clip_value": -1}, ValueError),
        ({"clip_value": math.inf}, ValueError),
        ({"scale": {"w": -1}}, ValueError),
        ({"scale": {"w": "a"}}, TypeError),
        ({"scale": {"nothing.*": 0.1}}, ValueError),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_construction(cls, options, bad, error):
    (option,) = bad
    with pytest.raises(error, match=rf"^{cls.__name__} expected .*{option}"):
        cls(one(), **options | bad)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda m: SGD(m, 0.1, momentum=1), ValueError, "SGD expected momentum"),
        (lambda m: SGD(m, 0.1, momentum=-0.1), ValueError, "momentum"),
        (lambda m: SGD(m, 0.1, momentum=math.nan), ValueError, "momentum"),
        (lambda m: SGD(m, 0.1, nesterov=True), ValueError, "momentum > 0 with nesterov=True"),
        (lambda m: SGD(m, 0.1, momentum=0.5, dampening=0.1, nesterov=True), ValueError, "dampening of 0 with nesterov"),
        (lambda m: SGD(m, 0.1, momentum=0.5, dampening=-0.1), ValueError, "SGD expected dampening >= 0"),
        (lambda m: SGD(m, 0.1, maximize=1), TypeError, "SGD expected maximize to be True or False"),
        (lambda m: Adam(m, amsgrad="yes"), TypeError, "Adam expected amsgrad to be True or False"),
        (lambda m: Adam(m, betas=(1.0, 0.9)), ValueError, r"Adam expected betas\[0\]"),
        (lambda m: Adam(m, betas=(0.9, -0.1)), ValueError, r"betas\[1\]"),
        (lambda m: Adam(m, betas=(0.9, math.nan)), ValueError, r"betas\[1\]"),
        (lambda m: Adam(m, betas=0.9), TypeError, "two numbers"),
        (lambda m: Adam(m, eps=-1e-8), ValueError, "Adam expected eps"),
        (lambda m: AdamW(m, eps=math.nan), ValueError, "AdamW expected eps"),
        (lambda m: AdamW(m, weight_decay=-1), ValueError, "AdamW expected weight_decay"),
        (lambda m: RMSprop(m, alpha=1), ValueError, "RMSprop expected alpha"),
        (lambda m: RMSprop(m, momentum=1), ValueError, "RMSprop expected momentum"),
        (lambda m: RMSprop(m, eps=-1), ValueError, "RMSprop expected eps"),
        (lambda m: Adadelta(m, rho=1.5), ValueError, "Adadelta expected rho"),
        (lambda m: Adadelta(m, eps=-1), ValueError, "Adadelta expected eps"),
        (lambda m: Adagrad(m, lr_decay=-1), ValueError, "Adagrad expected lr_decay"),
        (lambda m: Adagrad(m, initial_accumulator_value=-1), ValueError, "initial_accumulator_value"),
        (lambda m: Adagrad(m, eps=-1), ValueError, "Adagrad expected eps"),
        (lambda m: SGD(m.parameters(), 0.1), TypeError, "SGD expected a module or layer"),
    ],
)
def test_bad_numbers_of_the_rules_are_refused_at_construction(make, error, text):
    with pytest.raises(error, match=text):
        make(one())


@every_optimizer
@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, "fast", None])
def test_a_bad_rate_of_a_schedule_is_caught_before_anything_moves(cls, options, wrong):
    module = one([1.0])
    optimizer = cls(module, **options | {"lr": lambda k: 0.1 if k < 1 else wrong})
    move(optimizer, [1.0])
    before, state = module.w.value.copy(), optimizer.state_dict()
    module.w.accumulate(numpy.array([1.0]))
    with pytest.raises((TypeError, ValueError), match=f"{cls.__name__} expected a"):
        optimizer.step()
    assert module.w.value == before and module.w.grad == [1.0]
    numpy.testing.assert_equal(optimizer.state_dict(), state)


def test_rates_of_numpy_type_do_not_widen_parameters():
    module = small("float32")
    train(module, SGD(module, numpy.float64(0.1)))
    train(module, Adam(module, lambda k: numpy.float64(0.1)))
    assert {p.value.dtype for p in module.parameters().values()} == {numpy.dtype("float32")}


# ---------------------------------------------------------------------- devices and names


@every_optimizer
@pytest.mark.parametrize("extra", [{}, {"clip_norm": 0.1}, {"clip_value": 0.01, "clip_norm": 0.1, "weight_decay": 0.1}])
def test_a_step_on_a_device_waits_for_nothing_and_ends_where_the_hosts_does(cls, options, extra):
    device, host = small(xp=strict), small()
    optimizer = cls(device, **options, **extra)
    x, t, loss_func = strict.asarray(X), strict.asarray(T), MSELoss(device)
    with strict.count_synchronisations() as places:
        for _ in range(3):
            loss_func(device(x), t).backward()
            optimizer.step()
    assert places == []
    train(host, cls(host, **options, **extra), 3)
    for name, value in host.state_dict().items():
        numpy.testing.assert_allclose(device.state_dict()[name], value, rtol=1e-12)


def test_every_public_optimizer_is_a_name_of_the_package():
    for name in optim.__all__:
        assert name in ("Optimizer", "schedules") or getattr(mtorch, name) is getattr(optim, name)
    assert repr(SGD(one(), 0.1)) == "SGD(lr=0.1)"


@pytest.mark.parametrize("kind", [SGD, Adagrad, Adadelta, RMSprop, Adam, AdamW])
def test_maximize_climbs_what_the_others_descend(kind):
    """The decay still pulls towards zero: only the gradient changes its sign."""
    options = {"lr": 0.1, "clip_norm": 1.0, "weight_decay": 0.0}
    down, up = (layers.Linear(3, 2, rng=0, dtype="float64") for _ in range(2))
    before = down.weight.value.copy()
    for layer, maximize in ((down, False), (up, True)):
        optimizer = kind(layer, maximize=maximize, **options)
        for _ in range(3):
            layer.weight.accumulate(numpy.arange(6.0).reshape(2, 3) - 2.5)
            optimizer.step()
    numpy.testing.assert_allclose(up.weight.value - before, before - down.weight.value, rtol=0, atol=1e-15)
    assert abs(up.weight.value - before).min() > 0
