"""The loader: every sample once, its own generator, two iterators at once, and an order that can be resumed."""

import copy
import io
import json
import pickle

import numpy
import pytest

import mtorch
from mtorch.data import ArrayDataset, DataLoader


def loader_of(n, batch_size=1, **options):
    return DataLoader(ArrayDataset(numpy.arange(n)), batch_size, **options)


def seen(batches):
    return [batch.tolist() for batch in batches]


def flat(batches):
    return [sample for batch in batches for sample in batch.tolist()]


@pytest.mark.parametrize("n, size", [(100, 16), (100, 1), (100, 100), (100, 1000), (7, 3), (6, 3), (1, 1)])
def test_an_epoch_holds_every_sample_once(n, size):
    """An original's loader showed 16 of 100 samples."""
    for shuffle in (False, True):
        loader = loader_of(n, size, shuffle=shuffle, rng=0)
        batches = list(loader)
        assert sorted(flat(batches)) == list(range(n))
        assert len(batches) == len(loader) == -(-n // size)
        assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize("n, size, whole", [(100, 16, 6), (96, 16, 6), (5, 16, 0)])
def test_drop_last_leaves_out_a_smaller_last_batch(n, size, whole):
    loader = loader_of(n, size, drop_last=True)
    assert [len(batch) for batch in loader] == [size] * whole and len(loader) == whole


def test_without_shuffle_the_order_is_the_order_of_the_data():
    assert seen(loader_of(7, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_shuffled_epochs_differ_and_one_seed_gives_one_order():
    a, b = loader_of(50, 8, shuffle=True, rng=3), loader_of(50, 8, shuffle=True, rng=numpy.random.default_rng(3))
    first, second = seen(a), seen(a)
    assert first != second and first == seen(b) and second == seen(b)
    assert first != seen(loader_of(50, 8, shuffle=True, rng=4)) and first != seen(loader_of(50, 8))


def test_arrays_are_shuffled_together():
    loader = DataLoader(ArrayDataset(numpy.arange(40) * 3, numpy.arange(40)), 7, shuffle=True, rng=0)
    for x, y in loader:
        assert (x == 3 * y).all()


def test_without_a_generator_mtorch_seed_rules():
    loader = loader_of(30, 4, shuffle=True)
    mtorch.seed(5)
    first = seen(loader)
    mtorch.seed(5)
    assert seen(loader) == first != seen(loader)


def test_two_iterators_run_at_once():
    loader = loader_of(10, 3)
    pairs = [(a[0], b[0]) for a in loader for b in loader]
    assert pairs == [(a, b) for a in (0, 3, 6, 9) for b in (0, 3, 6, 9)]
    shuffled = loader_of(20, 3, shuffle=True, rng=0)
    pairs = list(zip(shuffled, shuffled, strict=True))
    assert sorted(flat(a for a, _ in pairs)) == sorted(flat(b for _, b in pairs)) == list(range(20))
    twin = loader_of(20, 3, shuffle=True, rng=0)
    assert seen(a for a, _ in pairs) == seen(twin) and seen(b for _, b in pairs) == seen(twin)


def test_an_unshuffled_loader_draws_nothing():
    rng = numpy.random.default_rng(0)
    list(loader_of(10, 3, rng=rng))
    assert rng.integers(1 << 40) == numpy.random.default_rng(0).integers(1 << 40)


def test_a_batch_belongs_to_the_caller():
    data = numpy.arange(6.0)
    for shuffle in (False, True):
        for batch in DataLoader(ArrayDataset(data), 3, shuffle=shuffle, rng=0):
            batch[:] = -1
    assert data.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_state_is_that_of_the_epoch_that_began_last():
    loader = loader_of(20, 3, shuffle=True, rng=1)
    older, newer = iter(loader), iter(loader)
    next(newer), list(older)
    resumed = loader_of(20, 3, shuffle=True, rng=2)
    resumed.load_state_dict(loader.state_dict())
    assert seen(resumed) == seen(newer) and seen(resumed) == seen(loader)


def test_an_abandoned_epoch_leaves_the_next_one_whole():
    loader = loader_of(10, 3)
    next(iter(loader))
    assert flat(loader) == list(range(10))


GENERATORS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("taken", [0, 1, 5, 6, 7])
def test_a_resumed_loader_sees_exactly_the_batches_that_would_have_come(kind, taken):
    def fresh(seed):
        return loader_of(20, 3, shuffle=True, rng=numpy.random.Generator(getattr(numpy.random, kind)(seed)))

    loader = fresh(7)
    list(loader)
    epoch = iter(loader)
    for _ in range(taken):
        next(epoch)
    state = json.loads(json.dumps(loader.state_dict()))
    rest = seen(epoch), seen(loader), seen(loader)
    resumed = fresh(99)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert (seen(resumed), seen(resumed), seen(resumed)) == rest
    assert len(rest[0]) == 7 - taken


def test_a_state_between_epochs_starts_with_the_next_epoch():
    loader = loader_of(20, 3, shuffle=True, rng=1)
    list(loader)
    state = loader.state_dict()
    resumed = loader_of(20, 3, shuffle=True, rng=2)
    resumed.load_state_dict(state)
    assert seen(resumed) == seen(loader)


def test_a_generator_that_others_draw_from_meanwhile_does_not_disturb_the_resumed_epoch():
    rng = numpy.random.default_rng(0)
    loader = loader_of(20, 3, shuffle=True, rng=rng)
    epoch = iter(loader)
    next(epoch)
    rng.standard_normal(5)
    state = loader.state_dict()
    rest = seen(epoch), seen(loader), rng.random()
    other = numpy.random.default_rng(4)
    resumed = loader_of(20, 3, shuffle=True, rng=other)
    resumed.load_state_dict(state)
    assert (seen(resumed), seen(resumed), other.random()) == rest


def test_an_unshuffled_epoch_resumes_too_and_with_another_batch_size_at_the_same_sample():
    loader = loader_of(10, 2)
    epoch = iter(loader)
    next(epoch), next(epoch)
    resumed = loader_of(10, 3)
    resumed.load_state_dict(loader.state_dict())
    assert seen(resumed) == [[4, 5, 6], [7, 8, 9]] and flat(resumed) == list(range(10))


def test_the_state_survives_an_npz_file():
    loader = loader_of(20, 3, shuffle=True, rng=1)
    epoch = iter(loader)
    next(epoch)
    file = io.BytesIO()
    numpy.savez(file, **loader.state_dict())
    resumed = loader_of(20, 3, shuffle=True, rng=2)
    with numpy.load(io.BytesIO(file.getvalue()), allow_pickle=False) as state:
        resumed.load_state_dict(dict(state))
    assert seen(resumed) == seen(epoch)


def damaged_states():
    loader = loader_of(20, 3, shuffle=True, rng=1)
    next(iter(loader))
    good = loader.state_dict()
    wrong_kind = json.dumps(numpy.random.Philox(0).state, default=lambda a: a.tolist())
    yield "missing key", {key: good[key] for key in good if key != "rng"}
    yield "extra key", {**good, "more": 1}
    yield "other length", {**good, "samples": 21}
    yield "position too far", {**good, "position": 21}
    yield "negative position", {**good, "position": -2}
    yield "negative seed", {**good, "epoch_seed": -1}
    yield "float position", {**good, "position": 3.0}
    yield "no json", {**good, "rng": "{"}
    yield "no generator", {**good, "rng": "[]"}
    yield "other generator", {**good, "rng": wrong_kind}


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_state_that_fails_half_way_leaves_the_generator_as_it_was(kind):
    def fresh():
        return loader_of(20, 3, shuffle=True, rng=numpy.random.Generator(getattr(numpy.random, kind)(5)))

    good = loader_of(20, 3, rng=numpy.random.Generator(getattr(numpy.random, kind)(8))).state_dict()
    loader = fresh()
    for key in set(json.loads(good["rng"])) - {"bit_generator"}:
        half = {name: part for name, part in json.loads(good["rng"]).items() if name != key}
        with pytest.raises(ValueError, match=f"DataLoader state: expected the state of a {kind} generator"):
            loader.load_state_dict({**good, "rng": json.dumps(half)})
    assert seen(loader) == seen(fresh())


@pytest.mark.parametrize("state", [pytest.param(state, id=name) for name, state in damaged_states()])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state):
    loader = loader_of(20, 3, shuffle=True, rng=5)
    epoch = iter(loader)
    next(epoch)
    before = loader.state_dict()
    with pytest.raises(ValueError, match="DataLoader state"):
        loader.load_state_dict(state)
    assert loader.state_dict() == before
    twin = loader_of(20, 3, shuffle=True, rng=5)
    assert seen(twin)[1:] == seen(epoch) and seen(twin) == seen(loader)


def test_a_loader_can_be_copied_and_pickled_between_epochs_and_within_one():
    loader = loader_of(20, 3, shuffle=True, rng=1)
    next(iter(loader))
    for twin in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert twin.state_dict() == loader.state_dict()


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_a_value_error(size):
    with pytest.raises(ValueError, match=f"DataLoader expected batch_size >= 1, got {size}"):
        loader_of(10, size)


@pytest.mark.parametrize("size", [2.0, "2", None, True, float("nan"), numpy.float32(2)])
def test_a_batch_size_that_is_no_integer_is_a_type_error(size):
    with pytest.raises(TypeError, match="DataLoader expected an integer batch_size"):
        loader_of(10, size)


def test_numpy_integers_and_bools_are_integers_and_bools():
    assert len(loader_of(10, numpy.int32(3), shuffle=numpy.bool_(True), rng=numpy.int64(3))) == 4


@pytest.mark.parametrize("name", ["shuffle", "drop_last"])
def test_a_switch_must_be_true_or_false(name):
    with pytest.raises(TypeError, match=f"DataLoader expected {name} to be True or False, got 'no'"):
        loader_of(10, 2, **{name: "no"})


@pytest.mark.parametrize("rng", [1.5, "0", True, numpy.random.RandomState(0)])
def test_a_generator_that_is_none_is_a_type_error(rng):
    with pytest.raises(TypeError, match="DataLoader rng expected an int, a numpy.random.Generator"):
        loader_of(10, 2, rng=rng)


def test_a_negative_seed_is_a_value_error():
    with pytest.raises(ValueError, match="DataLoader rng"):
        loader_of(10, 2, rng=-1)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="DataLoader dataset: expected at least one sample"):
        loader_of(0, 2)


@pytest.mark.parametrize("dataset", [None, 3, [1, 2], (numpy.zeros(3), numpy.zeros(3)), {0: 1}, "abc"])
def test_what_is_no_data_set_is_a_type_error(dataset):
    with pytest.raises(TypeError, match="DataLoader dataset: expected a Dataset"):
        DataLoader(dataset)


def test_the_repr_tells_the_options():
    assert "batch_size=4, shuffle=True, drop_last=False" in repr(loader_of(10, 4, shuffle=True))
