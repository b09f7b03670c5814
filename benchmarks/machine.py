"""What the numbers depend on: processor, memory, versions, thread counts; and what else the machine was doing."""

import os
import platform
from pathlib import Path

PACKAGES = {  # side -> name, module, distribution
    "ours": ("mtorch", "mtorch", "mtorch-layers"),
    "sklearn": ("scikit-learn", "sklearn", "scikit-learn"),
    "pydynet": ("pydynet", "pydynet", "pydynet"),
}


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


def measuring_environment(**changes: str) -> dict[str, str]:
    """The caller's environment for a process that is measured, with these changes.

    It lacks OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, with which OpenBLAS computes as on another processor.
    """
    return {key: v for key, v in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")} | changes


def versions(side: str) -> dict[str, str]:
    """Versions, kernels and thread counts of what this process computes with."""
    if side == "torch":
        import torch

        kernel = torch.backends.cpu.get_cpu_capability()
        return {"torch": torch.__version__, "kernel": kernel, "threads": str(torch.get_num_threads())}
    if side == "jax":
        import jax

        return {"jax": jax.__version__, "on": jax.default_backend()}
    import numpy

    found = {}
    if side != "numpy":
        name, module, distribution = PACKAGES[side]
        found[name] = version_of(module, distribution)  # it may load an OpenBLAS of its own
    return found | {"numpy": numpy.__version__, "OpenBLAS": openblas()}


def version_of(module: str, distribution: str) -> str:
    """The version that the module tells, or that of its installation."""
    from importlib import import_module, metadata

    try:
        return getattr(import_module(module), "__version__", None) or metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "from the clone"


def openblas() -> str:
    """Version, kernel and threads of every OpenBLAS in this process, as threadpoolctl finds them."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (pip install threadpoolctl)"
    found = [
        f"{info['version']} (kernel {info['architecture']}, {threads(info['num_threads'])})"
        for info in threadpool_info()
        if info["internal_api"] == "openblas"
    ]
    return " and ".join(dict.fromkeys(found)) or "none"


def threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


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
