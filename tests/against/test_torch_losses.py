"""Values and gradients of every loss beside PyTorch's in float64, for every reduction and option."""

import itertools

import numpy
import pytest

from mtorch import Fork, Module, Sequential, layers, losses

torch = pytest.importorskip("torch")

RNG = numpy.random.default_rng(0)
N, K = 7, 5
LOGITS, OTHERS = RNG.standard_normal((N, K)), RNG.standard_normal((N, K))
LABELS = numpy.array([0, 4, 2, 2, 1, 3, 0])
WEIGHT = numpy.array([0.5, 1.0, 2.0, 0.25, 3.0])
SOFT = RNG.random((N, K)) / 3
SHARES = RNG.standard_normal(N)
REDUCTIONS = ("mean", "sum", "none")


def compare(ours, theirs, prediction, target, torch_target=None):
    """ours: a loss function of the library; theirs: one of torch's; the class axis is last here and second there."""
    x = torch.tensor(prediction, requires_grad=True)
    moved = x.movedim(-1, 1) if torch_target is not None and x.ndim > 2 else x
    expected = theirs(moved, torch.tensor(target) if torch_target is None else torch_target)
    loss = ours(prediction, target)
    numpy.testing.assert_allclose(loss.value, expected.detach().numpy(), rtol=0, atol=1e-9)
    caught = []
    ours.backward_func = caught.append
    loss = ours(prediction, target)
    if expected.ndim:
        weights = numpy.random.default_rng(1).standard_normal(expected.shape)
        loss.backward(weights)
        expected.backward(torch.tensor(weights))
    else:
        loss.backward()
        expected.backward()
    numpy.testing.assert_allclose(caught[0], x.grad.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "name, options, prediction, target",
    [
        ("MSELoss", {}, LOGITS, OTHERS),
        ("L1Loss", {}, LOGITS, OTHERS),
        ("L1Loss", {}, LOGITS, numpy.where(LOGITS > 0, LOGITS, OTHERS)),
        ("HuberLoss", {}, LOGITS, OTHERS),
        ("HuberLoss", {"delta": 0.3}, LOGITS, OTHERS),
        ("HuberLoss", {"delta": 2.5}, 3 * LOGITS, OTHERS),
        ("BCELoss", {}, 1 / (1 + numpy.exp(-LOGITS)), SOFT),
        ("BCELoss", {}, numpy.array([0.0, 0.0, 1.0, 1.0, 1e-50, 0.5]), numpy.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.5])),
        ("BCEWithLogitsLoss", {}, 10 * LOGITS, SOFT),
        ("BCEWithLogitsLoss", {}, numpy.array([1e4, -1e4, 0.0]), numpy.array([0.0, 1.0, 0.5])),
    ],
)
def test_elementwise_losses_are_torchs(name, options, prediction, target, reduction):
    ours = getattr(losses, name)(reduction=reduction, **options)
    theirs = getattr(torch.nn, name)(reduction=reduction, **options)
    if name == "BCELoss" and 0.0 in prediction:  # gradients there are 1e12
        expected = theirs(torch.tensor(prediction), torch.tensor(target))
        numpy.testing.assert_allclose(ours(prediction, target).value, expected.numpy(), rtol=1e-12)
        x = torch.tensor(prediction, requires_grad=True)
        theirs(x, torch.tensor(target)).sum().backward()
        numpy.testing.assert_allclose(ours(prediction, target).grad, x.grad.numpy(), rtol=1e-8)
    else:
        compare(ours, theirs, prediction, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignored", [None, 2, -100])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("smoothing", [0, 0.1, 1.0])
def test_cross_entropy_on_labels_is_torchs(reduction, ignored, weight, smoothing):
    labels = LABELS if ignored != -100 else numpy.where(LABELS == 0, -100, LABELS)
    ours = losses.CrossEntropyLoss(weight=weight, ignore_index=ignored, label_smoothing=smoothing, reduction=reduction)
    theirs = torch.nn.CrossEntropyLoss(
        weight=None if weight is None else torch.tensor(weight), label_smoothing=smoothing, reduction=reduction,
        ignore_index=-100 if ignored is None else ignored,
    )  # fmt: skip
    compare(ours, theirs, LOGITS, labels)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("target", [SOFT, numpy.eye(K)[LABELS]], ids=["soft", "one-hot"])
def test_cross_entropy_on_class_probabilities_is_torchs(reduction, weight, smoothing, target):
    ours = losses.CrossEntropyLoss(weight=weight, label_smoothing=smoothing, reduction=reduction)
    theirs = torch.nn.CrossEntropyLoss(
        weight=None if weight is None else torch.tensor(weight), label_smoothing=smoothing, reduction=reduction
    )
    compare(ours, theirs, LOGITS, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_negative_log_likelihood_is_torchs(reduction, ignored, weight):
    ours = losses.NLLLoss(weight=weight, ignore_index=ignored, reduction=reduction)
    theirs = torch.nn.NLLLoss(
        weight=None if weight is None else torch.tensor(weight), reduction=reduction,
        ignore_index=-100 if ignored is None else ignored,
    )  # fmt: skip
    compare(ours, theirs, LOGITS, LABELS)


@pytest.mark.parametrize("name, reduction", list(itertools.product(("CrossEntropyLoss", "NLLLoss"), REDUCTIONS)))
def test_more_leading_axes_are_torchs_with_the_class_axis_moved(name, reduction):
    prediction = RNG.standard_normal((4, 6, K))
    labels = RNG.integers(0, K, (4, 6))
    ours = getattr(losses, name)(weight=WEIGHT, ignore_index=1, reduction=reduction)
    theirs = getattr(torch.nn, name)(weight=torch.tensor(WEIGHT), ignore_index=1, reduction=reduction)
    compare(ours, theirs, prediction, labels, torch.tensor(labels))


@pytest.mark.parametrize("classes", [2, 33, 1000])
def test_many_classes_are_torchs_too(classes):
    prediction, labels = RNG.standard_normal((9, classes)), RNG.integers(0, classes, 9)
    compare(losses.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), prediction, labels)
    compare(
        losses.CrossEntropyLoss(label_smoothing=0.1), torch.nn.CrossEntropyLoss(label_smoothing=0.1), prediction, labels
    )


def test_the_square_loss_is_half_torchs_summed_square():
    compare(
        losses.SquareLoss(), lambda x, t: 0.5 * torch.nn.functional.mse_loss(x, t, reduction="sum") / N, LOGITS, OTHERS
    )
    one_hot = torch.eye(K, dtype=torch.float64)[LABELS]
    compare(
        losses.SquareLoss(transform=True),
        lambda x, t: 0.5 * torch.nn.functional.mse_loss(x, one_hot, reduction="sum") / N,
        LOGITS,
        LABELS,
    )


def heads():
    """(our net, torch's) with one body and two heads, of the same weights."""
    nn = layers.on(numpy, dtype="float64", rng=0)
    parts = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, K), nn.Linear(6, 2)
    theirs = [torch.nn.Linear(4, 6), torch.nn.Linear(6, K), torch.nn.Linear(6, 2)]
    for mine, other in zip((parts[0], *parts[2:]), theirs, strict=True):
        other.double().load_state_dict({name: torch.tensor(value) for name, value in mine.state_dict().items()})
    return Module(Sequential(*parts[:2], Fork(*parts[2:]))), theirs


@pytest.mark.parametrize(
    "total",
    [
        lambda a, b, c: a + 0.5 * b,
        lambda a, b, c: 0.3 * a - b / 7 + 2 * c,
        lambda a, b, c: sum([c, b, a]) + 1.5,
        lambda a, b, c: 1 - b,
        lambda a, b, c: -(a + c),
    ],
)
def test_sums_of_losses_on_two_heads_are_torchs(total):
    """a on the first head, b on the second, c on the first again."""
    ours, (body, first, second) = heads()
    x, places = numpy.random.default_rng(2).standard_normal((2, N, 4))
    places = places[:, :2]
    y, z = ours(x)
    terms = losses.CrossEntropyLoss(ours)(y, LABELS), losses.MSELoss(ours)(z, places), losses.L1Loss(ours)(y, OTHERS)
    loss = total(*terms)
    loss.backward()

    h = torch.tanh(body(torch.tensor(x)))
    y, z = first(h), second(h)
    expected = total(
        torch.nn.functional.cross_entropy(y, torch.tensor(LABELS)),
        torch.nn.functional.mse_loss(z, torch.tensor(places)),
        torch.nn.functional.l1_loss(y, torch.tensor(OTHERS)),
    )
    expected.backward()
    assert abs(loss.value - expected.item()) < 1e-9
    grads = [parameter.grad for parameter in ours.parameters().values()]
    for grad, parameter in zip(grads, (p for each in (body, first, second) for p in each.parameters()), strict=True):
        wanted = numpy.zeros(grad.shape) if parameter.grad is None else parameter.grad.numpy()
        numpy.testing.assert_allclose(grad, wanted, rtol=0, atol=1e-9)
