"""Training on a real GPU beside training on NumPy, from one seed. `pytest -m gpu`, where there is a GPU and CuPy."""

import copy
import warnings

import numpy
import pytest
from small_training import IMAGES, LABELS, RECIPES, assert_equal_states, small_net, train

import mtorch
from mtorch import Sequential, arrays, layers, optim
from mtorch.data import ArrayDataset, DataLoader
from mtorch.devices import describe_device, module_for, trouble_with

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy():
    """CuPy imports without a driver and fails only when it allocates, so it is asked whether it computes."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install -e '.[cuda12]'")
    trouble = trouble_with(cupy)
    if trouble is not None:
        pytest.skip(trouble.reason)
    return cupy


@pytest.fixture
def counted(cupy):
    """A function that tells what CuPy asked of CUDA since it was called before; on the CUDA of tools/hostcuda only."""
    try:
        from hostcuda.counts import counts
    except OSError:
        pytest.skip("only tools/hostcuda counts copies and launches")
    before = counts()

    def since() -> dict[str, int]:
        nonlocal before
        now = counts()
        found, before = {name: now[name] - before[name] for name in now}, now
        return found

    return since


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


def test_a_training_step_copies_nothing_and_waits_for_nothing(cupy, counted):
    module = small_net(cupy)
    stepper = optim.Adam(module, 0.01)
    x, y = cupy.asarray(IMAGES[0]), cupy.asarray(LABELS[0])
    loss_func = mtorch.CrossEntropyLoss(module)
    for _ in range(2):
        counted()
        loss = loss_func(module(x), y)
        loss.backward()
        stepper.step()
        step = counted()
    assert step["kernels"] > 0 == step["waits"] == step["to_host"] == step["to_device"]
    assert loss.value > 0 and counted()["to_host"] == 1


def test_a_step_that_watches_for_wrong_ids_labels_and_lengths_waits_for_nothing(cupy, counted):
    nn = layers.on(cupy, rng=0)
    lstm = nn.LSTM(4, 5)
    net = Sequential(nn.Embedding(3, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.2))
    head = mtorch.Module(nn.Linear(5, 3))
    ids, labels = cupy.asarray(LABELS[:4].T.copy()), cupy.asarray(LABELS[:4].T.copy())
    lengths = cupy.asarray(numpy.array([8, 3, 5, 1]))
    for _ in range(2):
        counted()
        y = lstm((None, net(ids), lengths))
        loss = mtorch.CrossEntropyLoss(head, ignore_index=2)(head(y), labels)
        loss.backward()
        net.discard()
        lstm.discard()
        step = counted()
    assert step["kernels"] > 0 == step["waits"] == step["to_host"]
    assert loss.value > 0


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_of_data_on_the_gpu_sends_its_order_once(cupy, counted, shuffle):
    data = ArrayDataset(cupy.asarray(IMAGES.reshape(40, 6)), cupy.asarray(LABELS.reshape(40)))
    loader = DataLoader(data, 5, shuffle=shuffle, rng=0)
    counted()
    assert len(list(loader)) == 8
    epoch = counted()
    assert epoch["to_device"] == 1 and epoch["to_host"] == epoch["waits"] == 0


def test_the_gpu_is_found_and_named(cupy):
    assert module_for("auto") is module_for("gpu") is cupy
    assert describe_device(cupy, "auto").startswith("CuPy on ")


def test_kernels_whose_threads_wait_for_each_other_compute(cupy):
    """Kernels that shuffle, wait for their warp, and get memory at their launch: tools/hostcuda must do it too."""
    x = numpy.random.default_rng(0).standard_normal(1000).astype("float32")
    on_gpu = cupy.asarray(x)
    numpy.testing.assert_allclose(on_gpu.cumsum().get(), x.cumsum(), rtol=1e-3, atol=1e-3)
    numpy.testing.assert_array_equal(on_gpu[on_gpu > 0].get(), x[x > 0])
    numpy.testing.assert_array_equal(cupy.flatnonzero(on_gpu > 1).get(), numpy.flatnonzero(x > 1))
    code = """extern "C" __global__ void warp_sums(const float* x, float* y, float* first) {
        float v = x[threadIdx.x];
        for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffff, v, by);
        float up = __shfl_up_sync(0xffffffff, x[threadIdx.x], 1);
        float down = __shfl_down_sync(0xffffffff, x[threadIdx.x], 1);
        y[threadIdx.x] = v;
        first[threadIdx.x] = __shfl_sync(0xffffffff, x[threadIdx.x], 0) + up + down;
    }"""
    sums, first = cupy.empty(64, "float32"), cupy.empty(64, "float32")
    cupy.RawKernel(code, "warp_sums")((1,), (64,), (on_gpu, sums, first))
    warps = x[:64].reshape(2, 32)
    numpy.testing.assert_allclose(sums.get().reshape(2, 32), warps.sum(1, keepdims=True).repeat(32, 1), rtol=1e-5)
    up, down = warps[:, [0, *range(31)]], warps[:, [*range(1, 32), 31]]
    numpy.testing.assert_allclose(first.get().reshape(2, 32), warps[:, :1] + up + down, rtol=1e-5)
