"""Kernel calls in parts: the same results, errors reach the caller, BLAS gets its threads back."""

import os
import threading
import time
import warnings

import numpy
import pytest

from mtorch.kernels import convolution, threads
from mtorch.kernels.windows import Window


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
        parts = threads.in_parts(lambda part: (part, threading.get_ident()), count, 1)
        assert [i for part, _ in parts for i in part] == list(range(count))
        assert len({thread for _, thread in parts}) == len(parts) == min(3, count)
    assert blas.now == 3 and blas.record == [1, 3] * 4


def test_little_work_stays_in_one_part(blas, monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 100)
    assert threads.in_parts(list, 5, 99) == [[0, 1, 2, 3, 4]] and not blas.record


def test_one_blas_thread_means_one_part(blas):
    blas.now = 1
    assert len(threads.in_parts(list, 5, 1)) == 1


def test_an_unknown_blas_means_one_part(monkeypatch):
    monkeypatch.setattr(threads, "_blas_threads", lambda: None)
    monkeypatch.setattr(threads, "WORTH", 0)
    assert len(threads.in_parts(list, 5, 1)) == 1


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_in_any_part_is_raised_once_all_have_ended(blas, bad):
    ended = []

    def work(part):
        if part.start == bad:
            raise ValueError(f"part {bad}")
        time.sleep(0.02)
        ended.append(part.start)

    with pytest.raises(ValueError, match=f"part {bad}"):
        threads.in_parts(work, 3, 1)
    assert sorted(ended) == sorted({0, 1, 2} - {bad}) and blas.now == 3
    assert len(threads.in_parts(list, 3, 1)) == 3


def test_parts_within_parts_run_by_themselves(blas):
    assert threads.in_parts(lambda part: threads.in_parts(list, 4, 1), 3, 1) == [[[0, 1, 2, 3]]] * 3


def test_floating_point_accidents_raise_in_every_part_as_the_caller_wishes(blas):
    def overflow(part):
        return numpy.full(4, 1e30, "float32") * numpy.float32(1e30 if part.start == 2 else 1)

    with numpy.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.in_parts(overflow, 3, 1)
    with numpy.errstate(over="ignore"):
        assert len(threads.in_parts(overflow, 3, 1)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own(blas):
    threads.in_parts(list, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(0 if threads.in_parts(list, 3, 1) == [[0], [1], [2]] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_blas_of_this_numpy_answers_or_is_left_alone():
    found = threads._blas_threads()
    assert found is None or found[0]() >= 1


def test_convolutions_in_parts_are_the_same(blas, monkeypatch):
    monkeypatch.setattr(convolution, "FEW_COLUMNS", 0)
    rng = numpy.random.default_rng(0)
    for (c, o, groups), window in (
        ((2, 3, 1), Window((3, 3), (1, 1), (1, 1))),
        ((4, 6, 2), Window((2, 3), (2, 1), (1, 0))),
        ((2, 20, 1), Window((3, 2), (1, 2), (2, 1), (2, 1))),
    ):
        x, weight = rng.standard_normal((3, c, 9, 8)), rng.standard_normal((o, c // groups, *window.kernel))
        dy = rng.standard_normal((3, o, *window.out_size((9, 8))))
        for name, args in (
            ("convolve", (x, weight, rng.standard_normal(o), window, groups)),
            ("weight_grad", (x, dy, window, groups)),
            ("input_grad", (dy, weight, (9, 8), window, groups)),
        ):
            rows, columns = getattr(convolution, f"_rows_{name}"), getattr(convolution, f"_columns_{name}")
            numpy.testing.assert_allclose(rows(numpy, *args), columns(numpy, *args), rtol=0, atol=1e-12)
    assert blas.record
