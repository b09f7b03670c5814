"""The functions of `mtorch.interop` by name, each imported when it is first asked for."""

import subprocess
import sys

import numpy
import pytest

from mtorch import SGD, interop, layers


@pytest.mark.parametrize("name", interop.__all__)
def test_every_name_is_a_function_of_its_own_name(name):
    function = getattr(interop, name)
    assert callable(function) and function.__name__ == name and function.__doc__


def test_the_table_imports_no_other_library():
    code = "import sys, mtorch.interop; print([m for m in ('torch', 'onnx', 'keras', 'h5py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match="no attribute 'to_jax': it has .*from_torch, "):
        interop.to_jax  # noqa: B018


@pytest.mark.parametrize(
    "call",
    [
        lambda: interop.to_torch(layers.Linear(2, 2)),
        lambda: interop.to_torch_state_dict(layers.Linear(2, 2)),
        lambda: interop.to_torch_optimizer_state(SGD(layers.Linear(2, 2), 0.1)),
        lambda: interop.from_torch(None),
    ],
)
def test_without_torch_the_extra_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"mtorch.interop.\w+ needs PyTorch: pip install -e '.\[torch\]'"):
        call()


def test_a_state_dict_of_arrays_needs_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    state = interop.from_torch_state_dict({"weight": numpy.ones((2, 2), "float32")})
    assert state["weight"].dtype == "float32"
