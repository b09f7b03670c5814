"""The arguments of every class that torch has too: their names, order, defaults and meaning.

The section "What differs from torch" of docs/from_torch.md lists the differences; its table is read here, and a row
too few or too many is an error. A row has classes, what torch has, what mtorch has, and the reason. Names on both sides
are one argument under two names; with `=` they are defaults; a name on one side is an argument that the other has not.
An ordinal (`coe` third) is the position of an argument that stands elsewhere in torch, or nowhere; "by keyword" marks
one that has a position in torch only.
"""

import inspect
import re
from pathlib import Path
from typing import get_overloads

import numpy
import public_names
import pytest

import mtorch
from mtorch import Layer, Module, layers, losses, optim
from mtorch.data import ArrayDataset, DataLoader
from mtorch.keywords import WORDS
from mtorch.losses import LossFunction
from mtorch.optim import schedules

torch = pytest.importorskip("torch")

PAGE = (Path(__file__).parents[2] / "docs" / "from_torch.md").read_text()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()
BY_KEYWORD = "by keyword"
OTHER_NAMES = {"MultiHeadAttention": "MultiheadAttention"}
GROUPS = {
    "every layer": (layers, torch.nn, Layer), "every loss": (losses, torch.nn, LossFunction),
    "every optimizer": (optim, torch.optim, optim.Optimizer),
    "every schedule": (schedules, torch.optim.lr_scheduler, schedules.Schedule),
}  # fmt: skip
KEYWORDS_ONLY = ("every loss", "every optimizer")  # in what follows the first argument, and lr


def pairs():
    """(group, our class, torch's) for every class with torch's name."""
    for group, (ours, theirs, base) in GROUPS.items():
        for name, cls in sorted(vars(ours).items()):
            twin = getattr(theirs, OTHER_NAMES.get(name, name), None)
            if isinstance(cls, type) and issubclass(cls, base) and cls is not base and twin and cls.__name__ == name:
                yield group, cls, twin


PAIRS = list(pairs())
PAIRS.append(("", DataLoader, torch.utils.data.DataLoader))
NAMED = {cls.__name__: (group, cls, twin) for group, cls, twin in PAIRS}


# ---------------------------------------------------------------------- the list of the page


def rows():
    """(classes or a group, torch's names, ours) of each row."""
    section = PAGE.partition("## What differs from torch")[2].partition("\n## ")[0]
    for line in re.findall(r"^\|(.*)\|$", section, re.M)[2:]:
        classes, theirs, ours, _ = (cell.strip() for cell in line.split("|"))
        item = re.compile(rf"`([^`]+)`((?: (?:{'|'.join([*ORDINALS, BY_KEYWORD])}))?)")
        yield (
            [classes] if classes.startswith("every") else re.findall(r"`(\w+)`", classes),
            *(["".join(found) for found in item.findall(cell)] for cell in (theirs, ours)),
        )


def listed():
    """{class or group: [(torch's, ours)]}, "" for what one of them has not."""
    found = {}
    for classes, theirs, ours in rows():
        if any(" " in name for name in ours) or not theirs or not ours:
            items = [(name, "") for name in theirs] + [("", name) for name in ours]
        else:
            items = [*zip(theirs, ours * len(theirs) if len(ours) == 1 else ours, strict=True)]
        for name in classes:
            found.setdefault(name, []).extend(items)
    return found


LISTED = listed()


# ---------------------------------------------------------------------- the signatures


def torch_parameters(cls):
    overloads = get_overloads(cls.__init__)
    found = list(inspect.signature(overloads[0] if overloads else cls.__init__).parameters.values())[1:]
    named = [each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return [each for each in named if not each.name.startswith("_")]


def renamed(group, cls):
    """{torch's name: ours} by the list."""
    items = LISTED.get(group, []) + LISTED.get(cls.__name__, [])
    return {theirs: ours for theirs, ours in items if theirs and ours and "=" not in theirs}


def differences(group, cls, twin):
    """All differences, as the list writes them."""
    ours = {each.name: each for each in public_names.signature(cls).parameters.values()}
    other = renamed(group, cls)
    theirs = torch_parameters(twin)
    names = [each.name if each.name in ours else other.get(each.name, "") for each in theirs]
    found = []
    for each, name in zip(theirs, names, strict=True):
        if name != each.name or not name:
            found.append((each.name, name))
        elif each.default is each.empty or ours[name].default is each.empty:
            assert each.default is ours[name].default, f"{cls.__name__}: {name} must have a default in both or in none"
        elif each.default != ours[name].default:
            found.append((f"{name}={each.default!r}", f"{name}={ours[name].default!r}"))
    placed = [each.name for each in ours.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    their_places = [name for name, each in zip(names, theirs, strict=True) if each.kind is each.POSITIONAL_OR_KEYWORD]
    extra = 0
    for i, name in enumerate(placed):
        expected = their_places[i - extra] if i - extra < len(their_places) else None
        if name != expected:
            found.append(("", f"{name} {ORDINALS[i]}"))
            extra += name not in names
    found += [("", name) for name in ours if name not in names and name not in placed]
    if group not in KEYWORDS_ONLY:
        lost = (name for name in their_places if name and name not in placed and name not in ("xp", "dtype"))
        found += [("", f"{name} {BY_KEYWORD}") for name in lost]
    return found


@pytest.mark.parametrize("name", NAMED)
def test_arguments_are_torchs_but_for_what_the_readme_lists(name):
    group, cls, twin = NAMED[name]
    found, general, own = differences(group, cls, twin), LISTED.get(group, []), LISTED.get(name, [])
    missing = [item for item in found if item not in own and item not in general]
    assert not missing, f"the page's list lacks, for {name}: {missing}"
    stale = [item for item in own if item not in found]
    assert not stale, f"the page lists for {name} what is no difference any longer: {stale}"


def test_every_row_of_the_list_is_about_something():
    assert len(PAIRS) > 50
    unknown = set(LISTED) - set(NAMED) - set(GROUPS)
    assert not unknown, f"the page lists differences of {unknown}, which are not in both libraries"
    for group in GROUPS:
        found = [item for kind, cls, twin in PAIRS if kind == group for item in differences(kind, cls, twin)]
        stale = [item for item in LISTED[group] if item not in found]
        assert not stale, f"the page lists for {group} what is no difference of any: {stale}"


def test_a_name_of_torchs_is_answered_with_ours():
    for group, cls, twin in PAIRS:
        known = {each.name for each in torch_parameters(twin)}
        for theirs, ours in renamed(group, cls).items():
            if theirs in known and group in ("every layer", "every loss"):
                assert WORDS[theirs] == ours
                with pytest.raises(TypeError, match=f"^{cls.__name__} has no {theirs}: it is {ours}$"):
                    cls(**{theirs: 3})


def test_what_differs_is_found():
    class Theirs:
        def __init__(self, a, b=1, c=2.0, e=5, device=None):
            pass

    class Ours(Layer):
        def __init__(self, first, a, c=3, *, xp=None, d=4, e=5):
            pass

    Ours.__init__.__module__ = "mtorch.ours"
    found = differences("every layer", Ours, Theirs)
    assert found == [
        ("b", ""), ("c=2.0", "c=3"), ("device", "xp"), ("", "first first"), ("", "c third"), ("", "d"),
        ("", "e by keyword"),
    ]  # fmt: skip


# ---------------------------------------------------------------------- the meaning

K = {"rng": 0}
ROWS, IMAGE, SIGNAL = (6, 5, 4), (2, 4, 7, 8), (2, 4, 9)
CLASS_WEIGHTS = numpy.array([0.5, 2.0, 1.0, 0.25])

WINDOW = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
NORM = {"eps": 0.1, "momentum": 0.3}

# class: required arguments, shape of x, options with other values than the defaults; all that both have are here
LAYERS = {
    "Linear": ((4, 3), ROWS, [{"bias": False}]),
    "ReLU": ((), ROWS, [{}]),
    "SiLU": ((), ROWS, [{}]),
    "Sigmoid": ((), ROWS, [{}]),
    "Tanh": ((), ROWS, [{}]),
    "LeakyReLU": ((), ROWS, [{"negative_slope": 0.3}]),
    "ELU": ((), ROWS, [{"alpha": 0.7}]),
    "GELU": ((), ROWS, [{"approximate": "tanh"}]),
    "Softplus": ((), ROWS, [{"beta": 1.5}, {"beta": 0.5, "threshold": 0.7}]),
    "PReLU": ((), IMAGE, [{"num_parameters": 4, "init": 0.1}]),
    "Hardtanh": ((), ROWS, [{"min_val": -0.3, "max_val": 0.6}]),
    "Softmax": ((), ROWS, [{"dim": 0}, {"dim": 1}, {"dim": -1}]),
    "LogSoftmax": ((), ROWS, [{"dim": 0}, {"dim": 1}, {"dim": -1}]),
    "Conv1d": ((4, 6, 3), SIGNAL, [WINDOW, {"bias": False, "padding": 2, "padding_mode": "reflect"}]),
    "Conv2d": ((4, 6, 3), IMAGE, [WINDOW, {"bias": False, "padding": "same", "padding_mode": "circular"}]),
    "ConvTranspose1d": ((4, 6, 3), SIGNAL, [WINDOW | {"output_padding": 1}, {"bias": False}]),
    "ConvTranspose2d": ((4, 6, 3), IMAGE, [WINDOW | {"output_padding": 1}, {"bias": False}]),
    "AvgPool1d": ((3,), SIGNAL, [{"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}]),
    "AvgPool2d": ((3,), IMAGE, [{"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}]),
    "MaxPool1d": ((3,), SIGNAL, [{"stride": 3, "padding": 1, "dilation": 2, "ceil_mode": True}]),
    "MaxPool2d": ((3,), IMAGE, [{"stride": 3, "padding": 1, "dilation": 2, "ceil_mode": True}]),
    "Upsample": ((), IMAGE, [{"size": 5}, {"scale_factor": 1.5, "mode": "bilinear", "align_corners": True}]),
    "InstanceNorm1d": ((4,), SIGNAL, [NORM | {"affine": True, "track_running_stats": True}]),
    "InstanceNorm2d": ((4,), IMAGE, [NORM | {"affine": True, "track_running_stats": True}]),
    "AdaptiveAvgPool2d": (((3, 2),), IMAGE, [{}]),
    "BatchNorm1d": ((4,), SIGNAL, [{"eps": 0.1, "momentum": 0.3, "affine": False}]),
    "BatchNorm2d": ((4,), IMAGE, [{"eps": 0.1, "momentum": 0.3, "affine": False}]),
    "GroupNorm": ((2, 4), IMAGE, [{"eps": 0.1, "affine": False}]),
    "LayerNorm": ((4,), ROWS, [{"eps": 0.1, "bias": False}, {"elementwise_affine": False}]),
    "RMSNorm": ((4,), ROWS, [{"eps": 0.1, "elementwise_affine": False}, {}]),
    "Dropout": ((), ROWS, [{"p": 1.0}]),
    "Flatten": ((), IMAGE, [{"start_dim": 2}, {"start_dim": 0, "end_dim": -2}]),
    "Identity": ((), ROWS, [{}]),
    "RNN": ((4, 3), ROWS, [
        {"num_layers": 2, "nonlinearity": "relu", "bias": False, "dropout": 1.0},
        {"batch_first": True, "bidirectional": True},
    ]),
    "GRU": ((4, 3), ROWS, [
        {"num_layers": 2, "bias": False, "dropout": 1.0}, {"batch_first": True, "bidirectional": True},
    ]),
    "LSTM": ((4, 3), ROWS, [
        {"num_layers": 2, "bias": False, "dropout": 1.0}, {"batch_first": True, "bidirectional": True},
    ]),
    "RNNCell": ((4, 3), ((5, 3), (5, 4)), [{"bias": False, "nonlinearity": "relu"}]),
    "GRUCell": ((4, 3), ((5, 3), (5, 4)), [{"bias": False}]),
    "LSTMCell": ((4, 3), (((5, 3), (5, 3)), (5, 4)), [{"bias": False}]),
    "MultiHeadAttention": ((4, 2), ROWS, [{"bias": False}, {"dropout": 1.0}]),
    "Embedding": ((7, 3), None, [{"padding_idx": 2}]),
}  # fmt: skip


def values(shape, rng):
    if isinstance(shape[0], tuple):
        return tuple(values(each, rng) for each in shape)
    return rng.standard_normal(shape)


def leaves(value):
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def as_tensors(value):
    if isinstance(value, tuple):
        return tuple(as_tensors(part) for part in value)
    return torch.tensor(value, requires_grad=value.dtype.kind == "f")


def torch_call(name, module, x):
    """torch's result in our structure: cells are given (x, state) there, and attention its three arguments."""
    if name.endswith("Cell"):
        state = module(x[1], x[0])
        return state, state[0] if isinstance(state, tuple) else state
    if name == "MultiHeadAttention":
        return module(x, x, x, need_weights=False)[0]
    y = module(x)
    return y[0] if isinstance(y, tuple) else y


def same_state(ours, theirs):
    """Gives torch's parameters random values, and ours the same ones."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(numpy.random.default_rng(1).standard_normal(parameter.shape)))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})


CASES = [(name, options) for name, (_, _, several) in LAYERS.items() for options in several]


@pytest.mark.parametrize("name, options", CASES, ids=lambda value: value if isinstance(value, str) else str(value))
def test_a_layers_options_mean_what_they_mean_in_torch(name, options):
    arguments, shape, _ = LAYERS[name]
    _, cls, twin = NAMED[name]
    rng = numpy.random.default_rng(0)
    ours, theirs = cls(*arguments, **options, dtype="float64", rng=0), twin(*arguments, **options).double()
    same_state(ours, theirs)
    x = values(shape, rng) if shape else rng.integers(0, 7, (5, 2))
    given = as_tensors(x)
    y, expected = ours(x), torch_call(name, theirs, given)
    cotangents = [rng.standard_normal(each.shape) for each in leaves(y)]
    for got, wanted in zip(leaves(y), leaves(expected), strict=True):
        numpy.testing.assert_allclose(got, wanted.detach().numpy(), rtol=0, atol=1e-9)
    outs = [each for each in leaves(expected) if each.requires_grad]
    torch.autograd.backward(outs, [torch.tensor(each) for each in cotangents][: len(outs)])
    remaining = iter(cotangents)
    dx = ours.backward(mtorch.arrays.map_value(lambda part: next(remaining), y))
    parameters = ours.parameters()
    grads = [(parameters[path].grad, each.grad) for path, each in theirs.named_parameters()]
    if shape:
        grads += [(g, leaf.grad) for g, leaf in zip(leaves(dx), leaves(given), strict=True)]
    for got, wanted in grads:
        wanted = numpy.zeros(got.shape) if wanted is None else wanted.numpy()
        numpy.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    for path, wanted in theirs.named_buffers():
        numpy.testing.assert_allclose(ours.state_dict()[path], wanted.numpy(), rtol=0, atol=1e-9)


LOSSES = {
    "MSELoss": [{"reduction": "sum"}],
    "L1Loss": [{"reduction": "sum"}],
    "HuberLoss": [{"reduction": "sum", "delta": 0.4}],
    "BCELoss": [{"reduction": "sum"}],
    "BCEWithLogitsLoss": [{"reduction": "sum", "pos_weight": CLASS_WEIGHTS}],
    "TripletMarginLoss": [{"reduction": "sum", "margin": 0.7, "p": 3.0, "eps": 0.1, "swap": True}],
    "CosineEmbeddingLoss": [{"reduction": "sum", "margin": 0.2}],
    "KLDivLoss": [{"reduction": "batchmean", "log_target": True}],
    "NLLLoss": [{"reduction": "sum", "weight": CLASS_WEIGHTS, "ignore_index": 2}],
    "CrossEntropyLoss": [
        {"reduction": "sum", "weight": CLASS_WEIGHTS, "ignore_index": 2, "label_smoothing": 0.1},
        {"ignore_index": -100},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_options_mean_what_they_mean_in_torch(name):
    _, cls, twin = NAMED[name]
    rng = numpy.random.default_rng(0)
    for options in LOSSES[name]:
        p, t = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
        if name in ("NLLLoss", "CrossEntropyLoss"):
            t = numpy.array([0, 2, 1, 3, 3, 1])
        elif name.startswith("BCE"):
            p, t = (p if "Logits" in name else rng.random((6, 4))), rng.random((6, 4))
        inputs, grads = [p, t], 1
        if name == "TripletMarginLoss":
            inputs, grads = [p, t, rng.standard_normal((6, 4))], 3
        elif name == "CosineEmbeddingLoss":
            inputs, grads = [p, t, numpy.array([1, -1, -1, 1, 1, -1])], 2
        their_options = {k: torch.tensor(v) if isinstance(v, numpy.ndarray) else v for k, v in options.items()}
        given = [torch.tensor(x, requires_grad=i < grads) for i, x in enumerate(inputs)]
        expected = twin(**their_options)(*given)
        expected.backward()
        loss = cls(**options)(*inputs)
        assert loss.value == pytest.approx(expected.item(), abs=1e-9)
        for got, tensor in zip(leaves(loss.grad), given, strict=False):
            numpy.testing.assert_allclose(got, tensor.grad.numpy(), rtol=0, atol=1e-9)


UP = {"maximize": True}
OPTIMIZERS = {
    "SGD": [
        {"momentum": 0.7, "nesterov": True, "weight_decay": 0.1}, {},
        {"momentum": 0.7, "dampening": 0.5, "maximize": True},
    ],
    "Adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.1, "weight_decay": 0.1}, {}, UP],
    "RMSprop": [{"alpha": 0.5, "eps": 0.1, "momentum": 0.5, "centered": True, "weight_decay": 0.1}, {}, UP],
    "Adadelta": [{"rho": 0.5, "eps": 0.1, "weight_decay": 0.1}, {}, UP],
    "Adam": [{"betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.1}, {}, {"amsgrad": True, **UP}],
    "AdamW": [{"betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.1}, {}, {"amsgrad": True, **UP}],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_options_mean_what_they_mean_in_torch(name):
    _, cls, twin = NAMED[name]
    rng = numpy.random.default_rng(0)
    for options in OPTIMIZERS[name]:
        ours, theirs = Module(layers.Linear(3, 2, dtype="float64", rng=0)), torch.nn.Linear(3, 2).double()
        same_state(ours, theirs)
        rate = [0.05] if options else []  # the second argument; and the default
        optimizer, their_optimizer = cls(ours, *rate, **options), twin(theirs.parameters(), *rate, **options)
        for _ in range(3):
            x, g = rng.standard_normal((2, 5, 3)), rng.standard_normal((5, 2))
            ours(x[0])
            ours.backward(g)
            their_optimizer.zero_grad()
            theirs(torch.tensor(x[0])).backward(torch.tensor(g))
            optimizer.step()
            their_optimizer.step()
        for path, parameter in theirs.named_parameters():
            numpy.testing.assert_allclose(ours.parameters()[path].value, parameter.detach(), rtol=0, atol=1e-9)


SCHEDULES = {
    "StepLR": ((3,), {"gamma": 0.5}),
    "MultiStepLR": (([2, 5],), {"gamma": 0.5}),
    "ExponentialLR": ((0.9,), {}),
    "CosineAnnealingLR": ((6,), {"eta_min": 0.01}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_options_mean_what_they_mean_in_torch(name):
    _, cls, twin = NAMED[name]
    arguments, several = SCHEDULES[name]
    for options in ({}, several):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
        schedule = twin(optimizer, *arguments, **options)
        rates = []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        ours = cls(0.1, *arguments, **options)
        assert [ours(k) for k in range(12)] == pytest.approx(rates, abs=1e-9)


def covered():
    """{class: the names of the options that the cases above give}."""
    found = {name: set().union(*several) for name, (_, _, several) in LAYERS.items()}
    found |= {name: set().union(*several) for name, several in (LOSSES | OPTIMIZERS).items()}
    return found | {name: set(options) for name, (_, options) in SCHEDULES.items()}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_a_loader_gives_torchs_batches(batch_size, drop_last):
    x = numpy.arange(20.0).reshape(10, 2)
    ours = DataLoader(ArrayDataset(x, x[:, 0]), batch_size, drop_last=drop_last)
    theirs = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(x[:, 0])), batch_size, drop_last=drop_last
    )
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert all((a == b.numpy()).all() for a, b in zip(mine, other, strict=True))


@pytest.mark.parametrize("name", [name for name, (group, *_) in NAMED.items() if group])
def test_every_option_that_both_have_is_compared(name):
    group, cls, twin = NAMED[name]
    ours = public_names.signature(cls).parameters
    other = renamed(group, cls)
    shared = {each.name for each in torch_parameters(twin) if each.name in ours or other.get(each.name) in ours}
    required = {each.name for each in torch_parameters(twin) if each.default is each.empty}
    assert name in covered(), f"{name} needs a line in LAYERS, LOSSES, OPTIMIZERS or SCHEDULES of this file"
    compared = covered()[name] | required | set(other) | {"dtype", "lr"}
    assert not shared - compared, f"no case gives {shared - compared} of {name} another value than its default"


def test_the_functions_of_activations_take_torchs_arguments():
    x, F = numpy.random.default_rng(0).standard_normal((3, 4)), torch.nn.functional
    t = torch.tensor(x)
    for ours, theirs in (
        (mtorch.leaky_relu(x, 0.3), F.leaky_relu(t, 0.3)), (mtorch.elu(x, 0.5), F.elu(t, 0.5)),
        (mtorch.gelu(x, approximate="tanh"), F.gelu(t, approximate="tanh")),
        (mtorch.softplus(x, 2.0, 1.0), F.softplus(t, 2.0, 1.0)),
        (mtorch.hardtanh(x, -0.5, 0.25), F.hardtanh(t, -0.5, 0.25)),
        (mtorch.softmax(x, 0), F.softmax(t, 0)), (mtorch.softmax(x, dim=0), F.softmax(t, dim=0)),
        (mtorch.log_softmax(x, dim=0), F.log_softmax(t, dim=0)), (mtorch.flatten(x, 0, 1), torch.flatten(t, 0, 1)),
    ):  # fmt: skip
        numpy.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-9)
