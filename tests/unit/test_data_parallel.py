"""DataParallel: the same numbers as its net alone, whatever happens to the processes that it shares the work with."""

import copy
import gc
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy
import pytest

import mtorch
from mtorch import (
    Adam,
    BackwardError,
    CrossEntropyLoss,
    DataParallel,
    Layer,
    Module,
    Parameter,
    Residual,
    Sequential,
    ShapeMismatchError,
    layers,
    models,
)
from mtorch.fast import threads
from mtorch.parallel import replicas, system, worker_pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
nn = layers.on(numpy, dtype="float64")
rng = numpy.random.default_rng


def net() -> Sequential:
    on = layers.on(numpy, dtype="float64", rng=0)
    return Sequential(on.Linear(3, 4), on.Tanh(), on.Linear(4, 2))


def pids(parallel: DataParallel) -> list[int]:
    return list(parallel._replicas.pool.pids)


def twins(body, **options):
    return copy.deepcopy(body), DataParallel(body, **options)


def assert_same(plain, parallel, x, seed=1):
    y, z = plain(x), parallel(x)
    g = rng(seed).standard_normal(y.shape)
    numpy.testing.assert_allclose(z, y, rtol=1e-12, atol=1e-12)
    numpy.testing.assert_allclose(parallel.backward(g), plain.backward(g), rtol=1e-12, atol=1e-12)
    for (name, p), q in zip(plain.parameters().items(), parallel.parameters().values(), strict=True):
        numpy.testing.assert_allclose(q.grad, p.grad, rtol=1e-11, atol=1e-11, err_msg=name)


# ---------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_equals_its_net_for_every_size_of_batch(workers):
    plain, parallel = twins(net(), workers=workers)
    for n in (1, 2, 3, 4, 7, 8):
        assert_same(plain, parallel, rng(n).standard_normal((n, 3)))
        plain.step(0.1), parallel.step(0.1)
    for p, q in zip(plain.parameters().values(), parallel.parameters().values(), strict=True):
        numpy.testing.assert_allclose(q.value, p.value, rtol=1e-12)


def test_convolutions_and_time_major_sequences():
    images = Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    assert_same(*twins(images, workers=2), rng(0).standard_normal((5, 1, 6, 6)))
    assert_same(*twins(nn.LSTM(2, 3), workers=2, axis=1), rng(0).standard_normal((4, 5, 2)))
    last = Sequential(nn.GRU(2, 3), nn.Slice(-1))
    assert_same(*twins(last, workers=2, axis=1, out_axis=0), rng(0).standard_normal((4, 5, 2)))


def test_values_that_are_tuples_are_divided_leaf_by_leaf():
    plain, parallel = twins(nn.LSTM(2, 3, return_state=True), workers=2, axis=1)
    state, x = tuple(rng(i).standard_normal((1, 5, 3)) for i in (1, 2)), rng(0).standard_normal((4, 5, 2))
    y, z = plain((state, x)), parallel((state, x))
    grads = ((numpy.ones((1, 5, 3)), None), numpy.ones((4, 5, 3)))
    flat = lambda v: [leaf for part in v for leaf in flat(part)] if isinstance(v, tuple) else [v]  # noqa: E731
    for a, b in zip(flat((y, plain.backward(grads))), flat((z, parallel.backward(grads))), strict=True):
        numpy.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13)


def test_gradients_accumulate_until_the_step_and_backward_may_leave_out_the_inputs():
    plain, parallel = twins(net(), workers=2)
    x, g = rng(0).standard_normal((5, 3)), rng(1).standard_normal((5, 2))
    for layer in (plain, parallel):
        for _ in range(3):
            layer(x)
            assert layer.backward_parameters(g) is None
    for p, q in zip(plain.parameters().values(), parallel.parameters().values(), strict=True):
        numpy.testing.assert_allclose(q.grad, p.grad, rtol=1e-12)


def test_one_that_stands_twice_in_a_net_keeps_both_calls():
    body = Sequential(nn.Linear(3, 3), nn.Tanh())
    shared, alone = DataParallel(copy.deepcopy(body), 2), body
    x = rng(0).standard_normal((4, 3))
    assert_same(Sequential(alone, nn.Tanh(), alone), Sequential(shared, nn.Tanh(), shared), x)


def test_requests_without_a_backward_are_forgotten_by_the_workers(monkeypatch):
    forward = replicas.Replicas._forward

    def kept(self, *args):
        return numpy.full_like(forward(self, *args), len(self.tapes))

    monkeypatch.setattr(replicas.Replicas, "_forward", kept)
    parallel = DataParallel(nn.Linear(1, 1), 3)
    for n in (6, 4, 4, 4, 6, 4, 6):
        assert parallel(numpy.zeros((n, 1)))[-1, 0] <= 2  # the last one and this


def test_a_batch_too_large_for_the_common_memory_goes_through_the_pipe(monkeypatch):
    monkeypatch.setattr(worker_pool, "SHARED", 256)
    assert_same(*twins(net(), workers=2), rng(0).standard_normal((40, 3)))


# ---------------------------------------------------------------------- what the others are told


def test_training_with_dropout_and_batchnorm_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path):
    def make():
        on = layers.on(numpy, rng=0)
        module = Module(
            DataParallel(Sequential(on.Linear(6, 8), on.BatchNorm1d(8), on.Dropout(0.4), on.Linear(8, 3)), 2)
        )
        return module, Adam(module, lr=0.01), CrossEntropyLoss(module)

    def train(module, optimizer, loss_func, first, last):
        for i in range(first, last):
            loss_func(module(rng(i).standard_normal((9, 6)).astype("float32")), rng(i).integers(0, 3, 9)).backward()
            optimizer.step()

    whole, broken, again = make(), make(), make()
    train(*whole, 0, 6)
    train(*broken, 0, 3)
    mtorch.save(tmp_path / "half.npz", *broken[:2])
    mtorch.load(tmp_path / "half.npz", *again[:2])
    train(*again, 3, 6)
    for name, value in whole[0].state_dict().items():
        assert (again[0].state_dict()[name] == value).all(), name


def test_each_process_draws_its_own_masks_from_the_layers_seed_and_the_same_after_a_rewind():
    x, drawn = numpy.ones((6, 200)), []
    for seed in (0, 1):
        parallel = DataParallel(nn.Dropout(0.5, rng=seed), 3)
        state = parallel.net.random_state()
        y = parallel(x)
        drawn += list(y.reshape(3, 400))
        parallel.net.set_random_state(state)
        assert (parallel(x) == y).all()
    for i, one in enumerate(drawn):
        assert all((one != other).any() for other in drawn[:i])


def test_modes_and_buffers_reach_the_workers():
    norm = nn.BatchNorm1d(2)
    plain, parallel = twins(Sequential(norm, nn.Linear(2, 2)), workers=2)
    x = rng(0).standard_normal((6, 2)) * 3 + 1
    parallel(x)
    parallel.net[0].eval()
    plain.load_state_dict(parallel.state_dict())
    plain[0].eval()
    assert_same(plain, parallel, x)
    norm.running_mean.value = norm.running_mean.value + 2
    plain.load_state_dict(parallel.state_dict())
    assert_same(plain, parallel, x)


def test_new_values_and_new_arrays_reach_the_workers():
    plain, parallel = twins(net(), workers=2)
    x = rng(0).standard_normal((4, 3))
    assert_same(plain, parallel, x)
    state = {name: value + 1 for name, value in plain.state_dict().items()}
    plain.load_state_dict(state), parallel.load_state_dict(state)
    plain.zero_grad(), parallel.zero_grad()
    assert_same(plain, parallel, x)
    plain[0].weight.value = parallel.net[0].weight.value * 2
    parallel.net[0].weight.value = parallel.net[0].weight.value * 2
    plain.zero_grad(), parallel.zero_grad()
    assert_same(plain, parallel, x)


def test_a_parameter_in_place_of_another_reaches_the_workers():
    plain, parallel = twins(net(), workers=2)
    x = rng(0).standard_normal((4, 3))
    parallel(x)
    for body in (plain, parallel.net):
        body[2].weight = Parameter(numpy.full((2, 4), 0.5))
    assert_same(plain, parallel, x)


def test_what_else_changes_is_learnt_by_a_restart():
    parallel = DataParallel(nn.LeakyReLU(negative_slope=0.5), 2)
    x = -numpy.ones((4, 1))
    parallel(x)
    parallel.net.negative_slope = 0.25
    parallel.restart()
    assert (parallel(x) == -0.25).all()


def test_names_are_those_of_the_net_also_below_other_containers():
    assert list(DataParallel(net(), 2).state_dict()) == list(net().state_dict())
    chain = Sequential(nn.ReLU(), DataParallel(nn.Linear(2, 2), 2))
    assert list(chain.parameters()) == ["1.weight", "1.bias"]
    assert all(layer.training is False for _, layer in chain.eval().walk())


# ---------------------------------------------------------------------- alone


def test_evaluation_and_prediction_stay_in_this_process():
    plain, parallel = twins(net(), workers=2)
    x = rng(0).standard_normal((4, 3))
    assert (parallel.predict(x) == plain.predict(x)).all()
    parallel.eval(), plain.eval()
    assert_same(plain, parallel, x)
    assert parallel._replicas is None
    assert not parallel.multithreaded and DataParallel(models.lenet(), 2).multithreaded is mtorch.fast.ENABLED


def test_inside_another_and_on_other_systems_one_process_does_all(monkeypatch):
    body = net()
    plain, parallel = copy.deepcopy(body), DataParallel(Residual(DataParallel(nn.Linear(3, 3), 2)), 2)
    assert parallel(rng(0).standard_normal((6, 3))).shape == (6, 3)
    monkeypatch.setattr(system.sys, "platform", "win32")
    other = DataParallel(body, 2)
    assert_same(plain, other, rng(0).standard_normal((4, 3)))
    assert other._replicas is None


def test_copies_and_pickles_have_no_processes_yet():
    parallel = DataParallel(net(), 2)
    x = rng(0).standard_normal((4, 3))
    y = parallel(x)
    for twin in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel)), parallel.to(dtype="float32")):
        assert twin._replicas is None
        numpy.testing.assert_allclose(twin(x), y, rtol=1e-5)
    chain = Sequential(parallel, nn.Tanh())
    chain(x)
    for twin in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        with pytest.raises(BackwardError, match="know nothing of it"):
            twin.backward(y)
    chain.backward(y)


# ---------------------------------------------------------------------- mistakes and accidents


class Choosy(Layer):
    """y = w x; refuses samples above `forward_limit`, and output gradients above `backward_limit`."""

    def __init__(self, forward_limit=numpy.inf, backward_limit=numpy.inf):
        super().__init__(dtype="float64")
        self.weight, self.limits = Parameter(numpy.ones(1)), (forward_limit, backward_limit)

    def forward(self, x):
        if (x > self.limits[0]).any():
            raise ArithmeticError("too large")
        self.remember(x)
        return x * self.weight.value

    def backward(self, output_grad):
        x = self.recall()
        self.weight.accumulate((x * output_grad).sum(keepdims=True).reshape(1))
        if (output_grad > self.limits[1]).any():
            raise ArithmeticError("too steep")
        return output_grad * self.weight.value


def test_an_error_in_one_process_leaves_nothing_behind():
    for sample in (0, 3):
        parallel, x = DataParallel(Choosy(forward_limit=5), 2), numpy.ones((4, 1))
        x[sample] = 9
        with pytest.raises(ArithmeticError, match="too large"):
            parallel(x)
        with pytest.raises(BackwardError):
            parallel.backward(x)
        assert_same(Choosy(), parallel, numpy.ones((4, 1)))

        parallel, g = DataParallel(Choosy(backward_limit=5), 2), numpy.ones((4, 1))
        g[sample] = 9
        parallel(numpy.ones((4, 1)))
        with pytest.raises(ArithmeticError, match="too steep"):
            parallel.backward(g)
        assert not parallel.net.weight.has_grad
        assert_same(Choosy(), parallel, numpy.ones((4, 1)))


def test_a_forward_that_fails_anywhere_leaves_buffers_alone_everywhere():
    for sample in (0, 3):
        norm = nn.BatchNorm1d(1)
        parallel, x = DataParallel(Sequential(norm, Choosy(forward_limit=1.7)), 2), rng(0).standard_normal((8, 1))
        parallel(x)
        before, plain = norm.running_mean.value, copy.deepcopy(parallel.net)
        x[2 * sample] = 9
        with pytest.raises(ArithmeticError):
            parallel(x)
        assert norm.running_mean.value is before
        plain.eval(), parallel.net[0].eval(), parallel.net[1].eval()
        x = rng(1).standard_normal((8, 1)) / 9
        assert (parallel(x) == plain(x)).all()


class Secretive(Layer):
    """Raises what no pickle can carry."""

    def forward(self, x):
        if x[0] == 1:
            raise type("Local", (Exception,), {})("hidden")
        return x


def test_an_error_that_cannot_be_pickled_is_told_as_text():
    with pytest.raises(RuntimeError, match="hidden"):
        DataParallel(Secretive(dtype="float64"), 2)(numpy.array([0.0, 0.0, 1.0, 0.0]))


def test_what_has_no_batch_is_refused():
    parallel = DataParallel(net(), 2, axis=1)
    with pytest.raises(ShapeMismatchError, match=r"one batch along axis 1, got \(3,\)"):
        parallel(numpy.zeros(3))
    with pytest.raises(ShapeMismatchError, match="DataParallel.*one batch along axis 0"):
        DataParallel(layers.Add(), 2)((numpy.zeros((2, 3)), numpy.zeros((3, 3))))
    with pytest.raises(ShapeMismatchError, match=r"its net to return 4 samples along axis 0, got \(3,\)"):
        DataParallel(nn.Sum(axis=0), 2)(numpy.zeros((7, 3)))
    with pytest.raises(ShapeMismatchError, match=r"its net to return 2 samples along axis 1, got \(2,\)"):
        DataParallel(nn.Sum(axis=1), 2, out_axis=1)(numpy.zeros((4, 3)))
    with pytest.raises(ShapeMismatchError, match="expected input of shape"):
        DataParallel(net(), 2)(numpy.zeros((4, 5)))
    for options, error in (({"workers": 0}, ValueError), ({"workers": 1.5}, TypeError), ({"axis": -1}, ValueError)):
        with pytest.raises(error, match=f"DataParallel expected.*{next(iter(options))}"):
            DataParallel(net(), **options)
    with pytest.raises(TypeError, match="DataParallel is made of layers"):
        DataParallel(numpy.zeros(3))


def test_a_process_that_is_gone_is_an_error_and_started_again():
    plain, parallel = twins(net(), workers=2)
    x, g = rng(0).standard_normal((4, 3)), numpy.ones((4, 2))
    for verb in ("forward", "backward"):
        parallel(x)
        before = pids(parallel)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"^DataParallel\(.* ended"):
            parallel(x) if verb == "forward" else parallel.backward(g)
        parallel.zero_grad(), plain.zero_grad()
        assert_same(plain, parallel, x)
        assert not set(before) & set(pids(parallel))
        parallel.zero_grad(), plain.zero_grad()


def stop(parallel: DataParallel) -> list[int]:
    stopped = pids(parallel)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return stopped


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("verb", ["forward", "backward"])
def test_a_process_that_is_stopped_is_an_error_after_the_patience_and_started_again(verb):
    plain, parallel = twins(net(), workers=2, patience=0.2)
    x, g = rng(0).standard_normal((4, 3)), numpy.ones((4, 2))
    parallel(x)
    before = stop(parallel)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"^DataParallel\(.* no processor time for 0.2 s .*SIGSTOP.*patience="):
        parallel(x) if verb == "forward" else parallel.backward(g)
    assert time.monotonic() - begin < 20 and not any(map(exists, before))
    parallel.zero_grad(), plain.zero_grad()
    assert_same(plain, parallel, x)
    assert not set(before) & set(pids(parallel))


def test_a_stopped_process_that_does_not_read_is_an_error_too(monkeypatch):
    """The message does not fit into the pipe, so that sending it waits."""
    monkeypatch.setattr(worker_pool, "SHARED", 256)
    plain, parallel = twins(net(), workers=2, patience=0.2)
    x = rng(0).standard_normal((200_000, 3))
    parallel(x[:4])
    stop(parallel)
    with pytest.raises(RuntimeError, match="no processor time"):
        parallel(x)
    assert_same(plain, parallel, x[:4])


def test_a_process_that_is_stopped_for_less_than_the_patience_goes_on():
    plain, parallel = twins(net(), workers=2, patience=60)
    x = rng(0).standard_normal((4, 3))
    parallel(x), parallel.forget()
    for pid in stop(parallel):
        code = f"import os, signal, time; time.sleep(0.3); os.kill({pid}, signal.SIGCONT)"
        helper = subprocess.Popen([sys.executable, "-c", code])
    assert_same(plain, parallel, x)
    helper.wait()


def test_where_no_process_can_be_forked_nothing_stays_behind(monkeypatch):
    forks, fork = [], os.fork

    def failing():
        if len(forks) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        forks.append(fork())
        return forks[-1]

    parallel = DataParallel(net(), workers=3)
    monkeypatch.setattr(os, "fork", failing)
    with pytest.raises(OSError, match="temporarily unavailable"):
        parallel(numpy.ones((6, 3)))
    assert not exists(forks[0])
    monkeypatch.undo()
    assert parallel(numpy.ones((6, 3))).shape == (6, 2)


def test_stopped_processes_end_with_the_layer():
    parallel = DataParallel(net(), workers=3)
    parallel(numpy.ones((6, 3)))
    stopped = stop(parallel)
    del parallel
    gc.collect()
    assert not any(map(exists, stopped))


class Slow(Layer):
    """Computes for a second in every process but this one."""

    first = os.getpid()

    def forward(self, x):
        self.remember()
        begin = time.process_time()
        while os.getpid() != self.first and time.process_time() - begin < 1.0:
            pass
        return x + 0

    def backward(self, output_grad):
        self.recall()
        return self.cast_grad(output_grad)


def test_a_process_that_computes_is_waited_for_however_long_it_takes():
    parallel = DataParallel(Sequential(Residual(Slow(dtype="float64")), nn.Linear(3, 2)), workers=2, patience=0.1)
    y = parallel(rng(0).standard_normal((4, 3)))
    assert y.shape == (4, 2)


@pytest.mark.parametrize("wrong, kind", [(0, ValueError), (-1, ValueError), (10**400, ValueError), ("a", TypeError)])
def test_a_patience_is_a_number_of_seconds(wrong, kind):
    with pytest.raises(kind, match="DataParallel expected .*patience"):
        DataParallel(net(), patience=wrong)
    assert DataParallel(net(), patience=None).patience is None and DataParallel(net()).patience == 300


def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_first_process():
    """`timeout` and a terminal signal every process: a run that finishes its step needs its workers for it."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(os.getpid()))
    try:
        plain, parallel = twins(net(), workers=2)
        parallel(numpy.zeros((4, 3)))
        (pid,) = pids(parallel)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert_same(plain, parallel, numpy.ones((4, 3)))
        assert pids(parallel) == [pid] and not heard
    finally:
        signal.signal(signal.SIGTERM, before)
    del parallel
    await_end([pid])


def test_the_processes_end_with_the_layer():
    parallel = DataParallel(net(), 3)
    parallel.backward(parallel(numpy.ones((6, 3))))
    found = pids(parallel)
    assert len(found) == 2 and all(map(runs, found))
    gc.disable()
    del parallel
    left = [pid for pid in found if os.path.exists(f"/proc/{pid}")]
    gc.enable()
    assert not left


SCRIPT = """
import os, signal, sys, numpy
from mtorch import DataParallel, layers
net = DataParallel(layers.Linear(2, 2), 3)
net(numpy.ones((6, 2), "float32"))
print(*net._replicas.pool.pids, flush=True)
{end}
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_end(found: list[int]) -> None:
    limit = time.monotonic() + 10
    while any(map(runs, found)):
        assert time.monotonic() < limit, "a process is left"
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)", "os._exit(0)"])
def test_no_process_outlives_the_first(end):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end=end)], capture_output=True, text=True, timeout=60)
    found = [int(pid) for pid in done.stdout.split()]
    assert len(found) == 2 and not done.stderr
    await_end(found)


def test_an_interrupt_stops_this_process_alone_and_training_can_go_on():
    class Interrupted(Choosy):
        def forward(self, x):
            if x[0] == 7:
                raise KeyboardInterrupt
            return super().forward(x)

    parallel = DataParallel(Interrupted(), 2)
    with pytest.raises(KeyboardInterrupt):
        parallel(numpy.array([[7.0], [1.0], [1.0], [1.0]]))
    assert_same(Choosy(), parallel, numpy.ones((4, 1)))
    for pid in pids(parallel):
        os.kill(pid, signal.SIGINT)
    assert parallel(numpy.ones((4, 1))).sum() == 4


class Counting(Layer):
    """How many threads a kernel call would be divided among, for each sample."""

    def forward(self, x):
        return numpy.full_like(x, len(threads.in_threads(list, 4, math.inf)))


def test_each_process_has_one_thread_meanwhile_and_this_one_gets_its_threads_back(monkeypatch):
    blas = [3]
    stand_in = threads.BlasThreads(lambda: blas[0], lambda n: blas.__setitem__(0, n))
    monkeypatch.setattr(threads, "_blas_threads", lambda: stand_in)
    parallel = DataParallel(Counting(dtype="float64"), 2)
    assert (parallel(numpy.zeros(4)) == 1).all()
    assert blas == [3] and not threads.blas_is_held()
    assert len(threads.in_threads(list, 4, math.inf)) == 3


def test_interrupts_come_in_again_once_the_workers_are_forked():
    DataParallel(net(), 2)(numpy.ones((4, 3)))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_an_app_model_learns_in_two_processes():
    module = Module(DataParallel(models.lenet(rng=0), 2))
    loss_func, optimizer = CrossEntropyLoss(module), Adam(module)
    x, labels = rng(0).standard_normal((16, 784)).astype("float32"), rng(1).integers(0, 10, 16)
    values = []
    for _ in range(30):
        loss = loss_func(module(x), labels)
        loss.backward()
        optimizer.step()
        values.append(loss.value)
    assert values[-1] < 0.2 * values[0]


# ---------------------------------------------------------------------- found by attacking it


def test_processes_that_had_no_part_in_a_batch_are_not_left_behind():
    norm = nn.BatchNorm1d(3)
    parallel, x = DataParallel(norm, 3), rng(0).standard_normal((6, 3))
    parallel(x)
    norm.eval()
    parallel(x)
    norm.running_mean.value = numpy.full(3, 10.0)
    parallel(x[:4])
    assert (parallel(x) == norm.predict(x)).all()
    norm.running_mean.value[...] = 20  # in place
    assert (parallel(x) == norm.predict(x)).all()


def test_a_process_forked_by_somebody_else_has_its_own_parameters_and_workers():
    parallel, x = DataParallel(net(), 2), rng(0).standard_normal((4, 3))
    y, before = parallel(x), parallel.state_dict()
    pid = os.fork()
    if not pid:
        try:
            parallel.step(0.1)
            parallel.load_state_dict({name: value + 1 for name, value in before.items()})
            right = abs(parallel(x) - parallel.predict(x)).max() < 1e-12
            parallel.restart()
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert all((value == before[name]).all() for name, value in parallel.state_dict().items())
    parallel.backward(numpy.ones_like(y))
    assert (parallel(x) == y).all()


def test_a_random_layer_may_keep_another_state_than_a_seed():
    class Counter(Layer):
        k = 0

        def forward(self, x):
            self.k += 1
            return x + self.k

        def random_state(self):
            return {"k": self.k}

        def set_random_state(self, state):
            self.k = state["k"]

    parallel = DataParallel(Counter(dtype="float64"), 2)
    assert [parallel(numpy.zeros(4)).tolist() for _ in range(2)] == [[1.0] * 4, [2.0] * 4]


def test_an_error_keeps_its_place_and_tells_where_it_came_from():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    class Fussy(Layer):
        def forward(self, x):
            if x[0] == 1:
                raise Odd("this", "that")
            if x[0] == 2:
                raise ShapeMismatchError(self, "expected another")
            return x

    parallel, x = DataParallel(Sequential(nn.ReLU(), Fussy(dtype="float64")), 2), numpy.zeros(4)
    x[2] = 1
    with pytest.raises(RuntimeError, match="Odd: this and that"):
        parallel(x)
    x[2] = 2
    with pytest.raises(ShapeMismatchError, match="Fussy.*expected another") as caught:
        parallel(x)
    notes = "".join(caught.value.__notes__)
    assert "in layer 1 of Sequential" in notes and "in worker process 1" in notes and "Traceback" in notes
    assert "in one of the 2 shares of an input of shape (4,)" in notes


def test_an_interrupt_is_an_interrupt_also_when_the_workers_have_ended():
    class Interrupted(Choosy):
        def forward(self, x):
            if x[0] == 7:
                for pid in pids(parallel):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                raise KeyboardInterrupt
            if x[0] == 2:  # the worker: it has not answered yet when it is ended
                time.sleep(10)
            return super().forward(x)

    parallel, x = DataParallel(Interrupted(), 2), numpy.ones((4, 1))
    parallel(x)
    x[:2], x[2:] = 7, 2
    with pytest.raises(KeyboardInterrupt):
        parallel(x)
    assert parallel(numpy.ones((4, 1))).sum() == 4


def test_a_worker_forks_no_workers():
    class Asking(Layer):
        def forward(self, x):
            return numpy.full_like(x, system.can_fork())

    assert system.can_fork()
    assert not DataParallel(Asking(dtype="float64"), 2)(numpy.zeros(4)).any()


def test_two_with_a_common_layer_and_one_in_another_are_forked_once():
    common, x = nn.Linear(3, 3), rng(0).standard_normal((4, 3))
    pair = [DataParallel(common, 2), DataParallel(Sequential(common, nn.Tanh()), 2)]
    outer = DataParallel(Residual(DataParallel(nn.Linear(3, 3), 2)), 2)
    for parallel in (*pair, outer):
        parallel(x)
    before = [pids(parallel) for parallel in (*pair, outer)]
    for _ in range(2):
        for parallel in (*pair, outer):
            parallel.backward(parallel(x))
            parallel.step(0.1)
    assert [pids(parallel) for parallel in (*pair, outer)] == before
    for parallel in pair:
        numpy.testing.assert_allclose(parallel(x), parallel.predict(x), rtol=1e-12)
    assert outer.net.body._replicas is None


def test_floating_point_settings_are_those_of_the_call():
    parallel, x = DataParallel(nn.Log(), 2), numpy.array([1.0, 1.0, 1.0, 0.0])
    with numpy.errstate(divide="ignore"):
        assert parallel(x)[3] == -math.inf
    with numpy.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel(x)


def in_a_daemon(send):
    parallel, x = DataParallel(net(), 2), numpy.ones((4, 3))
    send.send((bool((parallel(x) == parallel.predict(x)).all()), pids(parallel)))


def test_a_daemon_process_may_have_some_too_and_leaves_none():
    receive, send = multiprocessing.Pipe(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=in_a_daemon, args=(send,), daemon=True)
        process.start()
    assert receive.poll(30)
    right, found = receive.recv()
    process.join()
    assert right and len(found) == 1
    await_end(found)


THREADS = """
import os, signal, threading, numpy
from mtorch import DataParallel, layers
nets = [DataParallel(layers.Linear(3, 3), 2) for _ in range(4)]
gate = threading.Barrier(4)
def work(net):
    gate.wait()
    net(numpy.ones((4, 3), "float32"))
workers = [threading.Thread(target=work, args=(net,)) for net in nets]
for each in workers: each.start()
for each in workers: each.join()
print(*(pid for net in nets for pid in net._replicas.pool.pids), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_started_in_several_threads_at_once_end_too():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=60)
    found = [int(pid) for pid in done.stdout.split()]
    assert len(found) == 4 and not done.stderr
    await_end(found)


def test_a_call_that_was_broken_off_leaves_no_answers_for_the_next(monkeypatch):
    parallel, x = DataParallel(nn.Linear(1, 1, bias=False), 2), numpy.ones((4, 1))
    parallel(x)

    def interrupted(*_, **options):
        raise KeyboardInterrupt

    gc.collect()  # nets of other tests end their workers now, not while that is broken
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker_pool._Channel, "receive", interrupted)
        patch.setattr(worker_pool.weakref.finalize, "__call__", interrupted)  # before the workers could be ended
        parallel(2 * x)
    more = numpy.full((6, 1), 3.0)
    assert (parallel(more) == parallel.predict(more)).all()


FORK = """
import os, sys, numpy
from mtorch import DataParallel, layers
net, x = DataParallel(layers.Linear(2, 2), 2), numpy.ones((4, 2), "float32")
net(x)
before = list(net._replicas.pool.pids)
if not (pid := os.fork()):
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
net(x)
assert net._replicas.pool.pids == before
"""


def test_a_fork_that_exits_leaves_the_processes_of_its_parent():
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK], capture_output=True, text=True, timeout=60)
    assert not done.returncode and not done.stderr, done.stderr


CHILD = """
import os, signal, sys, time, numpy
from mtorch import DataParallel, layers
net = DataParallel(layers.Linear(2, 2), 2)
net(numpy.ones((4, 2), "float32"))
if not (pid := os.fork()):
    time.sleep(60)
print(pid, *net._replicas.pool.pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_child_of_somebody_else_does_not_keep_them_alive():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as process:
        child, *found = (int(pid) for pid in process.stdout.readline().split())
        try:
            await_end(found)
            assert runs(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_there_are_no_more_processes_than_a_batch_needs():
    parallel = DataParallel(net(), 9)
    for samples, workers in ((4, 1), (6, 2), (5, 2), (100, 8)):
        parallel(numpy.ones((samples, 3)))
        assert len(pids(parallel)) == workers


def test_a_value_mapped_from_a_file_is_not_common_memory(tmp_path):
    layer = nn.Linear(3, 2)
    numpy.save(tmp_path / "w.npy", layer.weight.value)
    layer.weight.value = numpy.load(tmp_path / "w.npy", mmap_mode="c")
    parallel, x = DataParallel(layer, 2), numpy.ones((4, 3))
    parallel.backward(parallel(x)[:, :2])
    parallel.step(0.1)
    numpy.testing.assert_allclose(parallel(x), parallel.predict(x), rtol=1e-12)


def test_a_pool_stops_waiting_awake_while_its_workers_are_late():
    def answer(rank, seconds):
        time.sleep(seconds)
        return rank

    pool = worker_pool.WorkerPool(1, answer)
    (channel,) = pool.channels
    channel.spin = worker_pool.SPIN  # also where there is one core
    for seconds in (0.0, 0.05, 0.05, 0.05, 0.0):
        assert pool.run(lambda: 0, [(seconds,)]) == [0, 1]
    assert not channel.spinning.pays()
    channel.spinning.again = 0.0  # the pause is over
    assert pool.run(lambda: time.sleep(0.01), [(0.0,)]) == [None, 1] and channel.spinning.pays()
