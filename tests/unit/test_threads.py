"""Kernel calls in parts: the same results, errors reach the caller, BLAS gets its threads back."""

import contextlib
import os
import threading
import time
import warnings
import weakref

import numpy
import pytest

import mtorch
from mtorch import fast, layers
from mtorch.fast import threads


class Blas:
    """Stands in for the BLAS library: three threads, and a record of what was set."""

    def __init__(self):
        self.now, self.record = 3, []

    def get(self):
        return self.now

    def set(self, n):
        self.now = n
        self.record.append(n)


@pytest.fixture
def blas(monkeypatch):
    stand_in = Blas()
    monkeypatch.setattr(threads, "_blas_threads", lambda: (stand_in.get, stand_in.set))
    monkeypatch.setattr(threads, "WORTH", 0)
    return stand_in


def test_the_parts_divide_the_range_and_come_back_in_order(blas):
    for count in (1, 2, 3, 7, 100):
        parts = threads.in_threads(lambda part: (part, threading.get_ident()), count, 1)
        assert [i for part, _ in parts for i in part] == list(range(count))
        assert len({thread for _, thread in parts}) == len(parts) == min(3, count)
    assert blas.now == 3 and blas.record == [1, 3] * 4


def test_little_work_stays_in_one_part(blas, monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 100)
    assert threads.in_threads(list, 5, 99) == [[0, 1, 2, 3, 4]] and not blas.record


def test_one_blas_thread_means_one_part(blas):
    blas.now = 1
    assert len(threads.in_threads(list, 5, 1)) == 1


def test_an_unknown_blas_means_one_part(monkeypatch):
    monkeypatch.setattr(threads, "_blas_threads", lambda: None)
    monkeypatch.setattr(threads, "WORTH", 0)
    assert len(threads.in_threads(list, 5, 1)) == 1


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_in_any_part_is_raised_once_all_have_ended(blas, bad):
    ended = []

    def work(part):
        if part.start == bad:
            raise ValueError(f"part {bad}")
        time.sleep(0.02)
        ended.append(part.start)

    with pytest.raises(ValueError, match=f"part {bad}"):
        threads.in_threads(work, 3, 1)
    assert sorted(ended) == sorted({0, 1, 2} - {bad}) and blas.now == 3
    assert len(threads.in_threads(list, 3, 1)) == 3


def test_parts_within_parts_run_by_themselves(blas):
    assert threads.in_threads(lambda part: threads.in_threads(list, 4, 1), 3, 1) == [[[0, 1, 2, 3]]] * 3


def test_floating_point_accidents_raise_in_every_part_as_the_caller_wishes(blas):
    def overflow(part):
        return numpy.full(4, 1e30, "float32") * numpy.float32(1e30 if part.start == 2 else 1)

    with numpy.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.in_threads(overflow, 3, 1)
    with numpy.errstate(over="ignore"):
        assert len(threads.in_threads(overflow, 3, 1)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own(blas):
    threads.in_threads(list, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(0 if threads.in_threads(list, 3, 1) == [[0], [1], [2]] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_blas_of_this_numpy_answers_or_is_left_alone():
    found = threads._blas_threads()
    assert found is None or found[0]() >= 1


def test_blas_gets_its_threads_back_from_the_last_who_holds_it(blas):
    with threads.single_threaded_blas() as outer:
        assert threads.blas_is_held() and blas.now == 1
        with threads.single_threaded_blas() as inner:
            threads.in_threads(list, 3, 1)
        assert blas.now == 1 and outer == inner == 3
    assert blas.now == 3 and not threads.blas_is_held()
    with pytest.raises(KeyError), threads.single_threaded_blas():
        raise KeyError
    assert blas.now == 3 and blas.record == [1, 3] * 2


@pytest.mark.parametrize(("rows", "columns"), [(7, 4), (4, 7), (1, 9), (9, 1)])
def test_a_product_is_made_in_parts_only_while_blas_is_held(blas, rows, columns):
    rng = numpy.random.default_rng(0)
    a, b = rng.standard_normal((rows, 5)), rng.standard_normal((columns, 5)).T
    out = numpy.empty((rows, columns))
    assert (threads.product(a, b) == a.dot(b)).all() and not blas.record
    with threads.single_threaded_blas():
        assert threads.product(a, b, out) is out
        numpy.testing.assert_allclose(out, a @ b, rtol=1e-14)
        numpy.testing.assert_allclose(threads.product(a, b), a @ b, rtol=1e-14)


@pytest.mark.skipif(not mtorch.fast.ENABLED, reason="only fast bodies share work between threads")
def test_a_net_with_a_convolution_holds_blas_in_every_pass(blas):
    class Spy(layers.Identity):
        def forward(self, x):
            seen.append(blas.now)
            return super().forward(x)

        def backward(self, output_grad):
            seen.append(blas.now)
            return super().backward(output_grad)

    seen = []
    body = mtorch.Sequential(layers.Conv2d(1, 2, 3), layers.Flatten(), layers.Linear(18, 2), Spy())
    x = numpy.ones((4, 1, 5, 5), "float32")
    for net in (body, mtorch.Sequential(body), mtorch.Module(body), mtorch.Graph.of(body(mtorch.Input("x")))):
        net.backward(net(x))
        net.predict(x)
        assert seen == [1, 1, 1] and blas.now == 3
        seen.clear()
    dense = mtorch.Sequential(layers.Linear(3, 3), Spy())
    dense.backward(dense(x[0, 0, :, :3]))
    assert seen == [3, 3]


@pytest.mark.skipif(not fast.ENABLED, reason="fast bodies are switched off")
def test_convolutions_in_parts_are_the_same(blas, monkeypatch):
    from mtorch.fast.numpy import convolution

    monkeypatch.setattr(convolution, "FEW_COLUMNS", 0)
    rng = numpy.random.default_rng(0)
    for layer in (
        layers.Conv2d(2, 3, 3, padding=1, dtype="float64", rng=0),
        layers.Conv2d(4, 6, (2, 3), (2, 1), (1, 0), groups=2, dtype="float64", rng=0),
        layers.Conv2d(2, 20, (3, 2), (1, 2), (2, 1), (1, 2), dtype="float64", rng=0),
        layers.ConvTranspose2d(2, 6, (3, 2), (1, 2), (2, 1), groups=2, dtype="float64", rng=0),
    ):
        x, results = rng.standard_normal((3, layer.in_channels, 9, 8)), []
        g = rng.standard_normal(layer(x).shape)
        for switch in (fast.disabled, contextlib.nullcontext):
            with switch():
                y, dx = layer(x), layer.backward(g)
                results.append((y, dx, layer.weight.grad.copy(), layer.bias.grad.copy()))
                layer.zero_grad()
        for got, want in zip(*results, strict=True):
            numpy.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert blas.record


def test_where_no_thread_starts_there_is_one_part(blas, monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    blas.now = 9  # more threads than any other test has started
    assert threads.in_threads(list, 9, 1) == [list(range(9))] and blas.now == 9


def test_a_thread_that_waits_keeps_nothing_alive(blas):
    class Big:
        pass

    big = Big()
    there = weakref.ref(big)
    threads.in_threads(lambda part, big=big: len(part), 3, 1)
    del big
    limit = time.monotonic() + 5
    while there() is not None and time.monotonic() < limit:
        time.sleep(0.01)
    assert there() is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell which cores there are")
def test_a_thread_keeps_off_the_core_of_its_caller(monkeypatch):
    worker, allowed = threads._Worker(9), os.sched_getaffinity(0)
    moves = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: moves.append((thread, cores)))
    for core in (3, 3, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3})
        worker.keep_off(core)
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    worker.keep_off(0)  # the system refuses an empty set of cores
    monkeypatch.undo()
    assert moves == [(worker.thread.native_id, {2}), (worker.thread.native_id, {3})]
    assert threads._core_of_caller()() in allowed
