"""What a device changes: errors that are told late, caches that know their device, copies that are not made.

On the strict array module, which counts waits and has two devices, and with `-m gpu` on CuPy.
"""

import copy
from typing import Any

import numpy
import pytest

from mtorch import BCELoss, CrossEntropyLoss, Module, MSELoss, Sequential, SquareLoss, layers
from mtorch.data import ArrayDataset, DataLoader
from mtorch.devices import trouble_with
from mtorch.layers import LSTM
from mtorch.layers.constant_operand import ConstantOperand
from mtorch.math.philox import keep_mask
from mtorch.optim import SGD
from mtorch.testing import strict
from mtorch.training import evaluate, train_epoch

IDS, WRONG = numpy.array([0, 1, 2]), numpy.array([0, 5, 2])
LABELS = numpy.array([1, 0, 1])


@pytest.fixture(params=["strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    if request.param == "strict":
        return strict
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install -e '.[cuda12]'")
    trouble = trouble_with(cupy)
    if trouble is not None:
        pytest.skip(trouble.reason)
    return cupy


@pytest.fixture
def two_devices(xp):
    if xp is not strict and xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")


def words(xp: Any) -> Module:
    nn = layers.on(xp, rng=0)
    return Module(Sequential(nn.Embedding(3, 4), nn.Linear(4, 2)))


# ---------------------------------------------------------------------- faults that a device finds


def test_a_fault_in_one_net_is_not_told_by_another(xp):
    net, other = words(xp), words(xp)
    loss, healthy = CrossEntropyLoss(net), CrossEntropyLoss(other)
    bad = loss(net(xp.asarray(WRONG)), LABELS)
    good = healthy(other(xp.asarray(IDS)), LABELS)
    assert good.value == good.value > 0
    with pytest.raises(ValueError, match=r"Embedding\(3, 4\) expected ids in \[0, 3\)"):
        float(bad.value)
    assert numpy.isnan(bad.value)  # told once; the value was never one
    net.forget()
    good = loss(net(xp.asarray(IDS)), LABELS)
    good.backward()
    assert 0 < good.value < 10 and all(numpy.isfinite(p.grad.get()).all() for p in net.parameters().values())


def test_a_healthy_loss_that_tells_an_older_fault_of_its_net_still_has_its_value(xp):
    net = words(xp)
    net.predict(xp.asarray(WRONG))
    loss = CrossEntropyLoss(net)(net(xp.asarray(IDS)), LABELS)
    with pytest.raises(ValueError, match="Embedding"):
        float(loss.value)
    assert 0 < loss.value < 10
    net.state_dict()


def test_a_value_is_read_from_the_device_once():
    for reduction in ("mean", "none"):
        loss = CrossEntropyLoss(reduction=reduction)(strict.ones((3, 2), "float32"), LABELS)
        with strict.count_synchronisations() as places:
            first, second = loss.value, loss.value
        assert len(places) == 1 and first is second is loss.lazy_value


def test_each_of_two_faults_is_told_once(xp):
    nn = layers.on(xp, rng=0)
    net = Sequential(nn.Embedding(3, 4), nn.Embedding(6, 4))
    for layer, ids in ((net[0], WRONG), (net[1], WRONG * 2)):
        layer.predict(xp.asarray(ids))
    for text in (r"Embedding\(3, 4\)", r"Embedding\(6, 4\)"):
        with pytest.raises(ValueError, match=text):
            net.state_dict()
    net.state_dict()


def test_a_fault_whose_nan_a_layer_drops_is_told_by_the_loss_of_its_net(xp):
    net = LSTM(3, 2, xp=xp, rng=0)
    x = xp.asarray(numpy.ones((4, 2, 3), "float32"))
    y = net((None, x, xp.asarray(numpy.array([4, 9]))))
    loss = MSELoss(net)(y, xp.zeros_like(y))
    with pytest.raises(ValueError, match="LSTM.* expected lengths from 1 to 4"):
        float(loss.value)
    assert loss.value == loss.value


def test_labels_that_a_device_finds_wrong_are_told_by_the_net_that_the_loss_drives(xp):
    net = words(xp)
    x, wrong = xp.asarray(IDS), xp.asarray(numpy.array([0, 1, 2]))
    lost = CrossEntropyLoss(net)(net(x), wrong)  # nobody reads its value
    with pytest.raises(ValueError, match=r"CrossEntropyLoss\(\) expected labels in \[0, 2\)"):
        net.state_dict()
    assert numpy.isnan(lost.value)
    with pytest.raises(ValueError, match="SquareLoss"):
        float(SquareLoss(net)(net(x), wrong, transform=True).value)
    with pytest.raises(ValueError, match="BCELoss"):
        float(BCELoss(net)(net(x) + 5.0, xp.zeros((3, 2), "float32")).value)
    assert SquareLoss(net)(net(x), xp.asarray(LABELS), transform=True).value > 0


def test_a_loss_without_a_net_tells_its_own_faults_only(xp):
    net = words(xp)
    prediction = net.predict(xp.asarray(WRONG))
    assert numpy.isnan(CrossEntropyLoss()(prediction, LABELS).value)
    with pytest.raises(ValueError, match="labels"):
        float(CrossEntropyLoss()(xp.zeros((3, 2)), xp.asarray(IDS)).value)
    with pytest.raises(ValueError, match="ids"):
        net.state_dict()


def test_a_pass_over_the_data_tells_what_went_wrong_in_it(xp):
    net = words(xp)
    data = DataLoader(ArrayDataset(xp.asarray(WRONG), xp.asarray(LABELS)), batch_size=3)
    with pytest.raises(ValueError, match=r"Embedding\(3, 4\) expected ids"):
        evaluate(net, CrossEntropyLoss(net), data)
    with pytest.raises(ValueError, match=r"Embedding\(3, 4\) expected ids"):
        train_epoch(net, CrossEntropyLoss(net), SGD(net, 0.1), data)


def test_a_copy_does_not_tell_the_faults_of_its_original(xp):
    net = words(xp)
    net.predict(xp.asarray(WRONG))
    net.to(dtype="float64").state_dict()
    with pytest.raises(ValueError, match="ids"):
        net.state_dict()


def test_faults_that_one_net_finds_on_two_devices_are_not_mixed(xp, two_devices):
    found = Sequential(layers.on(xp).Embedding(3, 4))
    for device in (0, 1):
        with xp.cuda.Device(device):
            found[0].weight.value = xp.zeros((3, 4), "float32")
            for ids in (IDS, IDS):
                loss = MSELoss(found)(found(xp.asarray(ids)), xp.zeros((3, 4), "float32"))
            assert loss.value == 0
    with xp.cuda.Device(1):
        found.predict(xp.asarray(WRONG))
    with pytest.raises(ValueError, match="ids"):
        found.state_dict()


# ---------------------------------------------------------------------- caches of arrays


def a_step(xp: Any, device: int, dtype: str = "float32") -> dict[str, numpy.ndarray]:
    """The state after a step of a net that needs every kind of cached array: ones, one-hot rows, weights, masks."""
    with xp.cuda.Device(device):
        nn = layers.on(xp, rng=0, dtype=dtype)
        net = Module(Sequential(nn.Linear(4, 6), nn.Dropout(0.4), nn.LSTM(6, 5), nn.Linear(5, 3)))
        weighted = CrossEntropyLoss(net, weight=[1.0, 2.0, 3.0])
        x = xp.asarray(numpy.random.default_rng(1).standard_normal((2, 7, 4)).astype(dtype))
        y = xp.asarray(numpy.random.default_rng(2).integers(0, 3, (2, 7)))
        for loss_func in (CrossEntropyLoss(net), SquareLoss(net, transform=True), weighted):
            loss_func(net(x), y).backward()
            net.step(0.1)
        assert all(p.value.device.id == device for p in net.parameters().values())
        return net.state_dict()


def test_a_net_on_device_1_after_one_on_device_0_computes_on_device_1(xp, two_devices):
    first = a_step(xp, 0)
    for name, value in a_step(xp, 1).items():
        numpy.testing.assert_array_equal(value, first[name])


def test_a_net_that_moves_to_device_1_takes_its_constants_along(xp, two_devices):
    nn = layers.on(xp, rng=0)
    shift = ConstantOperand(nn.Add(), right=xp.asarray(numpy.arange(3.0)))
    net = Sequential(nn.Linear(2, 3), shift, nn.Slice((slice(None), numpy.array([2, 0]))))
    x = numpy.ones((2, 2), "float32")
    first = net.predict(xp.asarray(x)).get()
    with xp.cuda.Device(1):
        second = net.to(xp).predict(xp.asarray(x))
        assert second.device.id == 1
    numpy.testing.assert_array_equal(second.get(), first)


def test_copies_lie_on_the_current_device_and_deep_copies_where_they_were(xp, two_devices):
    x = xp.asarray(numpy.ones(3, "float32"))
    with xp.cuda.Device(1):
        assert [each.device.id for each in (xp.asarray(x), xp.array(x), x.copy(), copy.deepcopy(x))] == [1, 1, 1, 0]
    assert xp.asarray(x) is x


def test_a_loss_function_and_a_mask_may_be_used_on_two_devices(xp, two_devices):
    loss_func = CrossEntropyLoss(weight=[1.0, 2.0])
    for device in (0, 1, 0):
        with xp.cuda.Device(device):
            prediction = xp.asarray(numpy.ones((3, 2), "float32"))
            assert loss_func(prediction, LABELS).value == pytest.approx(numpy.log(2))
            assert keep_mask(xp, (8,), 0.3, seed=7, counter=1).device.id == device


# ---------------------------------------------------------------------- copies from the host


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_of_data_on_a_device_copies_one_permutation_an_epoch(xp, shuffle, monkeypatch):
    x, y = numpy.arange(64.0).reshape(32, 2), numpy.arange(32)
    on_device = ArrayDataset(xp.asarray(x), xp.asarray(y))
    expected = list(DataLoader(ArrayDataset(x, y), 2, shuffle=shuffle, rng=0))
    copies, array = [], xp.asarray
    monkeypatch.setattr(xp, "asarray", lambda a, *more, **named: copies.append(a) or array(a, *more, **named))
    found = list(DataLoader(on_device, 2, shuffle=shuffle, rng=0))
    assert len(copies) == 1 and len(found) == 16
    for (a, b), (c, d) in zip(found, expected, strict=True):
        numpy.testing.assert_array_equal(a.get(), c)
        numpy.testing.assert_array_equal(b.get(), d)


def test_a_data_set_derived_from_one_of_arrays_gets_its_indices_on_the_host(xp):
    class Doubled(ArrayDataset):
        def __getitem__(self, index):
            assert isinstance(index, numpy.ndarray)
            return 2 * super().__getitem__(index)

    batches = DataLoader(Doubled(xp.asarray(numpy.arange(4))), 4)
    assert next(iter(batches)).get().tolist() == [0, 2, 4, 6]


def test_one_batch_of_arrays_on_a_device_takes_one_copy_of_its_index(xp, monkeypatch):
    data = ArrayDataset(*(xp.asarray(numpy.arange(4)) for _ in range(3)))
    copies, array = [], xp.asarray
    monkeypatch.setattr(xp, "asarray", lambda a, *more, **named: copies.append(a) or array(a, *more, **named))
    data[numpy.array([1, 2])]
    assert len(copies) == 1
    with pytest.raises(IndexError, match="4"):
        data[numpy.array([1, 4])]


def test_arrays_of_another_device_are_refused_by_the_strict_module():
    x = strict.asarray(numpy.ones(3, "float32"))
    with strict.cuda.Device(1):
        y = strict.asarray(numpy.ones(3, "float32"))
        for wrong in (lambda: x + y, lambda: -x, lambda: strict.exp(x), lambda: x.sum(), lambda: y[x > 0]):
            with pytest.raises(ValueError, match="on device 1 got an array of device 0"):
                wrong()
        assert y.T[1:].device.id == 1 and x.T[1:].device.id == 0 and x.get().tolist() == [1, 1, 1]
    assert (x + x).device == strict.cuda.Device(0) and y.device != x.device
    with pytest.raises(ValueError, match="no device 2"):
        strict.cuda.Device(2)


ORDERS = {
    "elementwise": lambda xp, x: x + 1,
    "a comparison": lambda xp, x: x > 0,
    "a power": lambda xp, x: x**2,
    "a ufunc": lambda xp, x: xp.exp(x),
    "where": lambda xp, x: xp.where(x > 0, x, 0),
    "clip": lambda xp, x: x.clip(0, 1),
    "negation": lambda xp, x: -x,
    "broadcasting": lambda xp, x: xp.broadcast_to(x, (2, *x.shape)) + 1,
    "a sum": lambda xp, x: x.sum(0),
    "a maximum": lambda xp, x: x.max(1),
    "a mean": lambda xp, x: x.mean(0, keepdims=True),
    "a deviation": lambda xp, x: x.std(1),
    "concatenate": lambda xp, x: xp.concatenate([x, x]),
    "stack": lambda xp, x: xp.stack([x, x], 1),
    "a gather": lambda xp, x: x[:, xp.asarray([0, 1])],
    "a list as index": lambda xp, x: x[:, [0, 1]],
    "take": lambda xp, x: x.take(xp.asarray([0, 1]), 1),
    "a cast": lambda xp, x: x.astype("float64"),
    "copy": lambda xp, x: x.copy(),
    "xp.copy": lambda xp, x: xp.copy(x),
    "array": lambda xp, x: xp.array(x),
    "zeros_like": lambda xp, x: xp.zeros_like(x),
    "full_like": lambda xp, x: xp.full_like(x, 2),
    "a product": lambda xp, x: x @ x.swapaxes(-1, -2),
    "matmul": lambda xp, x: xp.matmul(x, x.swapaxes(-1, -2)),
    "transposing": lambda xp, x: x.T,
    "reshaping": lambda xp, x: x.reshape(-1),
    "roll": lambda xp, x: xp.roll(x, 1, 0),
    "pad": lambda xp, x: xp.pad(x, 1),
    "flip": lambda xp, x: xp.flip(x, 0),
    "diff": lambda xp, x: xp.diff(x, axis=0),
    "tril": lambda xp, x: xp.tril(x),
    "repeat": lambda xp, x: xp.repeat(x, 2, 0),
    "round": lambda xp, x: xp.round(x),
    "nan_to_num": lambda xp, x: xp.nan_to_num(x),
}


def layouts(xp):
    c = xp.asarray(numpy.arange(24.0, dtype="float32").reshape(2, 3, 4))
    yield from (c, c[0], c[0].T, c.transpose(1, 2, 0), c.T, c[..., ::2], c[:, ::2].transpose(0, 2, 1))


FOLLOWS = {"a cast", "xp.copy", "array", "zeros_like", "full_like", "transposing", "roll", "pad", "flip", "nan_to_num"}


@pytest.mark.parametrize("name", sorted(ORDERS.keys() - FOLLOWS))
def test_new_arrays_of_the_strict_module_have_the_order_c(name):
    for x, host in zip(layouts(strict), layouts(numpy), strict=True):
        result = ORDERS[name](strict, x)
        assert result.flags.c_contiguous or result.base is not None
        numpy.testing.assert_allclose(result.get(), ORDERS[name](numpy, host), rtol=1e-6)


@pytest.mark.parametrize("name", ORDERS)
def test_new_arrays_of_the_strict_module_have_the_strides_of_cupys(xp, name):
    for x, y in zip(layouts(strict), layouts(xp), strict=True):
        ours, theirs = ORDERS[name](strict, x), ORDERS[name](xp, y)
        assert ours.strides == theirs.strides or 1 in ours.shape
        numpy.testing.assert_allclose(ours.get(), theirs.get(), rtol=1e-6)
