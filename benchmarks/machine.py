"""What the numbers depend on: processor, memory, versions, thread counts; and what else the machine was doing."""

import ctypes
import os
import platform
from pathlib import Path


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, str]:
    name = platform.processor() or platform.machine()
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        name = fields.get("model name", name)
        flags = set(fields.get("flags", "").split())
        name += "".join(f", {flag}" for flag in ("avx2", "avx512f") if flag in flags)
        memory = f"{int(Path('/proc/meminfo').read_text().split()[1]) / 2**20:.0f} GiB"
    except (OSError, ValueError):
        memory = "unknown"
    return {
        "processor": name,
        "cores": str(cores()),
        "memory": memory,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions(side: str) -> dict[str, str]:
    """Version and thread count of what this process computes with."""
    if side == "torch":
        import torch

        return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}
    import numpy

    found = {"numpy": numpy.__version__, "threads": blas_threads()}
    if side == "ours":
        import mtorch

        found["mtorch"] = getattr(mtorch, "__version__", "from the clone")
    return found


def blas_threads() -> str:
    """Asks the BLAS that NumPy has loaded; 'default' where it cannot be asked."""
    try:
        paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "openblas" in line}
        library = ctypes.CDLL(paths.pop())
        for name in (
            "scipy_openblas_get_num_threads64_",
            "scipy_openblas_get_num_threads",
            "openblas_get_num_threads64_",
            "openblas_get_num_threads",
        ):
            if hasattr(library, name):
                return str(getattr(library, name)())
    except (OSError, KeyError):
        pass
    return "default"


def memory_kb(field: str) -> int:
    """VmRSS (memory now) or VmHWM (its peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")


def process_seconds(pid: int) -> float:
    """Processor time of a process, its threads and the processes it started, 0 where the system does not tell."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        ended = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]))
        known = [task / "children" for task in tasks if (task / "children").exists()]  # not every kernel tells
        children = [child for path in known for child in path.read_text().split()]
    except OSError:
        return 0.0
    return own + ended / os.sysconf("SC_CLK_TCK") + sum(map(process_seconds, map(int, children)))


def busy_seconds() -> float:
    """Processor time of everything on this machine, 0 where the system does not tell."""
    try:
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0
