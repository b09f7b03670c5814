"""The models: each is built, answers, has the right gradient and the size it is known for."""

import copy

import numpy
import pytest

from mtorch import Adam, CrossEntropyLoss, Module, ShapeMismatchError, layers, models
from mtorch.arrays import as_numpy
from mtorch.data import who_acts
from mtorch.data.sentences import WORDS
from mtorch.insight.summary import count_parameters, summary
from mtorch.testing import strict

# name: (arguments of a tiny one, how many parameters the usual one has)
MODELS = {
    "linear": ({"pixels": 6}, 7_850),
    "mlp": ({"pixels": 6, "hidden": 4}, 13_002),
    "deep": ({"pixels": 6, "hidden": 5}, 669_706),
    "dropout": ({"pixels": 6, "hidden": 5}, 669_706),
    "batchnorm": ({"pixels": 6, "hidden": 5}, 670_730),
    "residual": ({"pixels": 6, "hidden": 5}, 1_863_690),
    "conv1d": ({"pixels": 64, "channels": 3}, 39_114),
    "scn": ({"pixels": 64, "channels": 2}, 29_834),
    "lenet": ({"pixels": 144}, 61_706),
    "lenet_large": ({"pixels": 256}, 431_080),
    "cnn": ({"pixels": 64, "channels": 2}, 1_199_882),
    "resnet_simple": ({"pixels": 64, "channels": 2}, 9_690),
    "resnet": ({"pixels": 64, "channels": 2}, 165_626),
    "rnn": ({"pixels": 16, "hidden": 3}, 6_666),
    "gru": ({"pixels": 16, "hidden": 3}, 18_698),
    "lstm": ({"pixels": 16, "hidden": 3}, 24_714),
    "transformer": ({"pixels": 16, "width": 4, "heads": 2}, 71_370),
}
each = pytest.mark.parametrize("name", MODELS)


def objective(net, x, cotangent):
    """sum(c * f(x)) of a copy, so that random layers draw the same each time, and that copy."""
    twin = copy.deepcopy(net)
    return (cotangent * twin(x)).sum(), twin


@each
def test_a_tiny_one_answers_and_its_gradient_is_the_slope_in_a_random_direction(name):
    rng, sizes = numpy.random.default_rng(3), MODELS[name][0]
    net = getattr(models, name)(**sizes, classes=3, dtype="float64", rng=1)
    for p in net.parameters().values():
        p.value += 0.1 * rng.standard_normal(p.value.shape)  # biases of 0 would put units without input on ReLU's kink
    x, cotangent = rng.standard_normal((4, sizes["pixels"])), rng.standard_normal((4, 3))
    _, twin = objective(net, x, cotangent)
    dx = twin.backward(cotangent)
    way = {path: rng.standard_normal(p.value.shape) for path, p in net.parameters().items()} | {
        "x": rng.standard_normal(x.shape)
    }
    slope = (dx * way["x"]).sum() + sum((p.grad * way[path]).sum() for path, p in twin.parameters().items())

    def at(t):
        moved = copy.deepcopy(net)
        for path, p in moved.parameters().items():
            p.value += t * way[path]
        return objective(moved, x + t * way["x"], cotangent)[0]

    h = 1e-6  # smaller than the distance to the next kink of a ReLU or of a maximum
    numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert slope == pytest.approx(numeric, rel=1e-6)
    assert net.predict(x).shape == (4, 3)


@each
def test_the_usual_one_has_the_size_it_is_known_for_and_answers_in_float32(name):
    net = getattr(models, name)(rng=0)
    assert count_parameters(net) == MODELS[name][1]
    images = numpy.random.default_rng(0).standard_normal((2, 784)).astype("float32")
    answer = net.predict(images)
    assert answer.shape == (2, 10) and answer.dtype == numpy.float32 and numpy.isfinite(answer).all()


@each
def test_a_tiny_one_trains_on_another_array_module_without_a_wait_as_on_numpy(name):
    sizes = MODELS[name][0]
    x = numpy.random.default_rng(0).standard_normal((4, sizes["pixels"])).astype("float32")
    losses, answers = [], []
    for xp in (strict, numpy):
        module = Module(getattr(models, name)(**sizes, classes=3, xp=xp, rng=0))
        loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=0.01)
        with strict.count_synchronisations() as places:
            for _ in range(3):
                loss = loss_func(module(xp.asarray(x)), numpy.array([0, 2, 1, 1]))
                loss.backward()
                optimizer.step()
        assert places == []
        losses.append(loss.value)
        answers.append(as_numpy(module.predict(xp.asarray(x))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    numpy.testing.assert_allclose(*answers, atol=0.01)


def test_one_seed_is_one_net():
    a, b, c = (models.cnn(64, channels=2, rng=seed).state_dict() for seed in (5, 5, 6))
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


def test_images_of_the_wrong_size_are_refused():
    with pytest.raises(ShapeMismatchError, match=r"Reshape\(\(1, 28, 28\)\) expected 784 entries"):
        models.lenet()(numpy.zeros((2, 700)))
    with pytest.raises(ValueError, match="the pixels of a square image, got 12"):
        models.gru(12)


def test_the_text_classifier_learns_who_acts_where_counting_words_is_worth_nothing():
    rng = numpy.random.default_rng(0)
    (ids, labels), (test_ids, test_labels) = who_acts(400, rng), who_acts(150, rng)
    counts = [numpy.stack([(x == word).sum(axis=0) for word in range(len(WORDS))], axis=1) for x in (ids, test_ids)]

    def trained(net, x):
        module = Module(net)
        loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=0.01)
        for _ in range(8):
            for part in numpy.array_split(rng.permutation(len(labels)), 16):
                loss_func(module(x(part)), labels[part]).backward()
                optimizer.step()
        return module

    reader = trained(models.bilstm(len(WORDS), rng=0), lambda part: ids[:, part])
    counter = trained(models.deep(len(WORDS), 2, hidden=32, rng=0), lambda part: counts[0][part])
    assert (reader.predict(test_ids).argmax(axis=-1) == test_labels).mean() >= 0.98
    assert (counter.predict(counts[1]).argmax(axis=-1) == test_labels).mean() == 0.5


def test_who_acts_says_the_same_words_twice_with_opposite_answers():
    ids, labels = who_acts(40, rng=0)
    assert ids.shape == (12, 80) and (ids[0] > 0).all()
    bags = sorted((sorted(sentence), label) for sentence, label in zip(ids.T.tolist(), labels.tolist(), strict=True))
    assert labels.mean() == 0.5
    counted = {}
    for bag, label in bags:
        counted.setdefault(tuple(bag), []).append(label)
    assert all(2 * sum(found) == len(found) for found in counted.values())
    sentence = [WORDS[i] for i in ids[:, 0] if i]
    animals = [word for word in sentence if word in ("felix", "kitty", "luna", "tom", "fido", "laika", "lassie", "rex")]
    first_is_dog = animals[0] in ("fido", "laika", "lassie", "rex")
    assert labels[0] == (first_is_dog != ("was" in sentence))
    for pairs, kind in (("a", TypeError), (1.5, TypeError), (0, ValueError)):
        with pytest.raises(kind, match="who_acts expected .*pairs"):
            who_acts(pairs)


def test_the_summary_names_every_layer_with_its_parameters():
    text = summary(models.mlp(rng=0)).splitlines()
    assert text[0].split() == ["name", "layer", "parameters"]
    assert text[2].split() == ["0", "Linear(784", "->", "16)", "12,560"]
    assert len(text) == 2 + 6 + 2 and text[-1] == "13,002 parameters"


def test_the_summary_counts_a_shared_layer_once_and_says_what_is_frozen():
    from mtorch import Sequential

    twice = layers.Linear(3, 3, rng=0)
    net = Sequential(twice, layers.ReLU(), twice)
    twice.bias.trainable = False
    assert count_parameters(net) == 12 and count_parameters(net, trainable_only=True) == 9
    assert summary(net).endswith("12 parameters, 3 of them frozen")
    assert [line.split()[-1] for line in summary(net).splitlines()[2:5]] == ["12", "0", "0"]
