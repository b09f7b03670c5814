"""A layer, a loss and an optimizer of one's own, each with its derivative written by hand, train a net together.

Swish: Ramachandran, Zoph & Le, 2017. Lion: Chen et al., 2023.
"""

import numpy

from mtorch import Layer, LossFunction, Module, Parameter, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.optim import Optimizer
from mtorch.testing import check_gradients


class Swish(Layer):
    """y = x s(b x) with s the sigmoid. Backward: dy/dx = s + b x s (1 - s), dy/db = x^2 s (1 - s)."""

    def __init__(self, b=1.0, *, xp=numpy, dtype="float32"):
        super().__init__(xp=xp, dtype=dtype)
        self.b = Parameter(xp.asarray([b], dtype=self.dtype))

    def forward(self, x):
        s = 1 / (1 + self.xp.exp(-self.b.value * x))
        self.remember(x, s)
        return x * s

    def backward(self, output_grad):
        g = self.cast_grad(output_grad)
        x, s = self.recall()
        slope = s * (1 - s)
        self.b.accumulate((g * x * x * slope).sum().reshape(1))
        return g * (s + self.b.value * x * slope)


class LogCoshLoss(LossFunction):
    """L = log cosh d with d = p - t. Backward: dL/dp = tanh d."""

    def terms(self, xp, prediction, target):
        d = prediction - target
        a = xp.abs(d)
        return a + xp.log1p(xp.exp(-2 * a)) - numpy.log(2), xp.tanh(d)


class Lion(Optimizer):
    """d = sign(0.9 m + 0.1 g), then m := 0.99 m + 0.01 g."""

    slots = ("exp_avg",)

    def rule(self, xp, g, state, t):
        d = xp.sign(0.9 * state.exp_avg + 0.1 * g)
        state.exp_avg = 0.99 * state.exp_avg + 0.01 * g
        return d


print(f"Swish: gradient right to {check_gradients(Swish(0.7), (4, 3), 'longdouble'):.0e}")
data = digits(size=8)
train, test = (images.reshape(-1, 64).astype("float32") / 16 for images in (data.train_images, data.test_images))
swish = Swish()
module = Module(Sequential(layers.Linear(64, 48, coe=2, rng=0), swish, layers.Linear(48, 10, rng=1)))
loss_func, optimizer = LogCoshLoss(module), Lion(module, lr=1e-3)
loader = DataLoader(ArrayDataset(train, data.train_labels), batch_size=32, shuffle=True, rng=0)
for _ in range(20):
    for x, labels in loader:
        loss_func(module(x), numpy.eye(10)[labels]).backward()
        optimizer.step()

accuracy = (module.predict(test).argmax(-1) == data.test_labels).mean()
print(f"{accuracy:.1%} of the test digits; b went from 1 to {swish.b.value[0]:.2f}")
assert accuracy > 0.94 and swish.b.value[0] != 1
