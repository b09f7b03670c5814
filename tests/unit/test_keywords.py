"""An unknown keyword is answered in the class's own name, and constructors of users' own go on working."""

import copy
import dataclasses
import functools
import inspect
import pickle

import numpy
import pytest

import mtorch
from mtorch import Layer, Module, layers, losses
from mtorch.losses import LossFunction

NAMED = [getattr(layers, name) for name in layers.__all__ if name != "on"]
NAMED += [getattr(losses, name) for name in losses.__all__ if name != "Loss"]
NAMED += [mtorch.Sequential, mtorch.Residual, mtorch.Fork, mtorch.Parallel, mtorch.Recurrent, mtorch.Bidirectional]
NAMED += [mtorch.Graph, mtorch.Module, mtorch.DataParallel]


@pytest.mark.parametrize("cls", sorted(set(NAMED), key=lambda cls: cls.__name__))
def test_every_layer_and_loss_answers_an_unknown_keyword_in_its_own_name(cls):
    with pytest.raises(TypeError) as error:
        cls(colour=3)
    names = [name for name, p in inspect.signature(cls.__init__).parameters.items() if p.kind in (1, 3)][1:]
    assert str(error.value) == f"{cls.__name__} has no colour: it takes {', '.join(names) or 'no keywords'}"


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layers.Linear(in_features=3, out_dim=2), "Linear has no in_features: it is in_dim"),
        (
            lambda: layers.Linear(in_features=3, out_features=2),
            "Linear has no in_features: it is in_dim, no out_features: it is out_dim",
        ),
        (lambda: layers.GRU(input_size=3, hidden_size=2), "no input_size: it is in_dim, no hidden_size: it is out_dim"),
        (lambda: layers.LSTMCell(3, hidden_size=2), "LSTMCell has no hidden_size: it is out_dim"),
        (lambda: layers.RNN(3, 2, proj_size=1), "RNN has no proj_size: it takes in_dim, out_dim, num_layers, "),
        (lambda: layers.Dropout(0.5, device="cuda"), "Dropout has no device: it is xp"),
        (lambda: layers.Sum(dim=1), "Sum has no dim: it is axis"),
        (lambda: layers.Concat(dim=1), "Concat has no dim: it is axis"),
        (lambda: layers.Mean(1, keepdim=True), "Mean has no keepdim: it is keepdims"),
        (lambda: layers.LeakyReLU(dim=4), "LeakyReLU has no dim: it takes negative_slope, xp, dtype, rng"),
        (lambda: losses.MSELoss(size_average=False), "MSELoss has no size_average: it is reduction"),
        (lambda: layers.on(numpy).Linear(3, 2, in_features=1), "Linear has no in_features: it is in_dim"),
        (lambda: mtorch.softplus(numpy.ones(3), gamma=1), "softplus"),
    ],
)
def test_torchs_words_are_answered_with_ours(make, text):
    with pytest.raises(TypeError) as error:
        make()
    assert text in str(error.value)


def keeps(subject, *inputs):
    """It computes the same after a pickle and a copy."""
    with_pickle = [pickle.loads(pickle.dumps(subject))] if "<locals>" not in type(subject).__qualname__ else []
    for twin in [copy.copy(subject), copy.deepcopy(subject), *with_pickle]:
        y, z = (each(*inputs) for each in (subject, twin))
        y, z = (each.value if isinstance(each, mtorch.Loss) else each for each in (y, z))
        numpy.testing.assert_array_equal(y, z)


class Passing(layers.Linear):
    """Options of its own, the others handed on."""

    def __init__(self, size, *, colour="red", **options):
        super().__init__(size, size, **options)
        self.colour = colour


class Inner(Module):
    """Options that go to a layer below."""

    def __init__(self, **options):
        super().__init__()
        self.first = layers.Linear(3, 3, **options)

    def forward(self, x):
        return self.first(x)


class Scaled(LossFunction):
    def __init__(self, backward_func=None, factor=2.0, /, **options):
        super().__init__(backward_func, **options)
        self.factor = factor

    def terms(self, xp, prediction, target):
        return self.factor * (prediction - target), xp.full_like(prediction, self.factor)


class Explicit(layers.Linear):
    def __init__(self, size, colour="red"):
        super().__init__(size, size)


class Counting:
    """A mixin that makes instances itself."""

    made = 0

    def __new__(cls, *args, **options):
        cls.made += 1
        return super().__new__(cls, *args, **options)


class Counted(Counting, layers.Linear):
    pass


def coloured(init):
    @functools.wraps(init)
    def wrapper(self, *args, colour="red", **options):
        init(self, *args, **options)
        self.colour = colour

    return wrapper


class Wrapped(layers.Linear):
    __init__ = coloured(layers.Linear.__init__)


@dataclasses.dataclass(eq=False, repr=False)
class Declared(Layer):
    factor: float = 2.0

    def __post_init__(self):
        super().__init__()

    def forward(self, x):
        self.remember()
        return self.factor * x


def test_classes_of_users_are_made_copied_and_pickled():
    x = numpy.ones((2, 3), "float32")
    keeps(Passing(3, colour="blue", coe=2, rng=0), x)
    keeps(Inner(coe=2, rng=0), x)
    keeps(Scaled(None, 3.0, reduction="sum"), x, 2 * x)
    keeps(Counted(3, out_dim=2, rng=0), x)
    keeps(Wrapped(3, out_dim=3, colour="blue"), x)
    keeps(Declared(factor=3.0), x)
    assert Counted.made
    assert Wrapped(3, 3, colour="blue").colour == "blue"


def test_classes_of_users_answer_in_their_own_name():
    with pytest.raises(TypeError, match="Explicit has no shade: it takes size, colour"):
        Explicit(3, shade="dark")
    with pytest.raises(TypeError, match="Counted has no in_features: it is in_dim"):
        Counted(in_features=3, out_dim=3)
    with pytest.raises(TypeError, match="Linear has no shade: it takes in_dim, .*"):
        Inner(shade="dark")
    with pytest.raises(TypeError, match="shade"):
        Passing(3, shade="dark")


def test_a_signature_is_that_of_the_constructor():
    assert list(inspect.signature(layers.Linear).parameters)[:3] == ["in_dim", "out_dim", "coe"]
    assert list(inspect.signature(layers.RNN).parameters)[:4] == ["in_dim", "out_dim", "num_layers", "nonlinearity"]
    assert list(inspect.signature(layers.MatMul).parameters) == ["xp", "dtype", "rng"]
    assert list(inspect.signature(losses.BCELoss).parameters) == ["backward_func", "reduction"]
