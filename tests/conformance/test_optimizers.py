"""The checks that every optimizer gets from its class alone: `pytest -k Adam` shows those of one.

`Optimizer.examples` says which options they run with.
"""

import copy
import pickle

import numpy
import pytest
from harness import final_classes

import mtorch
from mtorch import Layer, Module, MSELoss, Parameter, Sequential, layers
from mtorch.optim.base import Optimizer
from mtorch.testing import strict

CASES = [
    pytest.param(cls, options, id=f"{cls.__name__}-{index}")
    for cls in final_classes(Optimizer)
    for index, options in enumerate(cls.examples())
]
every_optimizer = pytest.mark.parametrize("cls, options", CASES)
CHAIN = {"weight_decay": 0.1, "clip_value": 0.5, "clip_norm": 0.6, "scale": {"0.*": 0.5}}
RNG = numpy.random.default_rng(0)
X, T = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 2))


class Values(Layer):
    """Holds one parameter for each array."""

    def __init__(self, *values, dtype="float64", xp=numpy):
        super().__init__(dtype=dtype, xp=xp)
        for name, value in zip("abcd", values, strict=False):
            setattr(self, name, Parameter(xp.asarray(numpy.array(value, dtype))))


def net(dtype="float64", xp=numpy):
    nn = layers.on(xp, dtype=dtype, rng=0)
    return Module(Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))


def train(module, optimizer, steps):
    x, t, loss_func = module.xp.asarray(X), module.xp.asarray(T), MSELoss(module)
    for _ in range(steps):
        loss_func(module(x), t).backward()
        optimizer.step()


def assert_states(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        numpy.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@every_optimizer
def test_a_quadratic_is_descended(cls, options):
    """f(x) = sum c x^2 / 2, whose gradient is c x."""
    c, values = numpy.array([1.0, 3.0, 0.5]), Values([1.0, -2.0, 3.0])
    optimizer, start = cls(values, **options), values.a.value.copy()

    def f():
        return (c * values.a.value**2).sum() / 2

    first, path = (c * start).copy(), [f()]
    for step in range(30):
        values.a.accumulate(c * values.a.value)
        optimizer.step()
        path.append(f())
        if step == 0:
            assert first @ (values.a.value - start) < 0
    assert path[-1] < path[1] < path[0]


@every_optimizer
@pytest.mark.parametrize("chain", [{}, CHAIN], ids=["plain", "chain"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_values_and_state_keep_dtype_and_shape(cls, options, chain, dtype):
    module = net(dtype)
    shapes = {name: p.value.shape for name, p in module.parameters().items()}
    optimizer = cls(module, **options | chain)
    train(module, optimizer, 2)
    state = optimizer.state_dict()
    assert state["steps"] == 2
    for path, p in module.parameters().items():
        assert (p.value.dtype, p.value.shape) == (numpy.dtype(dtype), shapes[path])
        assert numpy.isfinite(p.value).all()
        for slot in optimizer.slots:
            assert (state[f"{path}.{slot}"].dtype, state[f"{path}.{slot}"].shape) == (p.value.dtype, p.value.shape)


@every_optimizer
def test_a_loaded_state_goes_on_bit_by_bit(cls, options):
    """Also through a pickle and from another array module's host copies; what was given stays the caller's."""
    module = net()
    optimizer = cls(module, **options)
    train(module, optimizer, 3)
    twin = net()
    twin.load_state_dict(module.state_dict())
    resumed, state = cls(twin, **options), pickle.loads(pickle.dumps(optimizer.state_dict()))
    resumed.load_state_dict(state)
    assert_states(resumed.state_dict(), optimizer.state_dict())
    for value in state.values():
        if isinstance(value, numpy.ndarray):
            value[...] = 99
    for each, stepper in ((module, optimizer), (twin, resumed)):
        train(each, stepper, 4)
    assert_states(twin.state_dict(), module.state_dict())
    assert_states(resumed.state_dict(), optimizer.state_dict())


@every_optimizer
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_checkpoint_goes_on_bit_by_bit(cls, options, suffix, tmp_path):
    module, twin = net("float32"), net("float32")
    optimizer, resumed = cls(module, **options), cls(twin, **options)
    train(module, optimizer, 2)
    mtorch.save(tmp_path / f"model{suffix}", module, optimizer)
    mtorch.load(tmp_path / f"model{suffix}", twin, resumed)
    for each, stepper in ((module, optimizer), (twin, resumed)):
        train(each, stepper, 3)
    assert_states(twin.state_dict(), module.state_dict())


@every_optimizer
def test_a_copy_goes_its_own_way(cls, options):
    module = net()
    optimizer = cls(module, **options)
    train(module, optimizer, 2)
    before, twin = module.state_dict(), copy.deepcopy(optimizer)
    train(twin.module, twin, 3)
    assert_states(module.state_dict(), before)
    train(module, optimizer, 3)
    assert_states(twin.module.state_dict(), module.state_dict())


@every_optimizer
def test_frozen_parameters_and_those_without_a_gradient_rest_with_their_state(cls, options):
    values, alone = Values([1.0, 2.0], [3.0], [4.0]), Values([3.0])
    values.a.trainable = False
    optimizer, twin = (cls(each, **options | {"weight_decay": 0.1}) for each in (values, alone))
    for k in range(4):
        values.a.accumulate(numpy.array([5.0, 5.0]))
        values.b.accumulate(numpy.array([0.5]))
        alone.a.accumulate(numpy.array([0.5]))
        if k in (1, 2):
            values.c.accumulate(numpy.array([0.25]))
        before = values.c.value.copy()
        optimizer.step()
        twin.step()
        assert (values.c.value != before) == (k in (1, 2))
    assert values.a.value.tolist() == [1.0, 2.0] and not values.a.grad.any()
    assert values.b.value == alone.a.value
    if optimizer.slots:
        state = optimizer.state_dict()
        assert [state[f"{name}.steps"] for name in "abc"] == [0, 4, 2]


@every_optimizer
def test_clipping_and_decay_are_rewrites_of_the_gradient(cls, options):
    """The chain's step is the plain step along the gradient that the chain's formula gives."""
    chain = {"weight_decay": 0.25, "clip_value": 2.0, "clip_norm": 1.0}
    whole, plain = Values([1.0, -2.0], [0.5]), Values([1.0, -2.0], [0.5])
    optimizer = cls(whole, **options | chain)
    twin = cls(plain, **options | {"weight_decay": 0.25 if optimizer.decoupled else 0})
    for grads in (([3.0, -0.5], [1.0]), ([0.1, 0.2], [0.3])):
        clipped = [numpy.clip(g, -2, 2) for g in grads]
        factor = min(1, 1 / (numpy.sqrt(sum((g * g).sum() for g in clipped)) + 1e-6))
        for name, g, c in zip("ab", grads, clipped, strict=True):
            getattr(whole, name).accumulate(numpy.array(g))
            value = getattr(plain, name).value
            getattr(plain, name).accumulate(factor * c + (0 if optimizer.decoupled else 0.25) * value)
        optimizer.step()
        twin.step()
        assert_states(whole.state_dict(), plain.state_dict(), 1e-14)


@every_optimizer
def test_the_gradient_is_readable_and_unchanged_until_the_module_steps(cls, options):
    class Watched(Values):
        def step(self, lr):
            self.seen = self.a.grad.copy(), self.a.value.copy()
            super().step(lr)

    module = Watched([1.0, 2.0])
    optimizer = cls(module, **options | {"weight_decay": 0.5, "clip_value": 0.5, "clip_norm": 0.1})
    for _ in range(2):
        value = module.a.value.copy()
        module.a.accumulate(numpy.array([3.0, -4.0]))
        optimizer.step()
        assert module.seen[0].tolist() == [3.0, -4.0] and (module.seen[1] == value).all()
        assert module.a.grad.tolist() == [0.0, 0.0] and module.a.direction is None


@every_optimizer
@pytest.mark.parametrize("chain", [{}, CHAIN], ids=["plain", "chain"])
def test_a_device_waits_for_nothing_and_ends_where_the_host_does(cls, options, chain):
    device, host = net(xp=strict), net()
    optimizer, twin = cls(device, **options | chain), cls(host, **options | chain)
    with strict.count_synchronisations() as places:
        train(device, optimizer, 3)
    assert places == []
    train(host, twin, 3)
    assert_states(device.state_dict(), host.state_dict(), 1e-11)
    assert_states(optimizer.state_dict(), twin.state_dict(), 1e-11)
    twin.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(twin.state_dict())


@every_optimizer
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (70, 1000)])
def test_fast_bodies_end_where_the_references_do(cls, options, shape, order):
    """Also where the two take turns in one run."""
    rng = numpy.random.default_rng(0)
    start, grads = rng.standard_normal(shape), rng.standard_normal((6, *shape))
    ends = []
    for turns in ([True] * 6, [False] * 6, [True, False] * 3):
        values = Values(start)
        values.a.value = numpy.array(start, order=order)
        optimizer = cls(values, **options | CHAIN | {"scale": None})
        for grad, fast in zip(grads, turns, strict=True):
            values.a.accumulate(grad)
            if fast:
                optimizer.step()
            else:
                with mtorch.fast.disabled():
                    optimizer.step()
        ends.append(values.state_dict() | optimizer.state_dict())
    for end in ends[1:]:
        assert_states(end, ends[0], 1e-12)


@every_optimizer
@pytest.mark.parametrize("huge", [1e18, 1e19, 1e30, numpy.inf, -numpy.inf, numpy.nan, 0.0, 1e-45])
@pytest.mark.parametrize("chain", [{}, {"weight_decay": 0.1, "clip_norm": 1e3}], ids=["plain", "chain"])
def test_no_gradient_stops_a_step_halfway(cls, options, huge, chain):
    def moved(first):
        values = Values([1.0], [1.0, 2.0], dtype="float32")
        optimizer = cls(values, **options | chain)
        for _ in range(3):
            values.a.accumulate(numpy.array([first], "float32"))
            values.b.accumulate(numpy.array([0.5, -1.0], "float32"))
            optimizer.step()
        assert optimizer.steps == 3
        return values

    for context in (mtorch.fast.disabled(), numpy.errstate(under="ignore")):
        with context:
            values = moved(huge)
            if not chain:
                assert (values.b.value == moved(1.0).b.value).all()
            if abs(huge) <= 1e18:
                assert numpy.isfinite(values.a.value).all()


@every_optimizer
def test_an_overridden_rule_runs(cls, options):
    class Backwards(cls):
        def rule(self, xp, g, state, t):
            return -super().rule(xp, g, state, t)

    class Rest(cls):
        def rule(self, xp, g, state, t):
            return xp.zeros_like(g)

    ends = {}
    for kind in (cls, Backwards, Rest):
        values = Values([1.0, 2.0])
        optimizer = kind(values, **options | {"weight_decay": 0})  # AdamW has some by default
        values.a.accumulate(numpy.array([0.5, -1.0]))
        optimizer.step()
        ends[kind] = values.a.value
    numpy.testing.assert_allclose(ends[cls] + ends[Backwards], [2, 4], rtol=1e-14)
    assert ends[Rest].tolist() == [1, 2]


@every_optimizer
def test_a_layer_that_comes_later_begins_with_a_fresh_state(cls, options):
    """A plain layer that holds a layer learns as a whole, whenever the layer was assigned."""

    def step(module, optimizer):
        for p in module.parameters().values():
            p.accumulate(numpy.array([0.5]))
        optimizer.step()

    first, module = Values([1.0]), Values([1.0])
    step(first, cls(first, **options))
    optimizer = cls(module, **options)
    step(module, optimizer)
    module.a, module.below = Parameter(numpy.array([1.0])), Values([1.0])
    step(module, optimizer)
    assert module.a.value == module.below.a.value == first.a.value != 1.0
    if optimizer.slots:
        state = optimizer.state_dict()
        assert state["a.steps"] == state["below.a.steps"] == 1 and state["steps"] == 2
