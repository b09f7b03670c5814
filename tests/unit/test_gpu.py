"""Training on a real GPU beside training on NumPy, from one seed. `pytest -m gpu`, where there is a GPU and CuPy."""

import copy
import warnings

import numpy
import pytest
from small_training import IMAGES, RECIPES, assert_equal_states, small_net, train

import mtorch
from mtorch import arrays, optim

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy():
    """CuPy imports without a driver and fails only when it allocates, so it is asked whether there is a GPU."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install '.[cuda12]'")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no CUDA GPU")
    return cupy


def test_one_seed_is_one_network_on_both(cupy):
    assert_equal_states(small_net(cupy), small_net(numpy), 0.0)


@pytest.mark.parametrize("optimizer, options", RECIPES.values(), ids=RECIPES)
def test_a_training_run_ends_where_numpys_does(cupy, optimizer, options):
    module, twin = small_net(cupy), small_net(numpy)
    loss = train(module, optimizer(module, **options))
    twin_loss = train(twin, optimizer(twin, **options))
    assert all(arrays.array_module(p.value) is cupy for p in module.parameters().values())
    assert_equal_states(module, twin, 1e-4)
    assert loss.value == pytest.approx(twin_loss.value, rel=1e-4)


@pytest.mark.parametrize("optimizer, options", RECIPES.values(), ids=RECIPES)
def test_a_training_step_makes_no_synchronisation(cupy, optimizer, options):
    import cupyx

    module = small_net(cupy)
    stepper = optimizer(module, **options)
    train(module, stepper, range(1))  # the first step may compile
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "cupyx.allow_synchronize")  # CuPy means to remove this switch
        with cupyx.allow_synchronize(False):
            train(module, stepper, range(1, 5))


def test_float64_runs_agree_to_the_last_digits(cupy):
    states = []
    for xp in (cupy, numpy):
        module = small_net(xp, "float64")
        train(module, optim.SGD(module, 0.1, momentum=0.9))
        states.append(module)
    assert_equal_states(*states, 1e-12)


def test_a_run_saved_on_the_gpu_goes_on_on_the_host(cupy, tmp_path):
    path = tmp_path / "model.npz"
    module, twin = small_net(cupy), small_net(numpy)
    stepper, twin_stepper = (optim.SGD(each, 0.1, momentum=0.9) for each in (module, twin))
    train(module, stepper, range(2))
    mtorch.save(path, module, stepper)
    mtorch.load(path, twin, twin_stepper)
    train(module, stepper, range(2, 5))
    train(twin, twin_stepper, range(2, 5))
    assert_equal_states(module, twin, 1e-4)


def test_nets_move_to_the_gpu_and_back_and_copy_there(cupy):
    host = small_net(numpy)
    device = host.to(cupy)
    expected = host.predict(IMAGES[0])
    for module in (device, copy.deepcopy(device)):
        numpy.testing.assert_allclose(module.predict(cupy.asarray(IMAGES[0])).get(), expected, atol=1e-5)
    numpy.testing.assert_allclose(device.to(numpy).predict(IMAGES[0]), expected, atol=1e-6)


def test_a_call_with_host_arrays_is_an_error_that_names_the_fix(cupy):
    with pytest.raises(TypeError, match="cupy.asarray"):
        small_net(cupy)(IMAGES[0])
