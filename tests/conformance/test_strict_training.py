"""Whole training steps on the strict array module: no leak, no host synchronisation, NumPy's numbers."""

import numpy
import pytest
from small_training import IMAGES, LABELS, RECIPES, assert_equal_states, small_net, train

import mtorch
from mtorch import Fork, Module, Sequential, SquareLoss, layers, losses, optim
from mtorch.losses.base import LossFunction
from mtorch.losses.label_loss import LabelLoss
from mtorch.losses.several import SeveralLoss
from mtorch.testing import strict


@pytest.mark.parametrize("optimizer, options", RECIPES.values(), ids=RECIPES)
def test_a_training_step_makes_no_synchronisation_and_ends_where_numpys_does(optimizer, options):
    module, twin = small_net(strict), small_net(numpy)
    with strict.count_synchronisations() as places, strict.frozen():
        train(module, optimizer(module, **options))
    assert places == []
    train(twin, optimizer(twin, **options))
    assert all(type(p.value) is strict.ndarray for p in module.parameters().values())
    assert_equal_states(module, twin)


def headed(xp, count):
    """A net of several outputs."""
    nn = layers.on(xp, rng=0)
    return Module(Sequential(nn.Linear(6, 5), Fork(*(nn.Linear(5, 3) for _ in range(count)))))


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name not in ("Loss", "LossFunction")])
def test_every_loss_trains_without_a_synchronisation(name):
    loss = getattr(losses, name)
    assert issubclass(loss, LossFunction)
    takes_labels = issubclass(loss, LabelLoss)
    rng = numpy.random.default_rng(3)
    target = LABELS[0] if takes_labels else rng.uniform(0.1, 0.9, (8, 3)).astype("float32")
    heads = loss.parts if issubclass(loss, SeveralLoss) else 1
    if heads > 1:
        target = rng.choice([-1, 1], 8) if loss.has_target else None
    states, values = [], []
    for xp in (strict, numpy):
        module = small_net(xp) if heads == 1 else headed(xp, heads)
        loss_func = loss(module)
        images, device_target = xp.asarray(IMAGES[0]), None if target is None else xp.asarray(target)
        given = [images] if device_target is None else [images, device_target]
        with strict.count_synchronisations() as places, strict.frozen(), strict.read_only(*given):
            outcome = loss_func(module(images), device_target)
            outcome.backward()
            module.step(0.1)
        assert places == []
        states.append(module)
        values.append(outcome.value)
    assert_equal_states(*states)
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_reading_the_loss_is_one_synchronisation_however_often_it_is_read():
    module = small_net(strict)
    outcome = train(module, optim.SGD(module, 0.1))
    with strict.count_synchronisations() as places:
        first = outcome.value
        assert outcome.value == first and isinstance(first, float)
    assert len(places) == 1


def test_predict_reads_nothing_and_gives_numpys_result():
    module, twin = small_net(strict), small_net(numpy)
    with strict.count_synchronisations() as places:
        y = module.predict(strict.asarray(IMAGES[0]))
    assert places == [] and y.dtype == numpy.float32
    numpy.testing.assert_allclose(y.get(), twin.predict(IMAGES[0]), atol=1e-6)


def test_a_state_dict_is_on_the_host_and_costs_one_read_an_entry():
    module, twin = small_net(strict), small_net(numpy)
    with strict.count_synchronisations() as places:
        state = module.state_dict()
    assert len(places) == len(state)
    assert all(type(value) is numpy.ndarray for value in state.values())
    for parameter in module.parameters().values():
        parameter.value *= 0.0
    module.load_state_dict(twin.state_dict())
    assert_equal_states(module, twin, 0.0)


def test_to_moves_a_net_between_array_modules_and_dtypes():
    module = small_net(strict)
    train(module, optim.SGD(module, 0.1))
    host = module.to(numpy)
    back = host.to(strict, "float64")
    assert host(IMAGES[0]).dtype == numpy.float32 and type(host(IMAGES[0])) is numpy.ndarray
    y = back(strict.asarray(IMAGES[0]))
    assert type(y) is strict.ndarray and y.dtype == numpy.float64
    numpy.testing.assert_allclose(y.get(), host(IMAGES[0]), atol=1e-6)
    assert module.xp is strict and type(module(strict.asarray(IMAGES[0]))) is strict.ndarray


def test_a_run_saved_on_a_device_goes_on_on_the_host(tmp_path):
    path = tmp_path / "model.npz"
    module, twin = small_net(strict), small_net(numpy)
    stepper, twin_stepper = (optim.SGD(each, 0.1, momentum=0.9) for each in (module, twin))
    train(module, stepper, range(2))
    mtorch.save(path, module, stepper, epoch=3)
    assert mtorch.load(path, twin, twin_stepper) == {"epoch": 3}
    train(module, stepper, range(2, 5))
    train(twin, twin_stepper, range(2, 5))
    assert_equal_states(module, twin)
    mtorch.load(path, module, stepper)
    train(module, stepper, range(2, 5))
    assert_equal_states(module, twin)


@pytest.mark.parametrize("mine, theirs, fix", [(strict, numpy, "strict.asarray"), (numpy, strict, "get()")])
def test_a_call_with_arrays_of_another_module_is_an_error_that_names_the_fix(mine, theirs, fix):
    layer = layers.Linear(6, 2, xp=mine, rng=0)
    with pytest.raises(TypeError, match="Linear") as error:
        layer(theirs.asarray(IMAGES[0]))
    assert fix in str(error.value)
    with pytest.raises(TypeError):
        SquareLoss()(layer(mine.asarray(IMAGES[0])), theirs.zeros((8, 2), "float32"))


def test_a_leak_in_a_layer_is_found():
    class LeakyTanh(layers.Identity):
        def forward(self, x):
            return numpy.tanh(x)

    class HostMask(layers.Identity):
        def forward(self, x):
            return x * numpy.ones(x.shape, x.dtype)

    class Branching(layers.Identity):
        def forward(self, x):
            return x if (x > 0).all() else -x

    x = strict.asarray(IMAGES[0])
    for layer in (LeakyTanh, HostMask):
        layer()(IMAGES[0])
        with pytest.raises(TypeError):
            layer(xp=strict)(x)
    with strict.count_synchronisations() as places:
        Branching(xp=strict)(x)
    assert len(places) == 1 and "in forward" in places[0]
