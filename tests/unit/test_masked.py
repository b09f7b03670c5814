"""Masked arrays are refused wherever data come in, and other subclasses of NumPy's array become plain arrays."""

import itertools
import pickle

import numpy
import numpy.ma
import pytest

import mtorch
from mtorch import Graph, Input, Module, Parameter, Sequential, layers, losses, optim
from mtorch.data import ArrayDataset, DataLoader
from mtorch.data.dataset import Dataset
from mtorch.data.file_dataset import standardise
from mtorch.data.mnist_style import as_mnist
from mtorch.testing import check_gradients, strict

FLOATS = numpy.ma.masked_array(numpy.ones((2, 3), "float32"), mask=[[0, 0, 1], [0, 0, 0]])
LABELS = numpy.ma.masked_array([0, 1], mask=[0, 1])
PLAIN = numpy.ones((2, 3), "float32")


def net():
    return Module(Sequential(layers.Linear(3, 3, rng=0), layers.ReLU()))


def answered(layer, *x):
    layer(*x)
    return layer


def state(name="weight"):
    return {"weight": numpy.ones((3, 3)), "bias": numpy.ones(3)} | {name: numpy.ma.ones((3, 3)[: 2 - (name == "bias")])}


class Masked(Dataset):
    """A data set of somebody else, whose labels have a mask."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return PLAIN[index], LABELS[index]


def adam():
    module = net()
    optimizer = optim.Adam(module)
    losses.MSELoss(module)(module(PLAIN), PLAIN).backward()
    optimizer.step()
    return optimizer


PLACES = {  # what takes data, and whom the error names
    "a buffer": (lambda: mtorch.Buffer(FLOATS), "Buffer"),
    "a loader's data set": (lambda: DataLoader(FLOATS), "DataLoader dataset:"),
    "initial values": (
        lambda: layers.Linear(3, 2, init=lambda rng, shape, i, o: numpy.ma.ones(shape)), "Linear init:",
    ),
    "initial values of an embedding": (
        lambda: layers.Embedding(3, 2, init=lambda rng, shape, i, o: numpy.ma.ones(shape)), "Embedding init:",
    ),
    "a layer": (lambda: layers.Linear(3, 2)(FLOATS), r"Linear\(3 -> 2\)"),
    "a layer, a list": (lambda: layers.Linear(3, 2)([FLOATS[0], FLOATS[1]]), r"Linear\(3 -> 2\)"),
    "a layer, a constant in a list": (lambda: layers.ReLU()([[1.0, numpy.ma.masked]]), "ReLU"),
    "a layer of float64": (lambda: layers.Linear(3, 2, dtype="float64")(FLOATS), "Linear"),
    "a layer elsewhere": (lambda: layers.ReLU(xp=strict)(FLOATS), "ReLU"),
    "a layer of ids": (lambda: layers.Embedding(2, 3)(LABELS), "Embedding"),
    "a layer of several": (lambda: layers.Add()(PLAIN, FLOATS), "Add"),
    "a layer that keeps kinds": (lambda: layers.GetItem(0)(LABELS, PLAIN), "GetItem"),
    "a chain": (lambda: net()(FLOATS), "Linear"),
    "predict": (lambda: net().predict(FLOATS), "Linear"),
    "predict of a layer": (lambda: layers.ReLU().predict(FLOATS), "ReLU"),
    "an output gradient": (lambda: answered(layers.ReLU(), PLAIN).backward(FLOATS), "ReLU"),
    "an output gradient of a net": (lambda: answered(net(), PLAIN).backward(FLOATS), "ReLU"),
    "a state": (lambda: layers.GRU(3, 3)(FLOATS, PLAIN[None]), "GRU"),
    "lengths": (lambda: layers.GRU(3, 3)(None, PLAIN[:, None], numpy.ma.masked_array([2], [1])), "GRU"),
    "an attention mask": (
        lambda: layers.MultiHeadAttention(3, 1)(*[PLAIN[:, None]] * 3, numpy.ma.zeros((2, 2), bool)),
        "MultiHeadAttention",
    ),
    "a parameter": (lambda: Parameter(FLOATS), "Parameter"),
    "a constant": (lambda: Graph.of(Input("x") * FLOATS), "constant of Graph"),
    "a constant on the left": (lambda: Graph.of(mtorch.add(FLOATS, Input("x"))), "constant of Graph"),
    "a constant operand": (lambda: layers.ConstantOperand(layers.Add(), right=FLOATS), "ConstantOperand"),
    "an index": (lambda: layers.Slice(numpy.ma.masked_array([True, False], [0, 1])), "Slice"),
    "a function": (lambda: mtorch.exp(FLOATS), ""),
    "a function of two": (lambda: mtorch.add(PLAIN, FLOATS), ""),
    "a prediction": (lambda: losses.MSELoss()(FLOATS, PLAIN), "MSELoss"),
    "a target": (lambda: losses.MSELoss()(PLAIN, FLOATS), "MSELoss"),
    "a target list": (lambda: losses.MSELoss()(PLAIN, list(FLOATS)), "MSELoss"),
    "a target of SquareLoss": (lambda: losses.SquareLoss()(PLAIN, FLOATS), "SquareLoss"),
    "labels of SquareLoss": (lambda: losses.SquareLoss()(PLAIN, LABELS, transform=True), "SquareLoss"),
    "labels": (lambda: losses.CrossEntropyLoss()(PLAIN, LABELS), "CrossEntropyLoss"),
    "labels of NLLLoss": (lambda: losses.NLLLoss()(PLAIN, LABELS), "NLLLoss"),
    "labels in a list": (lambda: losses.CrossEntropyLoss()(PLAIN, [LABELS[0], LABELS[1]]), "CrossEntropyLoss"),
    "class probabilities": (lambda: losses.CrossEntropyLoss()(PLAIN, FLOATS), "CrossEntropyLoss"),
    "class weights": (lambda: losses.CrossEntropyLoss(weight=FLOATS[0]), "CrossEntropyLoss weight"),
    "labels elsewhere": (lambda: losses.CrossEntropyLoss()(strict.ones((2, 3)), LABELS), "CrossEntropyLoss"),
    "weights of terms": (
        lambda: losses.MSELoss(net(), reduction="none")(PLAIN, PLAIN).backward(FLOATS), "MSELoss",
    ),
    "a state dict": (lambda: layers.Linear(3, 3).load_state_dict(state()), "weight"),
    "a state dict of a net": (lambda: net().load_state_dict({f"0.{k}": v for k, v in state("bias").items()}), "bias"),
    "an optimizer's state": (
        lambda: (lambda o: o.load_state_dict(o.state_dict() | {"0.bias.exp_avg": numpy.ma.ones(3)}))(adam()), "exp_avg",
    ),
    "a data set": (lambda: ArrayDataset(PLAIN, LABELS), "ArrayDataset argument 1"),
    "a data set of lists": (lambda: ArrayDataset(list(FLOATS), [0, 1]), "ArrayDataset argument 0"),
    "batches": (
        lambda: [losses.CrossEntropyLoss()(net()(x), labels) for x, labels in DataLoader(Masked())], "CrossEntropyLoss",
    ),
    "images": (lambda: standardise(FLOATS), "standardise"),
    "a picture": (lambda: as_mnist(FLOATS), "as_mnist"),
    "more of a checkpoint": (lambda: mtorch.save("never.npz", net(), mean=FLOATS), "never.npz"),
    "a gradient check": (lambda: check_gradients(layers.Linear(3, 2), FLOATS), "check_gradients"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_masked_array_is_refused_with_the_fix(place):
    call, name = PLACES[place]
    with pytest.raises(TypeError, match=rf"{name}.*expected an array without a mask.*a\.filled\("):
        call()


def test_losses_that_ignore_a_label_say_so():
    for loss in (losses.CrossEntropyLoss(), losses.NLLLoss(), losses.CrossEntropyLoss(ignore_index=3)):
        with pytest.raises(TypeError, match=r"a\.filled\(-100\) and ignore_index=-100"):
            loss(PLAIN, LABELS)
    with pytest.raises(TypeError, match=r"a\.filled\(0\)$"):
        losses.SquareLoss(transform=True)(PLAIN, LABELS)


def test_what_the_message_says_helps():
    loss = losses.CrossEntropyLoss(ignore_index=-100)(PLAIN, LABELS.filled(-100))
    assert loss.grad[1].tolist() == [0, 0, 0]
    assert layers.ReLU()(FLOATS.filled(0)).sum() == 5


def test_a_refusal_loses_nothing():
    module = net()
    module(PLAIN)
    before = module.state_dict()
    with pytest.raises(TypeError, match="without a mask"):
        module.backward(FLOATS)
    with pytest.raises(TypeError, match="without a mask"):
        module.load_state_dict({f"0.{name}": value for name, value in state().items()})
    module.backward(PLAIN)
    assert all((module.state_dict()[name] == before[name]).all() for name in before)


class Kilometres(numpy.ndarray):
    """A subclass whose multiplication is not an array's."""

    def __mul__(self, other):
        raise AssertionError("the subclass decides")

    __rmul__ = __imul__ = __matmul__ = __mul__


@pytest.mark.parametrize("kind", [numpy.matrix, Kilometres, numpy.memmap], ids=lambda kind: kind.__name__)
def test_other_subclasses_become_plain_arrays(kind, tmp_path):
    """A matrix has another `*`, and never one axis: what a layer computes with is always a plain array."""

    serial = itertools.count()

    def given(array):
        if kind is not numpy.memmap:
            return array.view(kind)
        mapped = numpy.memmap(tmp_path / str(next(serial)), array.dtype, "w+", shape=array.shape)
        mapped[...] = array
        return mapped

    x, w = numpy.arange(9, dtype="float32").reshape(3, 3), numpy.eye(3, dtype="float32") + 1
    for layer in (
        layers.Linear(3, 2, rng=0),
        layers.Softmax(),
        layers.LayerNorm(3),
        layers.Sum(1, True),
        layers.Identity(),
    ):
        y = layer(given(x))
        assert type(y) is numpy.ndarray and (y == layer.predict(x)).all()
        dx = layer.backward(given(y))
        layer(x)
        assert type(dx) is numpy.ndarray and (dx == layer.backward(y)).all()
    multiply = layers.ConstantOperand(layers.Multiply(), right=given(w))
    assert (multiply(x) == x * w).all()
    assert (Graph.of(Input("x") * given(w))(x) == x * w).all()
    parameter = Parameter(given(w))
    assert type(parameter.value) is numpy.ndarray
    assert type(pickle.loads(pickle.dumps(parameter)).value) is numpy.ndarray
    assert (mtorch.multiply(given(x), w) == x * w).all()
    assert losses.MSELoss()(given(x), given(w)).value == losses.MSELoss()(x, w).value
    assert type(losses.MSELoss()(given(x), w).grad) is numpy.ndarray
    labels = numpy.array([[0], [2], [1]])
    for loss in (losses.CrossEntropyLoss(), losses.NLLLoss(), losses.SquareLoss(transform=True)):
        assert loss(x, given(labels)).value == loss(x, labels).value
    images, found = ArrayDataset(given(x), given(labels))[numpy.array([2, 0])]
    assert type(images) is type(found) is numpy.ndarray and found.tolist() == [[1], [0]]
    layer = layers.Linear(3, 3, bias=False)
    layer.load_state_dict({"weight": given(w)})
    assert type(layer.weight.value) is numpy.ndarray and (layer.weight.value == w).all()


def test_records_are_no_numbers():
    records = numpy.rec.fromarrays([[1.0, 2.0], [3, 4]], names="a,b")
    with pytest.raises(TypeError, match="Linear.*expected real numbers"):
        layers.Linear(2, 2)(records)
