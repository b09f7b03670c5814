"""What is said where CuPy is installed and does not compute: a CuPy that fails as the real one does, step by step."""

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy
import pytest

from apps.mnist.__main__ import main as mnist
from apps.rnn_sin_cos.__main__ import main as sine
from mtorch import Sequential, layers
from mtorch.arrays import module_for
from mtorch.devices import describe_device
from mtorch.layers import Linear
from mtorch.testing import strict


class FakeError(RuntimeError):
    """CUDA's errors are RuntimeErrors too."""


def fail(text: str):
    def raises(*args, **kwargs):
        raise FakeError(text)

    return raises


class FakeCuPy(ModuleType):
    """CuPy as far as the check of a device goes, on top of the strict module."""

    def __init__(self, **failing):
        super().__init__("cupy")
        self.runtime = SimpleNamespace(
            driverGetVersion=lambda: 12090,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda device: {"name": b"Fake 1000"},
        )
        self.cuda = SimpleNamespace(
            Device=strict.cuda.Device,
            runtime=self.runtime,
            nvrtc=SimpleNamespace(getVersion=lambda: (12, 9)),
            is_available=lambda: True,
        )
        self.ndarray, self.asarray = strict.ndarray, strict.asarray
        self.ElementwiseKernel = lambda *source: lambda x: 2 * x + 1
        for name, function in failing.items():
            owner = self.runtime if hasattr(self.runtime, name) else self.cuda.nvrtc if name == "getVersion" else self
            setattr(owner, name, function)


NVRTC = 'Failure finding "libnvrtc.so.12": No such file: libnvrtc.so.12\nand a page of where it was looked for'
TROUBLES = {
    "no driver": ({"driverGetVersion": lambda: 0}, "no CUDA driver", "install NVIDIA's driver"),
    "no GPU": (
        {"getDeviceCount": fail("cudaErrorNoDevice: no")},
        "the CUDA driver finds no GPU",
        "CUDA_VISIBLE_DEVICES",
    ),
    "an empty machine": ({"getDeviceCount": lambda: 0}, "the CUDA driver finds no GPU", "CUDA_VISIBLE_DEVICES"),
    "an old driver": ({"asarray": fail("cudaErrorInsufficientDriver: old")}, "driver is too old", "update the driver"),
    "no cuBLAS": ({"asarray": fail("no libcublas")}, r"CuPy cannot multiply matrices \(no libcublas\)", r"\[cuda12\]"),
    "no NVRTC": ({"getVersion": fail(NVRTC)}, "CuPy cannot find NVRTC, CUDA's compiler .*libnvrtc", r"\[cuda12\]"),
    "no headers": ({"ElementwiseKernel": fail("no cuda_fp16.h")}, "CuPy cannot compile a kernel", r"\[cuda12\]"),
    "no message": ({"ElementwiseKernel": fail("")}, r"compile a kernel \(FakeError\)", r"\[cuda12\]"),
    "wrong numbers": ({"ElementwiseKernel": lambda *a: lambda x: x}, "CuPy computes wrong numbers", r"\[cuda12\]"),
}


@pytest.fixture(params=TROUBLES.values(), ids=TROUBLES)
def broken(request, monkeypatch):
    failing, reason, fix = request.param
    cupy = FakeCuPy(**failing)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy, reason, fix


def one_line(error) -> bool:
    return "\n" not in str(error.value) and error.type is RuntimeError


def test_auto_goes_on_with_numpy_and_says_why(broken):
    _, reason, _ = broken
    assert module_for("auto") is numpy
    assert describe_device(numpy, "cpu") == "NumPy on the CPU"
    assert re.search(f"^NumPy on the CPU, .*{reason}", describe_device(numpy, "auto"))


def test_a_gpu_that_is_asked_for_is_an_error_of_one_line_that_names_the_fix(broken):
    _, reason, fix = broken
    with pytest.raises(RuntimeError, match=f"no GPU here: .*{reason}.*: .*{fix}") as error:
        module_for("gpu")
    assert one_line(error)


def test_layers_on_a_cupy_that_does_not_compute_name_the_fix(broken):
    cupy, reason, fix = broken
    net = Sequential(Linear(3, 2))
    for make in (
        lambda: Linear(3, 2, xp=cupy),
        lambda: layers.Tanh(xp=cupy),
        lambda: layers.on(cupy).LSTM(3, 2),
        lambda: net.to(cupy),
    ):
        with pytest.raises(RuntimeError, match=f"cannot live on CuPy here: .*{reason}.*: .*{fix}") as error:
            make()
        assert one_line(error)
    assert net.predict(numpy.ones((1, 3))).shape == (1, 2)


@pytest.mark.parametrize("trouble", ["no driver", "no NVRTC"])
def test_both_apps_end_in_one_line_or_go_on_with_numpy(trouble, tmp_path, capsys, monkeypatch):
    failing, reason, fix = TROUBLES[trouble]
    monkeypatch.setitem(sys.modules, "cupy", FakeCuPy(**failing))
    for main, few in ((mnist, ["train", "--data", "digits", "--epochs", "0"]), (sine, ["--steps", "0"])):
        monkeypatch.setattr(f"apps.{main.__module__.split('.')[1]}.train.pictures", lambda *_: None)
        assert main([*few, "--device", "gpu", "--out", str(tmp_path / "gpu")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and re.search(f"^error: no GPU here: .*{reason}.*: .*{fix}", err)
        assert main([*few, "--device", "auto", "--out", str(tmp_path / main.__module__)]) == 0
        first = "\n".join(capsys.readouterr().out.splitlines()[:2])
        assert re.search(f"^device: NumPy on the CPU, .*{reason}", first, re.MULTILINE)


def test_a_cupy_that_computes_is_taken(monkeypatch):
    cupy = FakeCuPy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert module_for("auto") is module_for("gpu") is cupy
    assert describe_device(cupy, "auto") == "CuPy on Fake 1000"


def test_without_cupy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed: pip install -e '\.\[cuda12\]'"):
        module_for("gpu")
    assert describe_device(module_for("auto"), "auto") == "NumPy on the CPU, CuPy is not installed"


def test_a_cupy_that_does_not_import_is_told_too(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("import numpy\nraise OSError('libcuda.so.1 is broken')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "CuPy does not import (libcuda.so.1 is broken)" in describe_device(module_for("auto"), "auto")
