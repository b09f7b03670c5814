"""Kernel calls in parts: the same results, errors reach the caller, BLAS gets its threads back."""

import contextlib
import itertools
import math
import os
import signal
import threading
import time
import warnings
import weakref

import numpy
import pytest

import mtorch
from mtorch import fast, layers
from mtorch.blas import cblas
from mtorch.fast import product as products
from mtorch.fast import threads

BATCHED = cblas("?gemm_batch_strided", "f", products.BATCHED)


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
    monkeypatch.setattr(threads, "_blas_threads", lambda: threads.BlasThreads(stand_in.get, stand_in.set))
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(threads, "WORTH_IN_A_ROW", 0)
    monkeypatch.setattr(threads, "sharing", threads.Payoff(most=1e9, pause=0, longest=0))
    return stand_in


def meeting(count):
    """A function of a range that ends when `count` threads are in it."""
    barrier = threading.Barrier(count)

    def function(part):
        barrier.wait(timeout=10)
        return part, threading.get_ident()

    return function


def test_the_ranges_come_back_in_order_each_from_a_thread_of_its_own(blas):
    for length in (1, 2, 3, 7, 100):
        parts = threads.in_threads(meeting(min(3, length)), length, 1)
        assert [i for part, _ in parts for i in part] == list(range(length))
        assert len({thread for _, thread in parts}) == len(parts) == min(3, length)
        assert len(parts[0][0]) == max(len(part) for part, _ in parts)  # the caller has no less to do than the others
    assert blas.now == 3 and blas.record == [1, 3] * 5


def test_a_thread_that_comes_late_finds_nothing_left(blas, monkeypatch):
    monkeypatch.setattr(threads._Worker, "call", lambda self, work, core: None)  # its core is taken
    parts = threads.in_threads(lambda part: (part, threading.get_ident()), 7, 1)
    assert [i for part, _ in parts for i in part] == list(range(7)) and len(parts) == 3
    assert {thread for _, thread in parts} == {threading.get_ident()}


def test_threads_that_are_done_with_one_task_go_on_with_the_next(blas):
    done = {threading.get_ident(): 0}

    def slow(part):
        time.sleep(0.05 if len(part) == 2 else 0)  # the longest range of this task
        done[threading.get_ident()] = done.get(threading.get_ident(), 0) + 1
        return list(part)

    first, second = (threads.Task(slow, length, 1, finish=lambda parts: sum(parts, [])) for length in (4, 3))
    assert threads.together(first, second) == [[0, 1, 2, 3], [0, 1, 2]]
    assert sum(done.values()) == 6 and max(done.values()) > 1
    with pytest.raises(ZeroDivisionError):
        threads.together(first, threads.Task(lambda part: 1 / part.start, 2, 1))


def test_little_work_stays_in_one_part(blas, monkeypatch):
    monkeypatch.setattr(threads, "WORTH_IN_A_ROW", 100)
    assert threads.in_threads(list, 5, 99) == [[0, 1, 2, 3, 4]] and not blas.record


def test_while_sharing_does_not_pay_the_caller_does_the_same_ranges_alone(blas, monkeypatch):
    ours = threading.get_ident()
    monkeypatch.setattr(threads, "sharing", threads.Payoff(most=0.01, pause=60, longest=60))

    def late(part):
        if threading.get_ident() != ours:
            time.sleep(0.1)  # as a thread does whose core another program has
        return part

    def who(part):
        return part, threading.get_ident()

    shared = threads.in_threads(meeting(3), 9, 1)
    while threads.sharing.pays():
        threads.in_threads(late, 9, 1)
    alone = threads.in_threads(who, 9, 1)
    assert [part for part, _ in alone] == [part for part, _ in shared] and {thread for _, thread in alone} == {ours}
    threads.sharing.again = 0.0  # the pause is over
    assert len({thread for _, thread in threads.in_threads(meeting(3), 9, 1)}) == 3


def test_pauses_grow_while_nothing_pays_and_begin_anew_once_it_does(monkeypatch):
    now = 100.0
    monkeypatch.setattr(threads, "perf_counter", lambda: now)
    payoff = threads.Payoff(most=0.5, pause=1, longest=4)
    assert payoff.pays()
    payoff.add(-0.25)
    assert payoff.pays()  # what it had gained outweighs the loss
    ends = []
    for _ in range(4):
        payoff.add(-0.5)
        assert not payoff.pays()
        ends.append(payoff.again - now)
        now = payoff.again
        assert payoff.pays()
    assert ends == [1, 2, 4, 4]
    payoff.add(9)
    payoff.add(-0.75)
    assert payoff.again - now == 1


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
    assert len(threads.in_threads(list, 4, 1)) == 3


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_a_product_by_blas_and_its_child_holds_nothing(blas):
    inside, ended = threading.Event(), []

    def product():
        inside.set()
        time.sleep(0.2)
        ended.append("product")

    def other():
        with threads.single_threaded_blas():
            threads.with_all_threads_of_blas(product)
            time.sleep(0.2)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        signal.alarm(10)
        with contextlib.suppress(BaseException):
            if ended and blas.now == 3 and len(threads.in_threads(meeting(3), 3, 1)) == 3 and blas.now == 3:
                os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert blas.now == 3 and ended


def test_the_blas_of_this_numpy_answers_or_is_left_alone():
    found = threads._blas_threads()
    assert found is None or found.get() >= 1


def test_blas_gets_its_threads_back_from_the_last_who_holds_it(blas):
    with threads.single_threaded_blas():
        assert threads.blas_is_held() and blas.now == 1
        with threads.single_threaded_blas():
            threads.in_threads(list, 3, 1)
        assert blas.now == 1 and threads.count() == 3
    assert blas.now == 3 and not threads.blas_is_held()
    with pytest.raises(KeyError), threads.single_threaded_blas():
        raise KeyError
    assert blas.now == 3 and blas.record == [1, 3] * 2


def elsewhere(function):
    """function() of another thread of Python."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_each_thread_of_python_holds_blas_for_itself(blas):
    with threads.single_threaded_blas():
        assert threads.blas_is_held() and not elsewhere(threads.blas_is_held)
        assert threads.with_all_threads_of_blas(lambda: blas.record.append("product"))
        assert not elsewhere(lambda: threads.with_all_threads_of_blas(print))
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with threads.single_threaded_blas():
                inside.set()
                leave.wait(10)

        other = threading.Thread(target=hold)
        other.start()
        inside.wait(10)
        assert not threads.with_all_threads_of_blas(print)  # the other's products would get them too
    assert blas.now == 1
    leave.set()
    other.join()
    assert blas.record == [1, 3, "product", 1, 3] and not threads.with_all_threads_of_blas(print)


def test_the_number_of_threads_is_not_asked_for_while_it_changes(blas, monkeypatch):
    monkeypatch.setattr(blas, "set", lambda n: (Blas.set(blas, n), time.sleep(0.05)))  # others get the interpreter
    counts, ended = set(), threading.Event()

    def ask():
        while not ended.is_set():
            counts.add(threads.count())

    other = threading.Thread(target=ask)
    other.start()
    for _ in range(3):
        with threads.single_threaded_blas():
            time.sleep(0.01)
    ended.set()
    other.join()
    assert counts == {3}


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_after_ctrl_c_blas_has_its_threads_and_ours_are_free(blas, monkeypatch, stop):
    def interrupted(n):
        Blas.set(blas, n)
        if len(blas.record) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(blas, "set", interrupted)
    with pytest.raises(KeyboardInterrupt), threads.single_threaded_blas():
        threads.with_all_threads_of_blas(int)
    assert blas.now == 3 and not threads.blas_is_held()
    assert len({thread for _, thread in threads.in_threads(meeting(3), 3, 1)}) == 3


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="only Unix sends a signal to a thread")
def test_ctrl_c_while_another_thread_changes_the_hold_leaves_nothing_held(blas):
    leave, taken = threading.Event(), threading.Event()

    def change():
        with threads._lock:
            taken.set()
            leave.wait(10)

    main = threading.get_ident()

    def stop():
        time.sleep(0.1)  # until the main thread waits for the lock
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.1)
        leave.set()

    others = [threading.Thread(target=target) for target in (change, stop)]

    def work():
        others[0].start()
        taken.wait(10)
        others[1].start()

    with pytest.raises(KeyboardInterrupt):
        threads.with_one_thread_of_blas(work)
    for other in others:
        other.join()
    assert blas.now == 3 and not threads._holders


def test_after_ctrl_c_no_range_is_begun(blas, monkeypatch):
    works = []
    monkeypatch.setattr(threads._Worker, "call", lambda self, work, core: works.append(work))  # it comes late

    def interrupted(self, *args):
        raise KeyboardInterrupt

    begun = []
    take = threads._Work.take
    monkeypatch.setattr(threads._Work, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.in_threads(begun.append, 3, 1)
    for work in works:
        take(work)
    assert len(works) == 2 and not begun


@pytest.mark.parametrize(("rows", "columns"), [(7, 4), (4, 7), (1, 9), (9, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_large_product_is_made_in_parts(blas, monkeypatch, rows, columns, bias):
    rng = numpy.random.default_rng(0)
    a, b = rng.standard_normal((rows, 5)), rng.standard_normal((columns, 5)).T
    c = rng.standard_normal(columns) if bias else None
    out, expected = numpy.empty((rows, columns)), a @ b if c is None else a @ b + c
    made, share = [], threads.share
    monkeypatch.setattr(threads, "share", lambda task, **how: made.append(task.length) or share(task, **how))
    assert products.product(a, b, out, bias=c) is out and blas.now == 3 and made == [max(rows, columns)]
    numpy.testing.assert_allclose(out, expected, rtol=1e-14)
    numpy.testing.assert_allclose(products.product(a, b, bias=c), expected, rtol=1e-14)
    monkeypatch.setattr(threads, "WORTH", 1e9)
    numpy.testing.assert_allclose(products.product(a, b, bias=c), expected, rtol=1e-14)
    numpy.testing.assert_allclose(products.product(a.astype("f"), b, bias=c), expected, rtol=1e-6, atol=1e-6)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("rows", "inner", "columns", "count", "divided"),
    [
        (784, 10, 512, 2, 784),
        (512, 128, 784, 2, 512),  # fewer rows, but many, and short sums
        (512, 128, 784, 8, 784),  # the parts would have too few rows
        (128, 128, 512, 2, 512),
        (256, 784, 512, 2, 512),  # the sums are too long
    ],
)
def test_rows_or_columns_are_divided_whichever_is_faster(monkeypatch, rows, inner, columns, count, divided):
    lengths, share = [], threads.share
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(threads, "count", lambda: count)
    monkeypatch.setattr(products, "_may_spin", lambda: False)
    monkeypatch.setattr(threads.sharing, "again", math.inf)
    monkeypatch.setattr(threads, "share", lambda task, **how: lengths.append(task.length) or share(task, **how))
    a, b = numpy.ones((rows, inner), "f"), numpy.ones((inner, columns), "f")
    assert (products.product(a, b) == inner).all() and lengths == [divided]


def test_a_small_product_has_one_thread_of_blas(blas, monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 1e9)
    tiny, small = (numpy.ones((n, n), "f") for n in (64, 65))
    products.product(tiny, tiny)  # here OpenBLAS takes one by itself
    assert not blas.record
    products.product(small, small)
    assert blas.record == [1, 3]


def layouts(rows, inner, columns, dtype):
    """Factors and results in every order of memory that a net has, with gaps and without."""
    rng = numpy.random.default_rng(0)
    for forms in itertools.product(range(3), range(3), range(2)):
        a, b, y = (
            numpy.empty((m + gap, n + gap), dtype) if form != 1 else numpy.empty((n, m), dtype).T
            for form, (m, n) in zip(forms, ((rows, inner), (inner, columns), (rows, columns)), strict=True)
            for gap in (3 * (form == 2),)
        )
        a, b = a[:rows, :inner], b[:inner, :columns]
        a[...], b[...] = (rng.standard_normal(x.shape) for x in (a, b))
        yield a, b, y


@pytest.mark.skipif(BATCHED is None, reason="this BLAS cannot make several products in one call")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(128, 784, 512), (512, 128, 784), (600, 321, 64), (64, 1000, 400), (254, 333, 254)])
@numpy.errstate(over="warn", divide="warn")  # where an accident is to raise, BLAS is not called
def test_whoever_makes_a_product_its_bits_are_the_same(monkeypatch, size, dtype):
    if threads.count() < 2:
        pytest.skip("this machine has one thread")
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(products, "spinning", threads.Payoff(most=1e9, pause=0, longest=0))
    monkeypatch.setattr(threads, "last_together", -math.inf)
    monkeypatch.setattr(products, "LOOK_AGAIN", math.inf)
    by_blas, original = [], products.with_all_threads_of_blas
    monkeypatch.setattr(products, "with_all_threads_of_blas", lambda *args: by_blas.append(1) or original(*args))
    for a, b, out in layouts(*size, dtype):
        found, before = [], len(by_blas)
        for way in ("blas", "threads", "alone"):
            if way == "threads":
                monkeypatch.setattr(products.spinning, "again", math.inf)
            if way == "alone":
                monkeypatch.setattr(threads.sharing, "again", math.inf)
            with threads.single_threaded_blas():
                out[...] = math.nan
                products.product(a, b, out)
                found.append(out.tobytes())
            assert way == "blas" or len(by_blas) == before
            before = len(by_blas)
        monkeypatch.setattr(products.spinning, "again", -math.inf)
        monkeypatch.setattr(threads.sharing, "again", -math.inf)
        assert found[0] == found[1] == found[2]
        numpy.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-3 if dtype == "float32" else 1e-11)
    assert by_blas
    assert threads._blas_threads().get() == threads.count() > 1


@pytest.mark.skipif(BATCHED is None, reason="this BLAS cannot make several products in one call")
@pytest.mark.parametrize(
    ("a", "b", "y"),
    [
        (numpy.ones((8192, 4096), "f"), numpy.ones((4096, 1), "f"), "f"),  # for one column there are other kernels
        (numpy.ones((1, 4096), "f"), numpy.ones((4096, 8192), "f"), "f"),
        (numpy.ones((64, 64), "f"), numpy.ones((64, 64), "f"), "f"),  # for small parts too
        (numpy.ones((512, 512), ">f4"), numpy.ones((512, 512), ">f4"), ">f4"),
        (numpy.ones((512, 512), "f"), numpy.ones((512, 512), "f"), "d"),
        (numpy.ones((512, 512), "f"), numpy.ones((256, 512), "f"), "f"),
    ],
)
@numpy.errstate(over="warn", divide="warn")  # where an accident is to raise, BLAS is not called
def test_what_matmul_makes_in_another_way_is_left_to_it(monkeypatch, a, b, y):
    monkeypatch.setattr(products, "spinning", threads.Payoff(most=1e9, pause=0, longest=0))
    monkeypatch.setattr(threads, "last_together", -math.inf)
    monkeypatch.setattr(threads, "count", lambda: 2)
    monkeypatch.setattr(products, "LOOK_AGAIN", math.inf)
    monkeypatch.setattr(products, "with_all_threads_of_blas", lambda *args: pytest.fail("BLAS was called"))
    monkeypatch.setattr(threads, "WORTH", 0)
    with contextlib.suppress(ValueError):  # the last two do not fit each other
        products.product(a, b, numpy.empty((len(a), b.shape[1]), y))


def test_a_product_into_an_array_of_another_type_or_layout_has_its_bias():
    a, b, bias = numpy.ones((3, 4), "f"), numpy.ones((4, 5), "f"), numpy.full(5, 0.5, "f")
    for out, second in itertools.product((numpy.empty((3, 5), "d"), numpy.empty((5, 3), "f").T), (b, b.astype("d"))):
        assert products.product(a, second, out, bias) is out
        assert (out == 4.5).all()
    assert (products.product(a, b.astype("d"), bias=bias) == 4.5).all()


@pytest.mark.skipif(BATCHED is None, reason="this BLAS cannot make several products in one call")
@numpy.errstate(over="warn", divide="warn")  # where an accident is to raise, BLAS is not called
def test_threads_of_blas_are_called_while_they_are_faster_than_one_thread_is_now(monkeypatch):
    now, one_thread, by_blas, calls = 0.0, 1e-3, 0.5e-3, []

    def share(task, alone=False):
        nonlocal now
        now += one_thread if alone else 0.9 * one_thread

    def with_all_threads(*args):
        nonlocal now
        now += by_blas
        calls.append(now)
        return True

    def part_by_blas(seconds):
        """Of the products in the last ten of so many seconds."""
        nonlocal now
        end = now + seconds
        while now < end:
            if now < end - 10:
                calls.clear()
                made = 0
            products.product(a, b, y)
            made += 1
            now += 0.01
        return len(calls) / made

    for module in (products, threads):
        monkeypatch.setattr(module, "perf_counter", lambda: now)
    monkeypatch.setattr(products, "spinning", threads.Payoff(most=0.01, pause=1.0, longest=8.0))
    monkeypatch.setattr(threads, "last_together", -math.inf)
    monkeypatch.setattr(threads, "count", lambda: 2)
    monkeypatch.setattr(threads, "share", share)
    monkeypatch.setattr(products, "with_all_threads_of_blas", with_all_threads)
    products._one_call.cache_clear()
    a, b, y = (numpy.ones((512, 512), "f") for _ in range(3))
    assert part_by_blas(20) > 0.98
    by_blas = 1.6e-3  # another program has taken a core
    assert part_by_blas(400) < 0.02
    by_blas = 0.5e-3
    assert part_by_blas(20) > 0.98
    one_thread, by_blas = 3e-3, 1.5e-3  # the whole machine has become slower
    assert part_by_blas(20) > 0.98
    products._one_call.cache_clear()


@pytest.mark.parametrize("pays", [True, False])
def test_an_overflow_in_a_product_raises_whoever_makes_it(monkeypatch, pays):
    monkeypatch.setattr(products, "spinning", threads.Payoff(most=1e9, pause=0, longest=0))
    monkeypatch.setattr(products.spinning, "again", -math.inf if pays else math.inf)
    monkeypatch.setattr(threads, "last_together", -math.inf)
    a = numpy.full((512, 512), 1e30, "f")
    with numpy.errstate(over="raise"), threads.single_threaded_blas(), pytest.raises(FloatingPointError):
        products.product(a, a.copy())


def test_a_product_may_replace_its_factor_and_has_the_size_of_its_place(blas):
    rng = numpy.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 6))
    expected = a.T @ b
    numpy.testing.assert_allclose(products.product(a.T, b, a), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="mismatch"):
        products.product(b, b, numpy.empty((7, 6)))


@pytest.mark.slow
@pytest.mark.skipif(not fast.ENABLED, reason="the references leave products to BLAS")
@pytest.mark.parametrize("name", ["mlp", "mlp-adam", "cnn", "resnet", "transformer", "gru-large", "lstm-small"])
@numpy.errstate(over="warn", divide="warn")  # where an accident is to raise, BLAS is not called
def test_a_net_has_the_same_bits_on_a_busy_machine(monkeypatch, name):
    from benchmarks.workloads import WORKLOADS

    found = []
    for again in (-math.inf, math.inf):
        monkeypatch.setattr(products.spinning, "again", again)
        monkeypatch.setattr(threads.sharing, "again", again)
        step = WORKLOADS[name].sides["ours"]()
        found.append([step() for _ in range(4)])
    assert found[0] == found[1]


@pytest.mark.skipif(not mtorch.fast.ENABLED, reason="only fast bodies share work between threads")
def test_a_net_with_large_layers_holds_blas_in_every_pass(blas):
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
    for layer, size in (
        (layers.LSTM(3, 2), (2, 4, 3)),
        (layers.MultiHeadAttention(4, 2), (2, 4, 4)),
        (layers.Linear(200, 100), (4, 200)),
    ):
        net = mtorch.Sequential(layer, Spy())
        net.backward(net(numpy.ones(size, "float32")))
        assert seen == [1, 1], layer
        seen.clear()
    tiny = mtorch.Sequential(layers.Linear(3, 3), Spy())
    tiny.backward(tiny(x[0, 0, :, :3]))
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


def test_where_no_thread_starts_the_caller_does_all_ranges(blas, monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    blas.now = 9  # more threads than any other test has started
    assert threads.in_threads(list, 9, 1) == [[i] for i in range(9)] and blas.now == 9


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
