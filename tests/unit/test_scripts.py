"""The two scripts that the library was designed around, run as they stand."""

import numpy
import pytest

from mtorch.data import ArrayDataset, DataLoader, digits, standardise


@pytest.fixture(scope="module")
def loaders():
    data = digits()
    train = ArrayDataset(standardise(data.train_images), data.train_labels)
    return DataLoader(train, batch_size=20, shuffle=True, rng=0), (standardise(data.test_images), data.test_labels)


def test_the_script_of_the_design(loaders):
    train_loader, (test_images, test_labels) = loaders
    from mtorch import SGD, Module, Sequential, SquareLoss, layers, seed

    seed(3)

    class DigitModule(Module):
        def __init__(self):
            super().__init__(Sequential([
                layers.Linear(in_dim=784, out_dim=16, coe=2), layers.ReLU(),
                layers.Linear(in_dim=16, out_dim=16, coe=2), layers.ReLU(),
                layers.Linear(in_dim=16, out_dim=10, coe=1), layers.Sigmoid(),
            ]))  # fmt: skip

    module = DigitModule()
    loss_func = SquareLoss(backward_func=module.backward)
    optimizer = SGD(module, lr=0.1)
    values = []
    for _ in range(20):
        for images, labels in train_loader:
            loss = loss_func(module(images), labels, transform=True)
            loss.backward()
            optimizer.step()
            values.append(loss.value)
    assert numpy.mean(values[-60:]) < 0.25 * numpy.mean(values[:5])
    assert (module.predict(test_images).argmax(-1) == test_labels).mean() > 0.75


def test_the_script_in_the_originals_spelling(loaders):
    train_loader, _ = loaders
    from mtorch import Module, Sequential, ShapeNotMatchException, SquareLoss, layers

    class DigitModule(Module):
        def __init__(self):
            sequential = Sequential([
                layers.Linear2(784, 16, coe=2), layers.Relu(16),
                layers.Linear2(16, 16, coe=2), layers.Relu(16),
                layers.Linear2(16, 10, coe=1), layers.Sigmoid(10),
            ])  # fmt: skip
            super().__init__(sequential)

    module = DigitModule()
    loss_func = SquareLoss(backward_func=module.backward)
    first = last = None
    for _ in range(5):
        for images, labels in train_loader:
            output = module(images)
            loss = loss_func(output, labels.reshape(-1, 1), transform=True)
            loss.backward()
            module.step(0.1)
            first, last = first or loss.value, loss.value
    assert last < first
    assert layers.Linear3 is layers.Linear and layers.Relu is layers.ReLU
    with pytest.raises(ShapeNotMatchException, match=r"Linear\(784 -> 16\) expected input of shape .*784.*, got"):
        module(numpy.zeros((2, 9)))
    assert str(ShapeNotMatchException(layers.Linear(9, 2), "got (2, 8)")) == "Linear(9 -> 2) got (2, 8)"
    with pytest.raises(ShapeNotMatchException, match=r"Sigmoid\(12\)"):
        Sequential([layers.Linear2(4, 10), layers.Sigmoid(12)])
