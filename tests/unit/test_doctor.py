"""`python -m mtorch doctor`: what it finds where something is missing or broken, and the command that it names.

Most failures are injected by a cupy of a few lines, which behaves as the real one does there; those marked `gpu` are
injected into the real CuPy on the CUDA of tools/hostcuda.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtorch
from mtorch.insight import doctor

ROOT = Path(mtorch.__file__).parents[1]

FAKE = """
import os
import sys
from types import SimpleNamespace
import numpy
from numpy import *

__version__ = "14.0.0"

class CUDARuntimeError(RuntimeError):
    pass

class OutOfMemoryError(MemoryError):
    pass

def fail(error):
    def raises(*args, **options):
        raise error
    return raises

class ndarray(numpy.ndarray):
    def get(self):
        return numpy.array(self)

def asarray(x, dtype=None):
    return numpy.asarray(x, dtype=dtype).view(ndarray)

def ElementwiseKernel(ins, outs, source, name):
    return lambda x: eval(source.partition("=")[2], {"x": x})

runtime = SimpleNamespace(
    driverGetVersion=lambda: 12090,
    runtimeGetVersion=lambda: 12090,
    getDeviceCount=lambda: 1,
    getDeviceProperties=lambda device: {"name": b"Fake 1000"},
    memGetInfo=lambda: (2**30, 2**31),
)
cuda = SimpleNamespace(
    runtime=runtime,
    nvrtc=SimpleNamespace(getVersion=lambda: (12, 9)),
    Device=lambda *number: SimpleNamespace(id=0),
)
"""
NVRTC = '"Failure finding \\"libnvrtc.so.12\\": No such file: libnvrtc.so.12"'

# What is appended to that cupy, the packages that are installed, what is said, and the command that is named.
FAILURES = {
    "no CuPy": (None, [], r"CuPy +not installed", r"pip install -e '\.\[cuda12\]'"),
    "two CuPy packages": (
        "",
        ["cupy-cuda12x", "cupy-cuda13x"],
        r"packages that overwrite each other: cupy-cuda12x 14\.0\.0, cupy-cuda13x",
        r"pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install -e '\.\[cuda12\]'",
    ),
    "no driver": ("runtime.driverGetVersion = lambda: 0", ["cupy-cuda12x"], "no CUDA driver", "install NVIDIA's"),
    "no toolkit": (
        f"cuda.nvrtc.getVersion = fail(RuntimeError({NVRTC}))",
        ["cupy-cuda12x"],
        "cannot find NVRTC, CUDA's compiler",
        r"pip install -e '\.\[cuda12\]'",
    ),
    "no headers": (
        'ElementwiseKernel = fail(RuntimeError("catastrophic error: cannot open source file cuda_fp16.h"))',
        ["cupy-cuda12x"],
        "cannot compile a kernel .*cuda_fp16.h",
        r"pip install -e '\.\[cuda12\]'",
    ),
    "no cuBLAS": (
        'asarray = fail(ImportError("libcublas.so.12: cannot open shared object file"))',
        ["cupy-cuda12x"],
        "cannot multiply matrices .*libcublas",
        r"pip install -e '\.\[cuda12\]'",
    ),
    "wrong CUDA major": (
        'asarray = fail(CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))',
        ["cupy-cuda13x"],
        "driver is too old for this CuPy",
        r"pip uninstall -y cupy-cuda13x && pip install -e '\.\[cuda12\]'",
    ),
    "old driver": (
        'runtime.driverGetVersion = lambda: 11040\nasarray = fail(CUDARuntimeError("cudaErrorInsufficientDriver"))',
        ["cupy-cuda12x"],
        "driver is too old for this CuPy",
        "sudo ubuntu-drivers install",
    ),
    "no device": (
        'runtime.getDeviceCount = fail(CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"))',
        ["cupy-cuda12x"],
        "the CUDA driver finds no GPU",
        "see nvidia-smi",
    ),
    "no memory": (
        'asarray = fail(OutOfMemoryError("Out of memory allocating 512 bytes"))',
        ["cupy-cuda12x"],
        "the GPU has no memory left",
        "nvidia-smi",
    ),
    "read-only kernel cache": (
        'ElementwiseKernel = fail(OSError(30, "Read-only file system", "/home/me/.cupy"))',
        ["cupy-cuda12x"],
        "cannot write its cache of kernels .*Read-only file system",
        r"export CUPY_CACHE_DIR=\$\(mktemp -d\)",
    ),
    "read-only home": (
        'raise OSError(30, "Read-only file system", "/home/me/.cupy")',
        ["cupy-cuda12x"],
        "cannot write its cache of kernels",
        r"export CUPY_CACHE_DIR=\$\(mktemp -d\)",
    ),
    "a wheel for another Python": (
        'raise ImportError("cupy/_core/core.so: undefined symbol")',
        ["cupy-cuda12x"],
        "does not import .*undefined symbol",
        r"pip uninstall -y cupy-cuda12x && pip install -e '\.\[cuda12\]'",
    ),
    "a library that ends the process": (
        "os.abort()", ["cupy-cuda12x"], r"CuPy ends its process \(signal 6\)", r"pip install -e '\.\[cuda12\]'"
    ),
    "wrong numbers": (
        "ElementwiseKernel = lambda *source: lambda x: x", ["cupy-cuda12x"], "computes wrong numbers", r"pip install"
    ),
}  # fmt: skip


def report(*paths: Path, **more: str) -> subprocess.CompletedProcess:
    places = os.pathsep.join(map(str, [*paths, ROOT, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "mtorch", "doctor"]
    environment = os.environ | {"PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"} | more
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def joined(text: str) -> str:
    """The report with its wrapped lines in one."""
    return re.sub(r"\n {18}", " ", text)


def line_of(text: str, name: str = "CuPy") -> str:
    return next(line for line in joined(text).splitlines() if f" {name} " in line)


def install(folder: Path, source: str | None, packages: list[str], monkeypatch) -> None:
    """Makes that cupy importable: in this process at once, unless it raises or ends the process."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    if source is not None:
        (folder / "cupy.py").write_text(FAKE + source)
        if "raise " not in source and "abort" not in source:
            importlib.import_module("cupy")
    for name in packages:
        info = folder / f"{name.replace('-', '_')}-14.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.0.0\n")


@pytest.fixture(scope="module")
def packages_here():
    return doctor.cupy_packages()


@pytest.fixture
def alone(packages_here, monkeypatch):
    """No CuPy and no driver but those of the test."""
    if packages_here:
        pytest.skip("a CuPy is installed here, which a false one would stand beside")
    monkeypatch.setattr(doctor, "cuda_driver", lambda: (0, []))
    for part in ("versions", "processor"):
        monkeypatch.setattr(doctor, part, lambda: [])


@pytest.mark.parametrize("source, packages, says, mends", FAILURES.values(), ids=FAILURES)
def test_a_failure_is_named_with_the_command_that_mends_it(
    source, packages, says, mends, alone, tmp_path, monkeypatch, capsys
):
    install(tmp_path, source, packages, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "extras", lambda: [])
    assert doctor.main() == 0
    out, err = capsys.readouterr()
    line = line_of(out)
    assert re.search(says, line) and re.search(f"-> .*{mends}", line), line
    assert err == "" and "Traceback" not in out and "The CPU side is well." in out
    assert max(map(len, out.splitlines())) <= 80
    assert not any(f"install {name}" in out for name in ("mtorch", "'mtorch"))


def test_a_cupy_that_works_is_reported_with_its_device(alone, tmp_path, monkeypatch, capsys):
    install(tmp_path, "", ["cupy-cuda12x"], monkeypatch)
    assert doctor.main() == 0
    text = joined(capsys.readouterr().out)
    assert re.search(r"ok driver +Fake 1000; driver.*, for CUDA up to 12\.9", text)
    assert re.search(r"ok CuPy +cupy-cuda12x 14\.0\.0", text)
    assert re.search(r"ok device +Fake 1000, CUDA 12\.9, 1\.0 of 2\.0 GiB free", text)
    assert re.search("ok product", text) and re.search("ok kernel", text)
    assert re.search(r"ok cuda12 .*cupy-cuda12x 14\.0\.0", text) and "!!" not in text


def test_the_report_has_versions_blas_and_every_extra_with_what_it_brings():
    done = report()
    text = joined(done.stdout)
    assert done.returncode == 0
    for name in ("Python", "mtorch", "NumPy", "tqdm", "BLAS", "driver", "CuPy"):
        assert re.search(rf"^  (ok|--|!!) {name} ", text, re.MULTILINE), name
    assert re.search(r"BLAS +.+, kernel .+, .+ threads? on \d+ processors?", text)
    for extra in doctor.required():
        line = next(line for line in text.splitlines() if line[5:].startswith(f"{extra} "))
        assert "see pyproject.toml" not in line, f"doctor.MEANING says nothing of {extra}"
        assert line.startswith("  ok") or f"-> {doctor.install(extra)}" in line


def test_a_broken_cpu_side_is_status_1_and_no_traceback(tmp_path):
    """A sitecustomize that breaks the update of the weights."""
    (tmp_path / "sitecustomize.py").write_text(
        "import mtorch.parameter\nmtorch.parameter.Parameter.step = lambda self, lr: None\n"
    )
    done = report(tmp_path, MTORCH_FAST="0")
    text = joined(done.stdout)
    assert done.returncode == 1 and "Traceback" not in text + done.stderr
    assert re.search(r"!! training +fails: ValueError: expected a loss of 4", text) and "NOT well" in text
    assert "pip install --force-reinstall" in text


def test_a_check_that_fails_itself_is_a_finding(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "extras", lambda: 1 / 0)
    monkeypatch.setattr(doctor, "graphics", lambda: [])
    assert doctor.main() == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_commands_can_be_copied_with_a_space_in_a_path_and_the_environment_not_active(monkeypatch, tmp_path, capsys):
    """What the shell calls pip installs for another Python, until the environment is activated."""
    for part in ("versions", "processor", "graphics"):
        monkeypatch.setattr(doctor, part, lambda: [])
    clone, python, elsewhere = tmp_path / "my clone", tmp_path / "my env" / "python", tmp_path / "elsewhere"
    for folder in (clone, python.parent, elsewhere):
        folder.mkdir()
    (clone / "pyproject.toml").write_text('[project.optional-dependencies]\nplot = ["qqqq"]\n')
    monkeypatch.setattr(doctor, "CLONE", clone)
    monkeypatch.setattr(doctor.sys, "executable", str(python))
    for folder, here in ((python.parent, True), (elsewhere, False)):
        monkeypatch.setattr(doctor.shutil, "which", lambda name, folder=folder: str(folder / name))
        assert doctor.main() == 0
        text = capsys.readouterr().out
        assert f"-> cd {doctor.quoted(clone)}\n" in text and doctor.quoted(clone)[0] in "\"'"
        assert (f"{doctor.quoted(python)} -m pip" in text) is not here


def test_without_a_clone_the_extras_come_from_the_installed_package(monkeypatch, tmp_path):
    lines = ["numpy>=2.0", 'matplotlib>=99; extra == "plot"', "pillow; extra == 'plot'"]
    monkeypatch.setattr(doctor, "CLONE", tmp_path)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    assert doctor.required() == {"plot": ["matplotlib>=99", "pillow"]}
    monkeypatch.setattr(doctor, "version_of", lambda name: "3.11")
    assert doctor.lacking("matplotlib>=99") == "matplotlib >= 99 (here 3.11)"
    assert doctor.lacking("matplotlib>=3.9") == doctor.lacking("ruff==3.11.*") == doctor.lacking("cupy[ctk]>=3") == ""


# ---------------------------------------------------------------------- the real CuPy, on the CUDA of tools/hostcuda


@pytest.fixture
def hostcuda():
    if "HOSTCUDA_KERNELS" not in os.environ:
        pytest.skip("needs tools/hostcuda: . .cache/hostcuda/activate")


@pytest.mark.gpu
def test_real_cupy_works_on_the_host(hostcuda):
    done = report()
    assert done.returncode == 0
    assert re.search("ok device +CUDA on the host", done.stdout) and re.search("ok kernel ", done.stdout)


def without_nvrtc(tmp_path: Path) -> dict[str, str]:
    for library in Path(os.environ["LD_LIBRARY_PATH"]).iterdir():
        if "nvrtc" not in library.name:
            (tmp_path / library.name).symlink_to(library)
    loaded = " ".join(name for name in os.environ["LD_PRELOAD"].split() if "nvrtc" not in name)
    return {"LD_LIBRARY_PATH": str(tmp_path), "LD_PRELOAD": loaded}


REAL = {
    "no device": (lambda tmp: {"HOSTCUDA_DEVICES": "0"}, "finds no GPU", "nvidia-smi"),
    "no memory": (lambda tmp: {"CUPY_GPU_MEMORY_LIMIT": "1"}, "no memory left", "nvidia-smi"),
    "no folder for kernels": (
        lambda tmp: {"CUPY_CACHE_DIR": "/dev/null/x"}, "cannot write its cache", "CUPY_CACHE_DIR="
    ),
    "a folder that cannot be written": (
        lambda tmp: {"CUPY_CACHE_DIR": "/proc"}, "cannot write its cache", "CUPY_CACHE_DIR="
    ),
    "no NVRTC": (without_nvrtc, "cannot find NVRTC", r"pip install -e '\.\[cuda12\]'"),
}  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("change, says, mends", REAL.values(), ids=REAL)
def test_real_cupy_that_fails_is_named_with_what_mends_it(change, says, mends, hostcuda, tmp_path):
    done = report(**change(tmp_path))
    line = line_of(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(says, line) and re.search(f"-> .*{mends}", line), line
