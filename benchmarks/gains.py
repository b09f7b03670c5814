"""`python -m benchmarks.gains`: what each fast body gains, measured by leaving it out.

One process for each body that is left out takes turns with one that has all of them (`all`), and with one that has none
(`none`, as MTORCH_FAST=0). A gain is the time without the body over the time with it, minus one: the median over
rounds of the ratio of two turns of one round. Bodies are named by their modules in `mtorch/fast/numpy/`; of the
threads below them each trick is named by itself.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

from . import worker
from .commands import mistake, run
from .rounds import Bench, Worker
from .workloads import TABLE, matching, unknown

BODIES = "mtorch.fast.numpy."


def without_blas_held() -> None:
    """A pass leaves BLAS all its threads."""
    from mtorch.accelerate import Blas

    Blas.held = staticmethod(lambda: True)


def without_threads() -> None:
    """BLAS cannot be asked for its threads, so nothing is divided."""
    threads()._blas_threads = lambda: None


def without_divided_products() -> None:
    """Products are left to BLAS, which is held to one thread where threads share other work."""
    from mtorch.fast.product import product

    def whole(a, b, out=None, bias=None):
        y = a.dot(b) if out is None else a.dot(b, out)
        return y if bias is None else y + bias

    everywhere(product, whole)


def without_threads_of_blas() -> None:
    """The parts of products are made by our threads alone, never by those of OpenBLAS."""
    from mtorch.fast import product

    product._may_spin = lambda: False


def without_both_at_once() -> None:
    """The two gradients of a convolution are made one after the other."""
    share = threads().share

    def one_by_one(*tasks):
        return [share(task, least=threads().WORTH_IN_A_ROW)[0] for task in tasks]

    everywhere(threads().together, one_by_one)


def without_unpacked_products() -> None:
    """It is left to BLAS how it takes its matrices."""
    from mtorch.fast.unpacked import has_small_kernels

    everywhere(has_small_kernels, lambda: False)


def without_alignment() -> None:
    """Arrays begin where the C library puts them."""
    from mtorch.fast.aligned import is_large

    everywhere(is_large, lambda nbytes: False)


def without_descend() -> None:
    """Updates are made within errstate."""
    import numpy

    from mtorch.fast.numpy.update import descend

    def within_errstate(value, grad, lr):
        with numpy.errstate(all="ignore"):
            grad *= lr
            value -= grad

    everywhere(descend, within_errstate)


def without_axpby() -> None:
    """NumPy scales and adds arrays."""
    from mtorch.fast.axpby import axpby

    everywhere(axpby, lambda *args: False)


def without_keeping_off() -> None:
    """Threads wake on any core."""
    threads()._Worker.keep_off = lambda self, core: None


def without_spinning() -> None:
    """Processes sleep until a message comes."""
    from mtorch.parallel import worker_pool

    worker_pool.SPIN = 0


def threads() -> ModuleType:
    from mtorch.fast import threads

    return threads


TRICKS: dict[str, Callable[[], None]] = {
    "hold": without_blas_held, "threads": without_threads, "product": without_divided_products,
    "blas": without_threads_of_blas, "at_once": without_both_at_once,
    "unpacked": without_unpacked_products, "aligned": without_alignment,
    "axpby": without_axpby, "descend": without_descend,
    "keep_off": without_keeping_off, "spin": without_spinning,
}  # fmt: skip
ENVIRONMENT = {"none": {"MTORCH_FAST": "0"}, "memory": {"GLIBC_TUNABLES": ""}}  # mallopt is left alone where it is set


def everywhere(old: object, new: object) -> None:
    """Puts `new` in the place of `old` under every name that a module of mtorch has for it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "mtorch":
            for key in [key for key, value in vars(module).items() if value is old]:
                setattr(module, key, new)


def leave_out(name: str) -> None:
    """Takes a trick, or all that a module of fast bodies has registered, out of this process."""
    import mtorch  # noqa: F401
    from mtorch import accelerate

    if name in TRICKS:
        TRICKS[name]()
    for bodies in accelerate._bodies.values():
        for xp, body in list(bodies.items()):
            if getattr(body, "forward", body).__module__ == BODIES + name:
                del bodies[xp]


def names() -> list[str]:
    from mtorch import accelerate

    bodies = [body for each in accelerate._bodies.values() for body in each.values()]
    modules = {getattr(body, "forward", body).__module__ for body in bodies}
    return [*sorted(module.removeprefix(BODIES) for module in modules), *TRICKS, *ENVIRONMENT]


class Variant(Worker):
    """A process of ours that leaves something out."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {"MTORCH_FAST": "1"} | ENVIRONMENT.get(name, {}), "benchmarks.gains", "--worker")

    def ask(self, **request) -> dict:
        return super().ask(**request | {"side": "ours"})


class Variants(Bench):
    """Processes that take turns: with everything, and without one thing each."""

    def __init__(self, names: list[str], rounds: int, seconds: float) -> None:
        self.names = names
        super().__init__(rounds, seconds)

    def start(self) -> dict[str, Worker]:
        return {name: Variant(name) for name in self.names}

    def worker(self, side: str) -> Worker:
        return self.workers[side]

    def gains(self, row: str) -> dict[str, tuple[float, float]]:
        """The seconds of a step without each name, and the gain."""
        times: dict[str, list[float]] = {name: [] for name in self.workers}
        first = self.workers["all"].ask(do="time", workload=row, steps=None, seconds=self.seconds)
        for _ in range(self.rounds):
            for name in times:
                times[name].append(self.turn(name, row, first["steps"])[0])
        return {
            name: (
                statistics.median(each),
                statistics.median(a / b for a, b in zip(each, times["all"], strict=True)) - 1,
            )
            for name, each in times.items()
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gains", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", action="append", help=f"of {', '.join(row.name for row in TABLE)}")
    parser.add_argument("--without", metavar="NAME", action="append", help=f"of {', '.join(names())}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        leave_out(options.worker)
        sys.argv[1:] = ["ours"]
        with suppress(KeyboardInterrupt):
            worker.main()
        return 0
    left_out, rows = options.without or names(), [row.name for row in TABLE]
    wrong = [*unknown(options.only or [], rows), *(name for name in left_out if name not in names())]
    if reason := mistake(wrong, "--rounds", options.rounds, 1):
        print(reason, file=sys.stderr)
        return 2
    for row in matching(options.only or ["*"], rows):
        with Variants(["all", *left_out], options.rounds, options.seconds) as bench:
            found = bench.gains(row)
        print(
            f"{row}: {1e3 * found.pop('all')[0]:.3f} ms; without "
            + ", ".join(f"{name} {gain:+.1%}" for name, (_, gain) in found.items()),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    run(main)
