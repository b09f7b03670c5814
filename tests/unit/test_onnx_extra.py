"""ONNX is an extra: `import mtorch` leaves it alone, and without it one line says what to install."""

import subprocess
import sys

import pytest

from mtorch import interop, layers

FREE = """
import sys
import mtorch, mtorch.interop
from mtorch.interop import export_onnx, import_onnx
assert not {"onnx", "onnxruntime", "google.protobuf"} & set(sys.modules)
"""


def test_importing_the_functions_imports_no_onnx():
    subprocess.run([sys.executable, "-c", FREE], check=True)


@pytest.mark.parametrize("call", ["import", "export"])
def test_without_onnx_one_line_says_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^ONNX files need the package onnx: pip install -e '\.\[interop\]'$"):
        if call == "import":
            interop.import_onnx(tmp_path / "net.onnx")
        else:
            interop.export_onnx(layers.ReLU(), tmp_path / "net.onnx", [[1.0]])


def test_names_of_the_package():
    assert {"OnnxError", "export_onnx", "import_onnx"} <= set(dir(interop))
    with pytest.raises(AttributeError, match="export_onnx"):
        _ = interop.exprot_onnx
