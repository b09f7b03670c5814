"""What all workloads share: the record, the data and the initial values that every side starts from."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

FLOORS = ("floor", "passes")  # the matrix products alone, the passes over memory alone
PARTS = (*FLOORS, "calls")  # of a step: those, and the bare NumPy calls of its time steps as we make them
OTHERS = ("torch", "jax", "sklearn", "pydynet")  # what a user would pick instead
SIDES = ("ours", "torch", "numpy", *OTHERS[1:], *PARTS)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
Step = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """One step, written for several sides.

    A side is a function that builds net, loss, optimizer and batch, and returns `step()`; a step does forward, loss
    value, backward and update, and returns the loss as a float (inference: the output). `goals` are upper bounds of
    the ratio of our time to the other side's. `equal` is False where the sides do not compute the same: BatchNorm
    in several processes has the statistics of each one's samples. `differs` says of single sides what they compute
    instead. `settle`: seconds of steps before any is timed.
    """

    name: str
    title: str
    sides: dict[str, Callable[[], Step]]
    goals: dict[str, float] = field(default_factory=dict)
    equal: bool = True
    settle: float = 0.0
    differs: dict[str, str] = field(default_factory=dict)


def in_processes(workload: Workload, ours: Callable[[], Step], equal: bool = True) -> Workload:
    """The row below that of a workload: the same step, with our net as a `DataParallel`.

    A fork starts the threads of OpenBLAS anew, which spin at first, on cores that the processes want.
    """
    sides = {"ours": ours, "torch": workload.sides["torch"]}
    goals = {side: goal for side, goal in workload.goals.items() if side in sides}
    return Workload(f"{workload.name}-parallel", "the same, as DataParallel", sides, goals, equal, settle=0.2)


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Initial values by name and shape alone, so that every side draws the same ones without knowing the others."""
    values = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if len(shape) > 1:
            gain = 1 / 3 if "_ih_" in name or "_hh_" in name else 2  # torch's for recurrent weights, else He's
            draw *= math.sqrt(gain / math.prod(shape[1:]))
        else:
            draw = 0.1 * draw + (1.0 if name.rpartition(".")[2] == "weight" else 0.0)
        values[name] = on_cache_line(draw.astype(np.float32))
    return values


def fill_recurrent(kind: str, size: tuple[int, int, int, int]) -> list[np.ndarray]:
    """The values of a recurrent layer and the Linear after it: for x, for h, their two biases; weight and bias."""
    _, _, d, h = size
    gates = GATES[kind] * h
    return list(
        fill(
            {
                "0.weight_ih_l0": (gates, d),
                "0.weight_hh_l0": (gates, h),
                "0.bias_ih_l0": (gates,),
                "0.bias_hh_l0": (gates,),
                "1.weight": (d, h),
                "1.bias": (d,),
            }
        ).values()
    )


def on_cache_line(x: np.ndarray) -> np.ndarray:
    """A copy whose memory begins on a cache line, as PyTorch's own does: luck with addresses is 10 % of a small net."""
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def fill_ours(module):
    """Give an mtorch module the common values."""
    state = module.state_dict()
    state.update(fill({name: parameter.value.shape for name, parameter in module.parameters().items()}))
    module.load_state_dict(state)
    return module


def divided(net, axis=0):
    """Our net with its batches divided among as many processes as there are cores."""
    from mtorch import DataParallel

    return DataParallel(net, axis=axis)


def fill_torch(net, rename: Callable[[str], str] = str):
    """Give a torch net the common values; `rename` turns a name of torch's into ours where they differ."""
    import torch

    named = dict(net.named_parameters())
    values = fill({rename(name): tuple(parameter.shape) for name, parameter in named.items()})
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(values[rename(name)]))
    return net


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """A float32 input like a standardised image or sequence."""
    return on_cache_line(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def labels(count: int, classes: int = 10) -> np.ndarray:
    """Random class labels."""
    return np.random.default_rng(1).integers(0, classes, count)
