"""A net whose batches are divided among processes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mtorch import arrays, guards
from mtorch.arrays import Value, is_numpy, leaves
from mtorch.checks import check_number, check_size
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.parallel.system import can_fork, cpu_count

if TYPE_CHECKING:
    from mtorch.parallel.communicators import Communicator
    from mtorch.parallel.ranks import Ranks
    from mtorch.parallel.replicas import Replicas

LEAST = 2  # samples of a process; BatchNorm has nothing to compare one with


class DataParallel(Container):
    """y = net(x), each process with its share of the samples: what a batch costs is divided by the number of cores.

    Shapes: those of the net. In every array of x the samples lie along `axis`, in y along `out_axis` (as in x unless
    given). workers: the number of processes, this one included (as many as there are cores, unless given).
    `Module(DataParallel(net))` trains like `Module(net)`, and its parameters have the same names.

    Backward: y_i depends on x_i alone, so each process has the whole gradient of its own samples' inputs, and the
    gradients of the parameters, which are sums over samples, add: dw = sum over processes of dw from its samples.

    The processes are forked at the first training step, while no other thread should be in a product, and end with this
    layer. Parameters move then to memory common to all (an array taken from one before is no longer the parameter's);
    buffers, modes and random states are read anew in each forward. An option that is changed in a layer afterwards
    reaches the other processes by `restart()`. As for PyTorch's namesake, BatchNorm sees the samples of one process at
    a time and keeps the statistics of this one, which also has the `final_state`. It pays from a few milliseconds a
    step on. Batches of less than four samples, eval mode, `predict`, GPUs and systems other than Linux are served by
    this process alone.

    A process that computes may take as long as it needs. One that uses no processor time for `patience` seconds while
    this one waits for it, because it was stopped or waits for what never comes, is ended with the others (None: this
    one waits for ever).

    comm: instead of workers, the ranks of an MPI job, `"mpi"` for all or a communicator of mpi4py. Every rank runs the
    same script with the same seeds, and so has the same batches; each computes its share of them, on whatever machine
    it is, with NumPy or CuPy. Running statistics are then the means over the ranks, weighted by samples. An error on
    one rank is an error on all. `mpiexec -n 4 python script.py` starts it; `pip install -e '.[mpi]'` brings both.

    Errors: ShapeMismatchError where several processes find no batch along an axis; RuntimeError when one was ended, or
    was lost in that way. The net then has its gradients discarded, and the next forward starts other processes.

    Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020, arXiv:2006.15704.
    """

    patience: float | None = 300  # for copies of an older version

    def __init__(
        self,
        net: Layer,
        workers: int | None = None,
        *,
        axis: int = 0,
        out_axis: int | None = None,
        patience: float | None = 300,
        comm: Any = None,
    ):
        (self.net,) = nets = self.cores((net,))
        super().__init__(nets)
        if workers is not None and comm is not None:
            raise TypeError("DataParallel expected workers or comm, got both")
        self.workers = cpu_count() if workers is None else check_size("DataParallel", "workers", workers)
        self.axis = check_size("DataParallel", "axis", axis, 0)
        self.out_axis = self.axis if out_axis is None else check_size("DataParallel", "out_axis", out_axis, 0)
        self.patience = None if patience is None else check_number("DataParallel", "patience", patience, above=0)
        self.takes, self.moves_data, self.parts = self.net.takes, self.net.moves_data, self.net.parts
        self._replicas: Replicas | Ranks | None = None
        self.comm: Communicator | None = None
        if comm is not None:
            from mtorch.parallel.communicators import communicator

            self.comm = communicator(comm, self.xp)
            self.workers = self.comm.size

    def children(self) -> Iterator[tuple[str, Layer]]:
        yield "", self.net

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        return self.net.infer_shape(known)

    def cast_input(self, x: Value) -> Value:
        return self.net.cast_input(x)

    def restart(self) -> None:
        """Lets the other processes go; the next forward in training makes new ones."""
        self._replicas = None

    def forward(self, x: Value) -> Value:
        tape, bounds = Tape(self), self._bounds(x)
        if not bounds:
            y = tape.call(self.net, x)
            self.remember(tape, None, bounds)
            return self.returns(y)
        try:
            request, values = self._engine(len(bounds)).forward(
                lambda share: tape.call(self.net, share),
                lambda rank: self._share(x, self.axis, bounds[rank]),
                [samples.stop - samples.start for samples in bounds],
            )
            y = self._join(values, self.out_axis, bounds)
        except BaseException as error:
            tape.undo()
            error.add_note(f"in one of the {len(bounds)} shares of an input of shape {arrays.shape_value(x)}")
            raise
        self.remember(tape, request, bounds)
        return self.returns(y)

    def _engine(self, shares: int) -> "Replicas | Ranks":
        """What computes the shares."""
        engine = self._replicas
        if engine is None or engine.outdated(shares - 1):
            if self.comm is not None:
                from mtorch.parallel.ranks import Ranks

                engine = Ranks(self, self.net, self.comm)
            else:
                from mtorch.parallel.replicas import Replicas  # imports what only systems with processes have

                engine = Replicas(self, self.net, shares - 1)
            self._replicas = engine
        return engine

    def backward(self, output_grad: Value) -> Value:
        return self._backward(output_grad, True)

    def backward_parameters(self, output_grad: Value) -> None:
        self._backward(output_grad, False)

    def _backward(self, output_grad: Value, wanted: bool) -> Value:
        output_grad = self.cast_grad(output_grad)
        tape, request, bounds = self.recall()
        if not (wanted or self.trains()):
            return None
        pull = tape.pull if wanted else tape.pull_parameters
        if request is None:
            return pull(output_grad)
        try:
            grads = request.backward(
                pull, lambda rank: self._share(output_grad, self.out_axis, bounds[rank]), len(bounds), wanted
            )
        except BaseException as error:
            guards.discard(self, error)
            raise
        return self._join(grads, self.axis)

    def _bounds(self, x: Value) -> list[slice]:
        """Which samples each process gets, in order; nothing where this process does all."""
        forks = self.comm is None and can_fork() and is_numpy(self.xp)
        if self.workers == 1 or not self.training or self.predicting or not (forks or self.comm):
            return []
        sizes = {a.shape[self.axis] if a.ndim > self.axis else -1 for a in leaves(x)}
        n = sizes.pop() if len(sizes) == 1 else -1
        if n < 0:
            raise ShapeMismatchError(self, f"expected one batch along axis {self.axis}, got {arrays.shape_value(x)}")
        k = max(1, min(n // LEAST, self.workers))
        if k == 1 and forks:
            return []
        return [slice(n * i // k, n * (i + 1) // k) for i in range(k)]

    def _share(self, value: Value, axis: int, samples: slice) -> Value:
        """The samples of one process."""
        where = (slice(None),) * axis + (samples,)
        return arrays.map_value(lambda a: self.xp.ascontiguousarray(a[where]), value)

    def _join(self, values: list[Value], axis: int, bounds: list[slice] | None = None) -> Value:
        """The whole batch again, None where nothing came; with bounds, every share must have its samples."""
        if isinstance(values[0], tuple):
            return tuple(self._join(list(each), axis, bounds) for each in zip(*values, strict=True))
        if values[0] is None:
            return None
        for value, samples in zip(values, bounds or (), strict=False):
            if value.ndim <= axis or value.shape[axis] != samples.stop - samples.start:
                wanted = f"its net to return {samples.stop - samples.start} samples along axis {axis}"
                raise ShapeMismatchError(self, f"expected {wanted}, got {value.shape}")
        return self.xp.concatenate(values, axis)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_replicas": None}

    def place(self, layer: Layer, position: int) -> str:
        return "DataParallel"

    def details(self) -> str:
        axes = "".join(f", {name}={axis}" for name, axis in (("axis", self.axis), ("out_axis", self.out_axis)) if axis)
        return f"{self.net!r}, workers={self.workers}{axes}"

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import Sequential, layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls(nn.Linear(3, 2), workers=2), (5, 3)
        yield cls(Sequential(nn.GRU(2, 3), nn.Slice(-1)), workers=3, axis=1, out_axis=0), (4, 3, 2)


def ranks_of(module: Layer) -> "Communicator | None":
    """The communicator of the ranks that the module, or a part of it, is divided among."""
    parts = (layer for _, layer in module.walk() if isinstance(layer, DataParallel))
    return next((part.comm for part in parts if part.comm is not None), None)
