"""What the ranks of an MPI job say to each other: small objects, and arrays in one piece."""

import atexit
import sys
import time
from types import ModuleType
from typing import Any, Protocol

import numpy

from mtorch import arrays
from mtorch.arrays import Array, is_numpy

ENDED = "its script ended while others went on"
PASSED_ON = 0.3  # seconds in which mpiexec passes on what a rank has printed; an abort ends it


class Communicator(Protocol):
    """What `DataParallel(net, comm=...)` asks of a communicator. Every rank makes the same calls in the same order."""

    rank: int
    size: int
    local_size: int  # ranks on this host, this one included

    def exchange(self, error: str, item: Any) -> list[tuple[str, Any]]:
        """What all ranks said, in order: an error or "", and a small object."""
        ...

    def allreduce(self, flat: Array) -> None:
        """flat := the sum over the ranks."""
        ...

    def allgather(self, flat: Array, sizes: list[int]) -> list[Array]:
        """The flat arrays of all ranks, which have these sizes."""
        ...

    def broadcast(self, flat: Array) -> None:
        """flat := that of rank 0."""
        ...


class Mpi:
    """mpi4py's communicator, for NumPy arrays. A rank that ends by an error, or before the others, ends them all."""

    def __init__(self, comm: Any):
        from mpi4py import MPI

        self.comm, self.in_place = comm, MPI.IN_PLACE
        self.rank, self.size = comm.rank, comm.size
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_size = local.size
        local.Free()
        report = sys.excepthook

        def abort(kind: Any, error: Any, trace: Any) -> None:
            report(kind, error, trace)
            text = f"rank {self.rank} of {self.size} ends all ranks: {kind.__name__}: {error}"
            print(text, file=sys.stderr, flush=True)
            time.sleep(PASSED_ON)
            comm.Abort(1)

        sys.excepthook = abort
        self.over = False  # whether a rank has ended: then there is nobody to exchange with
        atexit.register(self.end)

    def exchange(self, error: str, item: Any) -> list[tuple[str, Any]]:
        told = self.comm.allgather((error, item))
        self.over = any(text == ENDED for text, _ in told)
        return told

    def end(self) -> None:
        """Says that this rank ends, to ranks that still train."""
        if not self.over:
            self.exchange(ENDED, None)

    def allreduce(self, flat: Array) -> None:
        self.comm.Allreduce(self.in_place, flat)

    def allgather(self, flat: Array, sizes: list[int]) -> list[Array]:
        whole = numpy.empty(sum(sizes), flat.dtype)
        self.comm.Allgatherv(flat, (whole, sizes))
        return numpy.split(whole, numpy.cumsum(sizes)[:-1])

    def broadcast(self, flat: Array) -> None:
        self.comm.Bcast(flat)

    def __deepcopy__(self, memo: Any) -> "Mpi":
        return self

    def __reduce__(self) -> Any:
        return type(None), ()  # in another process there are no such ranks


class Nccl(Mpi):
    """The same for CuPy arrays, which go through NCCL from GPU to GPU; small objects go through MPI.

    Each rank takes the GPU of its number on its host.
    """

    def __init__(self, comm: Any, nccl: Any = None):
        super().__init__(comm)
        if nccl is None:
            import cupy
            from cupyx.distributed import NCCLBackend

            cupy.cuda.Device(self.rank % cupy.cuda.runtime.getDeviceCount()).use()
            nccl = NCCLBackend(self.size, self.rank, use_mpi=True)
        self.nccl = nccl

    def allreduce(self, flat: Array) -> None:
        self.nccl.all_reduce(flat, flat)

    def allgather(self, flat: Array, sizes: list[int]) -> list[Array]:
        xp: Any = arrays.array_module(flat)
        largest = max(sizes)  # NCCL gathers pieces of one size
        piece, whole = xp.zeros(largest, flat.dtype), xp.empty(largest * self.size, flat.dtype)
        piece[: flat.size] = flat
        self.nccl.all_gather(piece, whole, largest)
        return [whole[i * largest : i * largest + size] for i, size in enumerate(sizes)]

    def broadcast(self, flat: Array) -> None:
        self.nccl.broadcast(flat)


_made: dict[Any, Any] = {}


def communicator(comm: Any, xp: ModuleType) -> Communicator:
    """The communicator that `comm` names: "mpi" is all ranks of the job, one of mpi4py those it holds."""
    if all(hasattr(comm, name) for name in ("exchange", "allreduce", "allgather", "broadcast")):
        return comm
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        raise ImportError(f"several ranks need MPI: pip install -e '.[mpi]' ({error})") from None
    if isinstance(comm, str) and comm == "mpi":
        comm = MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"DataParallel expected comm to be 'mpi' or a communicator of mpi4py, got {comm!r}")
    key = comm.handle, xp.__name__
    if key not in _made:
        _made[key] = Mpi(comm) if is_numpy(xp) else Nccl(comm)
    return _made[key]
