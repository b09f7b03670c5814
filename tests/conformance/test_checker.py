"""The tester is tested: deliberately wrong layers, each of which `check_gradients` must reject."""

import numpy
import pytest

from mtorch import Layer, Parameter, Sequential, SquareLoss, layers
from mtorch.testing import GradientError, check_gradients


class Right(layers.Linear):
    """The correct map that the wrong ones are made from."""

    def __init__(self):
        super().__init__(3, 3, rng=0, init=lambda rng, shape, *fans: rng.standard_normal(shape) + 0.5)


class ForgottenTranspose(Right):
    def backward(self, output_grad):
        super().backward(output_grad)
        return output_grad @ self.weight.value.T


class MeanForSum(Right):
    def backward(self, output_grad):
        dx = super().backward(output_grad)
        self.bias.zero_grad()
        self.bias.accumulate(output_grad.mean(axis=0))
        return dx


class SlightlyTooLarge(Right):
    def backward(self, output_grad):
        return super().backward(output_grad) * (1 + 1e-3)


class DividedByOutDim(Right):
    """The original mtorch's fault."""

    def backward(self, output_grad):
        return super().backward(output_grad) / self.out_dim


class WrongSign(Right):
    def backward(self, output_grad):
        return -super().backward(output_grad)


class BiasForgotten(Right):
    def backward(self, output_grad):
        dx = super().backward(output_grad)
        self.bias.zero_grad()
        return dx


class GradientWrittenNotAdded(Right):
    """Wrong only where the layer stands twice in a net."""

    def backward(self, output_grad):
        self.zero_grad()
        return super().backward(output_grad)


class NoSoftmaxGradient(layers.Softmax):
    def backward(self, output_grad):
        return super().backward(output_grad) * 0


class SoftmaxOfOnes(layers.Softmax):
    """Treats the outputs as independent; a cotangent of ones would not see it."""

    def backward(self, output_grad):
        y = self.recall()
        return output_grad * y - y * output_grad.mean(axis=-1, keepdims=True)


class StaleCache(Layer):
    """Remembers the first input for ever."""

    def __init__(self):
        super().__init__()
        self.first = None

    def forward(self, x):
        self.first = x * 0.9 if self.first is None else self.first
        return x * x

    def backward(self, output_grad):
        return 2 * self.first * output_grad


class AliasingAdd(Layer):
    """x + x whose backward adds into the caller's array."""

    def forward(self, x):
        return x + x

    def backward(self, output_grad):
        output_grad += output_grad
        output_grad += output_grad
        return output_grad


class DetachedParameter(Layer):
    """Uses a parameter in forward and forgets it in backward."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(numpy.full(3, 2.0, "float32"))

    def forward(self, x):
        return x * self.weight.value

    def backward(self, output_grad):
        return output_grad * self.weight.value


class NoInputGradient(Right):
    def backward(self, output_grad):
        super().backward(output_grad)


class WrongShape(Right):
    def backward(self, output_grad):
        return super().backward(output_grad).sum(axis=0)


class OffByOneInTime(Layer):
    """A running sum whose backward stops one step early."""

    def forward(self, x):
        return x.cumsum(axis=0)

    def backward(self, output_grad):
        dx = output_grad[::-1].cumsum(axis=0)[::-1].copy()
        dx[0] -= output_grad[-1]
        return dx


class LossWithoutMean(SquareLoss):
    def __call__(self, prediction, target, **options):
        loss = super().__call__(prediction, target, **options)
        loss.grad *= 1.001
        return loss


WRONG = [
    ForgottenTranspose, MeanForSum, SlightlyTooLarge, DividedByOutDim, WrongSign, BiasForgotten, NoSoftmaxGradient,
    SoftmaxOfOnes, StaleCache, AliasingAdd, DetachedParameter, NoInputGradient, WrongShape, OffByOneInTime,
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
@pytest.mark.parametrize("cls", WRONG)
def test_a_wrong_layer_is_rejected_by_name(cls, dtype):
    with pytest.raises(GradientError, match=cls.__name__):
        check_gradients(cls(), (4, 3), dtype)


def test_a_gradient_that_is_overwritten_when_the_layer_stands_twice_is_rejected():
    twice = GradientWrittenNotAdded()
    check_gradients(twice, (4, 3))
    with pytest.raises(GradientError, match=r"0\.weight"):
        check_gradients(Sequential(twice, layers.Tanh(), twice), (4, 3))


def test_a_wrong_loss_is_rejected():
    check_gradients(SquareLoss(), ((4, 3), (4, 3)))
    with pytest.raises(GradientError, match="LossWithoutMean.*prediction"):
        check_gradients(LossWithoutMean(), ((4, 3), (4, 3)))


def test_the_right_layers_pass():
    assert check_gradients(Right(), (4, 3), "longdouble") < 1e-10


def test_an_entry_at_a_kink_is_left_out_and_only_that_entry():
    x = numpy.array([[0.0, 1.0, -1.0, 2.0]])
    check_gradients(layers.ReLU(), x)

    class LeakyWhereItShouldNot(layers.ReLU):
        def backward(self, output_grad):
            return super().backward(output_grad) + 0.01 * output_grad * (output_grad < 9)

    with pytest.raises(GradientError, match="LeakyWhereItShouldNot"):
        check_gradients(LeakyWhereItShouldNot(), x)


def test_inputs_that_sit_on_kinks_everywhere_prove_nothing_and_are_refused():
    with pytest.raises(GradientError, match="kink"):
        check_gradients(layers.ReLU(), numpy.zeros((2, 3)))


def test_single_precision_is_refused():
    with pytest.raises(ValueError, match="float64"):
        check_gradients(Right(), (4, 3), "float32")


def test_the_checked_layer_is_a_copy():
    layer = Right()
    before = layer.weight.value.copy()
    check_gradients(layer, (4, 3))
    assert layer.dtype == "float32" and not layer.weight.has_grad
    numpy.testing.assert_array_equal(layer.weight.value, before)


def test_the_message_names_the_worst_entry():
    class OneEntry(Right):
        def backward(self, output_grad):
            dx = super().backward(output_grad)
            dx[1, 2] += 0.5
            return dx

    with pytest.raises(GradientError, match=r"input\[1, 2\]"):
        check_gradients(OneEntry(), (4, 3))


class Noisy(Layer):
    """Draws from a generator that nobody can set back."""

    def __init__(self):
        super().__init__()
        self.rng = numpy.random.default_rng(0)

    def forward(self, x):
        self.remember()
        return x + self.rng.standard_normal(x.shape)

    def backward(self, output_grad):
        self.recall()
        return output_grad


def test_a_layer_that_draws_without_a_random_state_is_told_what_is_missing():
    with pytest.raises(GradientError, match=r"Noisy\(\): y of two calls.*random_state\(\) and set_random_state"):
        check_gradients(Noisy(), (4, 3))
