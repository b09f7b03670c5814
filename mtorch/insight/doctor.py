"""`python -m mtorch doctor`: what is installed, what works, and the command that mends the rest."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy

import mtorch

PACKAGE = "mtorch-layers"
CLONE = Path(mtorch.__file__).parents[1]
PATIENCE = 120  # seconds for CuPy in a process of its own; a first kernel takes some
MEANING = {
    "plot": "curves and pictures, as the apps draw them, and digits read from photographs",
    "cuda12": "layers on an NVIDIA GPU, by CuPy, with a driver for CUDA 12",
    "cuda13": "layers on an NVIDIA GPU, by CuPy, with a driver for CUDA 13",
    "safetensors": "weights in the file format of other libraries",
    "interop": "weights and nets from and to ONNX, PyTorch and Keras",
    "torch": "nets and optimizers that go to PyTorch and come back",
    "mpi": "batches divided among several machines",
    "docs": "the documentation as a site of pages",
    "test": "the tests: python -m pytest",
    "bench": "the benchmarks beside PyTorch: python -m benchmarks",
    "dev": "what a change is checked with: tests, ruff, mypy",
}


class Finding(NamedTuple):
    """One line of the report; `mend` is the command, or the sentence, that helps where it is not well."""

    name: str
    text: str
    well: bool | None = True  # None for what is only not there
    mend: str = ""


def main() -> int:
    """Prints the report; 0 if the CPU side is well, else 1."""
    parts: dict[str, Callable[[], list[Finding]]] = {
        "versions": versions,
        "processor": processor,
        "graphics processor": graphics,
        "extras": extras,
    }
    mends: list[str] = []
    healthy, any_pip = True, False
    for title, examine in parts.items():
        print(("\n" if title != "versions" else "") + title, flush=True)
        try:
            findings = examine()
        except Exception as error:  # a doctor has no fever
            findings = [Finding("failed", said(error), False, f"please report this: {CLONE / 'CONTRIBUTING.md'}")]
        for finding in findings:
            show(finding)
            any_pip |= finding.well is not True and "pip install" in finding.mend
            if finding.well is False:
                mends += [finding.mend] if finding.mend else []
                healthy &= title not in ("versions", "processor")
    print("\nThe CPU side is well." if healthy else "\nThe CPU side is NOT well.")
    if mends:
        print("To mend what is marked with !!" + (f", in {CLONE}:" if in_clone() else ", in a clone of mtorch:"))
        for mend in dict.fromkeys(mends):
            print(f"    {mend}")
    if any_pip and not pip_is_of_this_python():
        print("\nThe shell's pip may be that of another Python. In its place, write:")
        print(f"    {quoted(sys.executable)} -m pip")
    return 0 if healthy else 1


def show(finding: Finding) -> None:
    sign = {True: "ok", False: "!!", None: "--"}[finding.well]
    lines = [f"{finding.text}", *([f"-> {finding.mend}"] if finding.mend and finding.well is not True else [])]
    head = f"  {sign} {finding.name:<12} "
    for line in lines:
        # a command stays in one line, so that it can be copied
        pieces = (
            [line]
            if line.startswith("-> cd ") or line.startswith("-> ") and len(line) <= 62
            else textwrap.wrap(line, 62, break_on_hyphens=False) or [""]
        )
        for piece in pieces:
            print(head + piece)
            head = " " * len(head)


def said(error: BaseException) -> str:
    text = textwrap.shorten(str(error).partition("\n")[0], 160, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def in_clone() -> bool:
    return (CLONE / "pyproject.toml").is_file()


def quoted(path: Path | str) -> str:
    """A path as a shell takes it."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def pip_is_of_this_python() -> bool:
    """Whether the shell's pip lies beside the Python that runs; not where its environment is not active."""
    pip = shutil.which("pip")
    return pip is not None and Path(pip).parent == Path(sys.executable).parent


def install(extra: str = "") -> str:
    """The command, for a shell in a clone."""
    wanted = f"'.[{extra}]'" if extra else "."
    return f"pip install -e {wanted}"


# ---------------------------------------------------------------------- versions


def versions() -> list[Finding]:
    from mtorch.training.environment import environment

    found = environment()
    enough = sys.version_info >= (3, 11)
    python = Finding("Python", f"{found['python']}, {found['system']}", enough, "" if enough else "install Python 3.11")
    new = tuple(int(part) for part in re.findall(r"\d+", numpy.__version__)[:2]) >= (2, 0)
    return [
        python,
        Finding("mtorch", f"{found['mtorch']}, in {CLONE}"),
        Finding("NumPy", found["numpy"], new, "" if new else install()),
        _package("tqdm", "progress bars", install()),
    ]


def _package(name: str, meaning: str, mend: str) -> Finding:
    version = version_of(name)
    return Finding(name, version or f"not installed: {meaning}", bool(version), mend)


def version_of(name: str) -> str:
    """The version of an installed distribution; "" where there is none."""
    try:
        return metadata.version(name) or "unknown"
    except metadata.PackageNotFoundError:
        return ""


# ---------------------------------------------------------------------- the CPU


def processor() -> list[Finding]:
    from mtorch.training.environment import environment

    found = environment()
    kernel, threads = found["kernel"], found["threads"]
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{found['blas']}, kernel {kernel}, {counted(threads, 'thread')} on {counted(count, 'processor')}"
    blas = Finding("BLAS", text)
    if threads.isdigit() and int(threads) > count:
        blas = Finding(
            "BLAS", f"{text}: more threads than processors slow it down", None, f"export OMP_NUM_THREADS={count}"
        )
    off = found["fast"] == "off"
    fast = Finding("fast bodies", "off, because MTORCH_FAST=0: the reference code runs", None, "unset MTORCH_FAST")
    return [
        blas,
        fast if off else Finding("fast bodies", "on"),
        _tried("product", "float32 and float64 products are exact on whole numbers", product),
        _tried("gradient", "a net's gradients agree with finite differences", gradient),
        _tried("training", "a step of SGD moves the weights to where they belong by hand", training_step),
    ]


def counted(number: int | str, noun: str) -> str:
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"


def _tried(name: str, text: str, check: Callable[[], None]) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check()
    except Exception as error:
        return Finding(name, f"fails: {said(error)}", False, "pip install --force-reinstall --no-cache-dir numpy")
    return Finding(name, text)


def product(xp: Any = numpy) -> None:
    """ValueError where a product of whole numbers is not exact."""
    a = numpy.arange(96 * 64).reshape(96, 64) % 7 - 3
    exact = (a[:, :, None] * a.T[None]).sum(axis=1)
    for dtype in ("float32", "float64"):
        x = xp.asarray(a.astype(dtype))
        y = x.dot(x.T)
        if not numpy.array_equal(numpy.asarray(y.get() if hasattr(y, "get") else y), exact):
            raise ValueError(f"a {dtype} product is wrong")


def gradient() -> None:
    from mtorch.testing import check_gradients

    net = mtorch.Sequential(mtorch.layers.Linear(3, 4, rng=0), mtorch.layers.Tanh(), mtorch.layers.LSTM(4, 2, rng=1))
    check_gradients(net, (3, 2, 3))


def training_step() -> None:
    """y = x W^T + b with W = (1, -1), b = 0 at x = (1, 2), target 1: L = (y - 1)^2 = 4, dW = -4 x, db = -4."""
    layer = mtorch.layers.Linear(2, 1)
    layer.weight.value[...] = [[1.0, -1.0]]
    module = mtorch.Module(layer)
    loss = mtorch.MSELoss(module)(module(numpy.array([[1.0, 2.0]])), numpy.array([[1.0]]))
    loss.backward()
    mtorch.SGD(module, lr=0.125).step()
    found = [loss.value, *layer.weight.value.reshape(-1).tolist(), *layer.parameters()["bias"].value.tolist()]
    if found != [4.0, 1.5, 0.0, 0.5]:
        raise ValueError(f"expected a loss of 4 and weights 1.5, 0, 0.5, got {found}")


# ---------------------------------------------------------------------- the GPU


def graphics() -> list[Finding]:
    version, names = cuda_driver()
    found = cupy_findings(version)
    version, names = version or found.driver, names or found.devices
    if not version:
        gpu = nvidia_on_the_bus()
        text = "an NVIDIA GPU is there, and no driver for it" if gpu else "no NVIDIA GPU, and no driver for one"
        return [Finding("driver", text, False if gpu else None, DRIVER if gpu else ""), *found.findings]
    seen = ", ".join(names) or "no GPU"
    text = f"{seen}; driver{driver_release()}, for CUDA up to {cuda_release(version)}"
    mend = "" if names else "see nvidia-smi, and the variable CUDA_VISIBLE_DEVICES"
    return [Finding("driver", text, bool(names), mend), *found.findings]


DRIVER = "sudo ubuntu-drivers install  # on Ubuntu; elsewhere by NVIDIA's installer"


class CuPyFindings(NamedTuple):
    findings: list[Finding]
    driver: int = 0  # the version that CuPy was told
    devices: list[str] = []


def cuda_release(version: int) -> str:
    """12090 is 12.9."""
    return f"{version // 1000}.{version % 1000 // 10}"


def extra_for(driver: int) -> str:
    """The extra whose CuPy fits that driver (13000 is CUDA 13.0)."""
    return "cuda13" if driver >= 13000 else "cuda12"


def cupy_findings(driver: int) -> CuPyFindings:
    """What is to be said of CuPy, with the driver's version where it is known."""
    installed, known = cupy_packages(), "cupy" in sys.modules
    if not installed and not known and importlib.util.find_spec("cupy") is None:
        here = driver or nvidia_on_the_bus()
        text = "not installed" + ("" if here else ", and there is no GPU that it could run on")
        return CuPyFindings([Finding("CuPy", text, False if here else None, install(extra_for(driver)))])
    listed = ", ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) > 1:
        again = f"pip uninstall -y {' '.join(installed)} && {install(extra_for(driver))}"
        return CuPyFindings([Finding("CuPy", f"packages that overwrite each other: {listed}", False, again)])
    found = probe() if known else probe_elsewhere()
    text = listed or f"cupy {found.get('version', '')}".strip()
    reason, told, devices = found.get("reason", ""), int(found.get("driver") or 0), found.get("devices", [])
    if reason:
        mend = exact(found.get("fix", ""), reason, driver or told, installed)
        return CuPyFindings([Finding("CuPy", f"{text}: {reason}", False, mend)], told, devices)
    works = [
        Finding("CuPy", text),
        Finding("device", found.get("device", "one that does not tell its name")),
        Finding("product", "float32 and float64 products are exact on whole numbers there"),
        Finding("kernel", "a kernel that is new was compiled, and computes there"),
    ]
    return CuPyFindings(works, told, devices)


def exact(fix: str, reason: str, driver: int, installed: dict[str, str]) -> str:
    """The fix with the command that fits this machine in place of the general one."""
    from mtorch.devices import INSTALL

    wanted = extra_for(driver)
    command = install(wanted)
    major = re.search(r"cuda(\d+)x", " ".join(installed))
    if major and wanted != f"cuda{major[1]}":
        command = f"pip uninstall -y {' '.join(installed)} && {command}"
    elif installed and "does not import" in reason:
        command = f"pip uninstall -y {' '.join(installed)} && {command}"
    if INSTALL not in fix:
        return fix
    if driver and driver < 12000:
        return DRIVER
    return command


def cupy_packages() -> dict[str, str]:
    """Every installed distribution that brings the module cupy, and its version."""
    found = {}
    for distribution in metadata.distributions():
        with suppress(Exception):  # a broken one is not ours to judge
            name = distribution.metadata["Name"].lower().replace("_", "-")
            if name == "cupy" or re.fullmatch(r"cupy-(cuda\d+x?|rocm[-\d]*)", name):
                found[name] = distribution.version
    return found


def nvidia_on_the_bus() -> bool:
    """Whether Linux sees a display or 3D controller of NVIDIA, with or without a driver."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with suppress(OSError):
            if (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text()[:4] == "0x03":
                return True
    return False


def driver_release() -> str:
    """The driver's own number, as Linux tells it; "" elsewhere."""
    with suppress(OSError):
        match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", Path("/proc/driver/nvidia/version").read_text())
        return f" {match[1]}" if match else ""
    return ""


def cuda_driver() -> tuple[int, list[str]]:
    """The newest CUDA that the driver knows (12090 is 12.9; 0 without a driver), and the names of the GPUs."""
    import ctypes

    version, count = ctypes.c_int(0), ctypes.c_int(0)
    names: list[str] = []
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if library.cuDriverGetVersion(ctypes.byref(version)) or library.cuInit(0):
            return version.value, names
        library.cuDeviceGetCount(ctypes.byref(count))
        for i in range(count.value):
            text, device = ctypes.create_string_buffer(128), ctypes.c_int(0)
            library.cuDeviceGet(ctypes.byref(device), i)
            library.cuDeviceGetName(text, 128, device)
            names.append(text.value.decode(errors="replace") or f"GPU {i}")
    except (OSError, AttributeError):  # no driver, or one that lacks a function
        names += [f"GPU {i}" for i in range(len(names), count.value)]
    return version.value, names


def probe_elsewhere() -> dict[str, Any]:
    """`probe` in a process of its own: a broken library may end the process that loads it, or wait for ever."""
    code = "import json, sys; from mtorch.insight.doctor import probe; sys.stdout.write('\\n' + json.dumps(probe()))"
    paths = os.pathsep.join(filter(None, [str(CLONE), os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env=os.environ | {"PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"it did not answer within {PATIENCE} seconds", "fix": "see nvidia-smi: the GPU may hang"}
    except OSError as error:
        return {"reason": said(error), "fix": ""}
    try:
        found = json.loads(done.stdout.rpartition("\n")[2])
        return found if isinstance(found, dict) else {}
    except ValueError:
        from mtorch.devices import INSTALL

        last = done.stderr.strip().rpartition("\n")[2]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return {"reason": f"CuPy ends its process ({how}) {last}".strip(), "fix": INSTALL}


def probe() -> dict[str, Any]:
    """What CuPy says here, as text and numbers: its version, driver and device, or the reason why it does not work."""
    from mtorch.devices import CACHE, INSTALL, _found

    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cupy, trouble = _found()
        if cupy is not None:
            found["version"] = str(getattr(cupy, "__version__", ""))
            with suppress(Exception):
                runtime = cupy.cuda.runtime
                found["driver"] = int(runtime.driverGetVersion())
                count = runtime.getDeviceCount()
                found["devices"] = [runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
        if trouble is None:
            try:
                product(cupy)
                fresh_kernel(cupy)
            except OSError as error:
                return found | {"reason": f"its cache of kernels cannot be written ({said(error)})", "fix": CACHE}
            except Exception as error:
                return found | {"reason": said(error), "fix": INSTALL}
            with suppress(Exception):
                found["device"] = device_of(cupy)
            return found
    return found | {"reason": trouble.reason, "fix": trouble.fix}


def fresh_kernel(cupy: Any) -> None:
    """Compiles a kernel that no cache on the disk has."""
    number = int.from_bytes(os.urandom(3), "big")
    kernel = cupy.ElementwiseKernel("int64 x", "int64 y", f"y = x + {number}", f"mtorch_doctor_{number}")
    y = kernel(cupy.asarray(numpy.arange(5)))
    if y.get().tolist() != [number + i for i in range(5)]:
        raise ValueError(f"a compiled kernel computes wrong numbers: {y.get().tolist()}")


def device_of(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    number = cupy.cuda.Device().id
    name = runtime.getDeviceProperties(number)["name"].decode()
    text = f"{name}, CUDA {runtime.runtimeGetVersion() // 1000}.{runtime.runtimeGetVersion() % 1000 // 10}"
    with suppress(Exception):
        free, total = runtime.memGetInfo()
        text += f", {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return text


# ---------------------------------------------------------------------- extras


def extras() -> list[Finding]:
    """What each extra brings, and whether all that it needs is there."""
    found = []
    for extra, requirements in required().items():
        meaning = MEANING.get(extra, "see pyproject.toml")
        parts = [(each, lacking(each)) for each in requirements]
        missing = [lack for _, lack in parts if lack]
        if missing:
            found.append(Finding(extra, f"{meaning}; lacks {', '.join(missing)}", None, install(extra)))
        else:
            there = ", ".join(f"{name_of(each)} {version_of(name_of(each))}" for each, _ in parts)
            found.append(Finding(extra, f"{meaning}: {there}"))
    if any(finding.well is None for finding in found):
        where = f"cd {quoted(CLONE)}" if in_clone() else "clone the repository of mtorch, and cd into it"
        found.append(Finding("", "These commands run in a clone:", None, where))
    return found


def required() -> dict[str, list[str]]:
    """The requirements of each extra: of this clone, else of the installed package."""
    with suppress(OSError, KeyError, tomllib.TOMLDecodeError):
        return tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found: dict[str, list[str]] = {}
    with suppress(metadata.PackageNotFoundError):
        for line in metadata.requires(PACKAGE) or []:
            if match := re.search(r"extra\s*==\s*['\"]([^'\"]+)", line):
                found.setdefault(match[1], []).append(line.partition(";")[0].strip())
    return found


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]


def lacking(requirement: str) -> str:
    """The requirement, or what is too old of it; "" where it is met."""
    name = name_of(requirement)
    version = version_of(name)
    if not version:
        return name
    wanted = re.search(r"(>=|==)\s*([\d.]+)", requirement)
    if wanted:
        have, want = ([int(n) for n in re.findall(r"\d+", text)] for text in (version, wanted[2]))
        if (wanted[1] == ">=" and have < want) or (wanted[1] == "==" and have[: len(want)] != want):
            return f"{name} {wanted[1]} {wanted[2].rstrip('.')} (here {version})"
    return ""
