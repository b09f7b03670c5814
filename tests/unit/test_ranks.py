"""DataParallel over ranks: every rank makes the step that one process alone would make, and an error ends them all.

Ranks are threads of this process with a communicator of their own; where mpi4py is installed, processes of mpiexec.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest

from mtorch import SGD, Adam, CrossEntropyLoss, DataParallel, Module, MSELoss, Sequential, layers, models
from mtorch.data import ArrayDataset, DataLoader
from mtorch.layer import Layer
from mtorch.parallel.communicators import Nccl, communicator
from mtorch.testing import strict

ROOT = Path(__file__).parents[2]
rng = numpy.random.default_rng


class Threads:
    """The communicator of one of several threads."""

    local_size = 1

    def __init__(self, rank, shared):
        self.rank, self.size = rank, shared["size"]
        self.shared = shared

    def exchange(self, error, item):
        self.shared["said"][self.rank] = (error, item)
        self.shared["barrier"].wait(20)
        said = list(self.shared["said"])
        self.shared["barrier"].wait(20)
        return said

    def allgather(self, flat, sizes):
        assert flat.ndim == 1 and flat.size == sizes[self.rank]
        return [array for _, array in self.exchange("", flat.copy())]

    def allreduce(self, flat):
        flat[...] = sum(array for _, array in self.exchange("", flat.copy()))

    def broadcast(self, flat):
        flat[...] = self.exchange("", flat.copy())[0][1]


def on_ranks(size, function):
    """[function(comm of rank 0), function(comm of rank 1), ...], at the same time; an error as itself."""
    shared = {"size": size, "said": [None] * size, "barrier": threading.Barrier(size)}
    found = [None] * size

    def run(rank):
        try:
            found[rank] = function(Threads(rank, shared))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def trained(build, optimizer, steps, comm=None, pixels=64):
    """The parameters after some steps on batches of uneven parts, the last losses, and the module."""
    net = build()
    module = Module(net if comm is None else DataParallel(net, comm=comm))
    optimizer, loss_func = optimizer(module), CrossEntropyLoss(module)
    draw = rng(0)
    dataset = ArrayDataset(draw.standard_normal((53, pixels)), draw.integers(0, 10, 53))
    loader, losses = DataLoader(dataset, batch_size=11, shuffle=True, rng=1), []
    while len(losses) < steps:
        for x, labels in loader:
            loss = loss_func(module(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    return module.to_vector(), losses, module


NETS = {
    "mlp": lambda: models.mlp(64, rng=0, dtype="float64"),
    "gru": lambda: models.gru(64, hidden=8, rng=0, dtype="float64"),
}
OPTIMIZERS = {
    "momentum": lambda module: SGD(module, lr=0.05, momentum=0.9),
    "Adam, clipping, decay": lambda module: Adam(module, lr=1e-3, clip_norm=0.5, weight_decay=1e-2),
}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_ranks_make_the_steps_of_one_process(net, optimizer, size):
    alone, losses, _ = trained(NETS[net], OPTIMIZERS[optimizer], 40)
    found = on_ranks(size, lambda comm: trained(NETS[net], OPTIMIZERS[optimizer], 40, comm))
    for vector, seen, _ in found:
        numpy.testing.assert_allclose(vector, alone, rtol=0, atol=1e-12)
        numpy.testing.assert_allclose(seen, losses, rtol=0, atol=1e-12)
        assert (vector == found[0][0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", ["mlp", "lenet", "gru"])
def test_after_200_steps_the_weights_are_those_of_one_process(net, optimizer):
    pixels = 784 if net == "lenet" else 64
    build = NETS.get(net) or (lambda: models.lenet(rng=0, dtype="float64"))
    expected, losses, _ = trained(build, OPTIMIZERS[optimizer], 200, None, pixels)
    for vector, seen, _ in on_ranks(2, lambda comm: trained(build, OPTIMIZERS[optimizer], 200, comm, pixels)):
        numpy.testing.assert_allclose(vector, expected, rtol=0, atol=1e-10)
        assert len(seen) == len(losses) and losses[-1] < losses[0]


def test_ranks_begin_with_the_values_of_rank_0():
    def values(comm):
        module = Module(DataParallel(models.mlp(64, rng=comm.rank), comm=comm))
        module(numpy.ones((4, 64)))
        return module.to_vector()

    found = on_ranks(2, values)
    assert (found[0] == found[1]).all() and (found[0] == Module(models.mlp(64, rng=0)).to_vector()).all()


def test_gradients_of_several_calls_add_up_and_more_ranks_than_samples_are_allowed():
    x, g = rng(0).standard_normal((3, 64)), rng(1).standard_normal((3, 10))
    plain = NETS["mlp"]()
    plain(x), plain.backward(g), plain(x), plain.backward(2 * g)
    expected = {name: p.grad.copy() for name, p in plain.parameters().items()}

    def gradients(comm):
        net = DataParallel(NETS["mlp"](), comm=comm)
        net(x), net.backward(g), net(x)
        dx = net.backward(2 * g)
        return dx, {name: p.grad.copy() for name, p in net.parameters().items()}

    for dx, grads in on_ranks(3, gradients):
        assert dx.shape == x.shape
        for name, grad in grads.items():
            numpy.testing.assert_allclose(grad, expected[name], rtol=1e-12, atol=1e-12)


def test_a_batch_of_no_samples_is_what_it_is_for_one_process():
    def empty(comm):
        net = DataParallel(NETS["mlp"](), comm=comm)
        y = net(numpy.empty((0, 64)))
        return y.shape, net.backward(y).shape, any(p.grad.any() for p in net.parameters().values())

    assert on_ranks(2, empty) == [((0, 10), (0, 64), False)] * 2


def test_running_statistics_are_means_weighted_by_samples_and_dropout_differs_between_ranks():
    x = rng(0).standard_normal((7, 4))

    def build():
        return Sequential(layers.BatchNorm1d(4, dtype="float64"), layers.Dropout(0.5, dtype="float64", rng=0))

    def statistics(comm):
        net = DataParallel(build(), comm=comm)
        y = net(numpy.ones((8, 4)) if comm is None else x)
        return net.state_dict()["0.running_mean"], net.net.layers[1].random_state(), y

    found = on_ranks(2, statistics)
    for mean, state, y in found:
        numpy.testing.assert_allclose(mean, 0.1 * x.mean(axis=0), rtol=1e-12)
        assert state == {"seed": build().layers[1].seed, "counter": 1}
        assert (y == found[0][2]).all() and ((y[:3] == 0) != (y[3:6] == 0)).any()


def test_an_error_on_one_rank_is_an_error_on_all_and_training_can_go_on():
    class Picky(Layer):
        broken = False

        def forward(self, x):
            if self.broken:
                raise ValueError("not today")
            self.remember()
            return x

        def backward(self, output_grad):
            self.recall()
            return self.cast_grad(output_grad)

    def attempt(comm):
        picky = Picky()
        net = DataParallel(Sequential(layers.Linear(3, 2, rng=0), picky), comm=comm)
        picky.broken = comm.rank == 1
        texts = []
        try:
            net(numpy.ones((4, 3)))
        except Exception as error:
            texts = [f"{type(error).__name__}: {error}"]
        picky.broken = False
        return texts, net(numpy.ones((4, 3))).shape

    first, second = on_ranks(2, attempt)
    assert first == (["RuntimeError: DataParallel: rank 1 of 2 failed: ValueError: not today"], (4, 2))
    assert second == (["ValueError: not today"], (4, 2))


def test_different_batches_are_an_error_that_says_so():
    def attempt(comm):
        net = DataParallel(layers.Linear(3, 2, rng=0), comm=comm)
        with pytest.raises(ValueError, match=r"the ranks have different batches, divided into \[\[2, 2\], \[3, 3\]\]"):
            net(numpy.ones((4 + 2 * comm.rank, 3)))
        return True

    assert on_ranks(2, attempt) == [True, True]


def test_predict_and_eval_are_this_rank_alone():
    net = DataParallel(layers.Linear(3, 2, rng=0), comm=Threads(0, {"size": 2}))  # asking the other would fail
    assert net.predict(numpy.ones((4, 3))).shape == (4, 2)
    net.eval()
    assert net(numpy.ones((4, 3))).shape == (4, 2)


def test_what_is_no_communicator_is_refused():
    with pytest.raises(TypeError, match="workers or comm, got both"):
        DataParallel(layers.Linear(3, 2), 2, comm="mpi")
    pytest.importorskip("mpi4py", exc_type=ImportError)
    with pytest.raises(TypeError, match="expected comm to be 'mpi' or a communicator of mpi4py, got 3"):
        communicator(3, numpy)


# ---------------------------------------------------------------------- GPUs, without one


class Collectives:
    """What `cupyx.distributed.NCCLBackend` does, over the threads' communicator."""

    def __init__(self, comm):
        self.comm = comm

    def all_reduce(self, given, out):
        total = self.comm.exchange("", given.copy())
        out[...] = sum((array for _, array in total[1:]), total[0][1])

    def all_gather(self, given, out, count):
        assert given.size == count and out.size == count * self.comm.size
        for i, (_, array) in enumerate(self.comm.exchange("", given.copy())):
            out[i * count : (i + 1) * count] = array

    def broadcast(self, array):
        array[...] = self.comm.exchange("", array.copy())[0][1]


class FakeNccl(Nccl):
    def __init__(self, comm):
        self.nccl, self.exchange = Collectives(comm), comm.exchange
        self.rank, self.size, self.local_size = comm.rank, comm.size, 1


def test_arrays_of_a_gpu_travel_without_numpy():
    """On the strict array module, where a NumPy call on an array of the GPU is an error."""
    xp, x, g = strict, rng(0).standard_normal((5, 3)), rng(1).standard_normal((5, 2))
    plain = layers.Linear(3, 2, rng=0)
    y, dx = plain(x), plain.backward(g)

    def gradients(comm):
        net = DataParallel(layers.Linear(3, 2, rng=0, xp=xp), comm=FakeNccl(comm))
        z = net(xp.asarray(x))
        dz = net.backward(xp.asarray(g))
        return z, dz, net.parameters()["weight"].grad

    for found in on_ranks(2, gradients):
        assert isinstance(found, tuple), found
        for ours, theirs in zip(found, (y, dx, plain.weight.grad), strict=True):
            numpy.testing.assert_allclose(xp.asnumpy(ours), theirs, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- processes

SCRIPT = """
import os, signal, sys
import numpy
from mtorch import DataParallel, Module, MSELoss, SGD, layers
from mpi4py import MPI

rank, what = MPI.COMM_WORLD.rank, sys.argv[1]
module = Module(DataParallel(layers.Linear(3, 2, rng=rank), comm="mpi"))
loss_func, optimizer = MSELoss(module), SGD(module, lr=0.1)
x = numpy.arange(21.0).reshape(7, 3) / 21
for step in range(30 if what == "end well" else 10**9):
    if rank == 1 and step == 20:
        if what == "raise":
            raise ValueError("bad data")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "leave":
            sys.exit(3)
    loss_func(module(x), x[:, :2]).backward()
    optimizer.step()
os.write(1, f"weights {module.to_vector().tolist()}\\n".encode())
"""


def mpiexec(size, *arguments, **options):
    pytest.importorskip("mpi4py")
    program = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("there is no mpiexec")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [program, "-n", str(size), sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_processes_end_with_the_same_weights(size, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = mpiexec(size, str(tmp_path / "script.py"), "end well")
    lines = [line for line in done.stdout.splitlines() if line.startswith("weights")]
    assert done.returncode == 0 and len(lines) == size and len(set(lines)) == 1, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what, said", [("raise", "rank 1 of 3"), ("leave", "rank 1 of 3"), ("kill", "EXIT CODE: 9")])
def test_a_rank_that_ends_ends_the_others(what, said, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = mpiexec(3, str(tmp_path / "script.py"), what)
    assert done.returncode != 0 and said in done.stdout + done.stderr and "weights" not in done.stdout


def app(runner, out, *more):
    arguments = ["-m", "apps.mnist", "--data", "digits", "--model", "gru", "--epochs", "2", "--out", str(out), *more]
    return runner(*arguments, cwd=ROOT)


def alone(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.slow
def test_the_app_on_ranks_gives_the_history_of_one_process_and_goes_on_with_another_number_of_them(tmp_path):
    pytest.importorskip("mpi4py")
    done = app(lambda *a, **o: mpiexec(2, *a, **o), tmp_path / "ranks", "--parallel", "mpi")
    assert done.returncode == 0 and "2 ranks divide each batch of 32" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("epoch   1") == 1
    again = app(
        lambda *a, **o: mpiexec(3, *a, **o), tmp_path / "ranks", "--parallel", "mpi", "--epochs", "3", "--resume"
    )
    assert again.returncode == 0 and "going on after epoch 2" in again.stdout, again.stdout + again.stderr
    assert app(alone, tmp_path / "alone", "--epochs", "3").returncode == 0
    found, expected = (
        numpy.loadtxt(tmp_path / name / "history.csv", delimiter=",", skiprows=1) for name in ("ranks", "alone")
    )
    numpy.testing.assert_allclose(found, expected, atol=1e-3)
    assert {path.name for path in (tmp_path / "ranks").iterdir()} >= {"model.npz", "metrics.json", "history.csv"}


def test_a_trainer_on_ranks_writes_once_and_stops_on_all_when_one_is_asked_to(tmp_path):
    from mtorch.training import Trainer

    def run(comm):
        draw = rng(0)
        dataset = ArrayDataset(draw.standard_normal((40, 3)), draw.standard_normal((40, 2)))
        loader = DataLoader(dataset, batch_size=8, shuffle=True, rng=1)
        module = Module(DataParallel(layers.Linear(3, 2, rng=comm.rank, dtype="float64"), comm=comm))
        callbacks = [lambda trainer: trainer.stop() if comm.rank == 1 and len(trainer.history) == 3 else None]
        out = tmp_path / f"run-{comm.rank}"
        trainer = Trainer(module, MSELoss(module), SGD(module, lr=0.1), loader, out=out, callbacks=callbacks)
        return len(trainer.fit(epochs=50)), out.exists(), module.to_vector().tolist()

    first, second = on_ranks(2, run)
    assert first == (3, True, second[2]) and second == (3, False, first[2])


RANK_1_LACKS_ITS_DATA = """
import os, sys
from apps.mnist.__main__ import main
from mtorch.training import run_process
sys.argv[1:] = ["--parallel", "mpi", "--epochs", "1", "--out", sys.argv[1], "--data"]
sys.argv.append("digits" if os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "0" else "/missing")
run_process(main)
"""


@pytest.mark.slow
def test_an_app_that_lacks_its_data_on_one_rank_ends_on_all(tmp_path):
    (tmp_path / "script.py").write_text(RANK_1_LACKS_ITS_DATA)
    done = mpiexec(2, str(tmp_path / "script.py"), str(tmp_path / "run"))
    assert done.returncode != 0
    assert "/missing" in done.stderr and "rank 1 of 2 failed" in done.stderr


FULL_ON_RANK_0 = """
import sys
from apps.mnist.__main__ import main
from mtorch.training import RunFolder, run_process

def full(folder, *args, **more):
    if folder.writes:
        raise OSError(28, "No space left on device", str(folder.model))

RunFolder.save = full
sys.argv[1:] = ["--parallel", "mpi", "--data", "digits", "--checkpoint-every", "0", "--out", sys.argv[1]]
run_process(main)
"""


@pytest.mark.slow
def test_a_full_disk_on_rank_0_ends_all_ranks_in_a_line_each(tmp_path):
    (tmp_path / "script.py").write_text(FULL_ON_RANK_0)
    done = mpiexec(2, str(tmp_path / "script.py"), str(tmp_path / "run"))
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr and "rank 0 of 2 failed" in done.stderr
