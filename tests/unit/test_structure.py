"""The shape of the source: which way imports point, how long files are, and that every module says what it is."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import mtorch

ROOT = Path(mtorch.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LOW = {"accelerate", "errors", "checks", "arrays", "parameter", "initializers", "kernels",
       "layer", "container", "math"}
CONTAINERS = {"sequential", "residual", "fork", "bidirectional", "unroll"}
ALLOWED = {
    "errors": set(),
    "checks": set(),
    "arrays": set(),
    "initializers": {"checks"},
    "parameter": {"arrays", "checks", "errors"},
    "kernels": {"arrays", "kernels", "math"},
    "layer": {"accelerate", "arrays", "checks", "errors", "kernels", "parameter"},
    "container": {"arrays", "kernels", "layer", "parameter"},
    "math": {"arrays", "math"},
    "layers": LOW | {"layers"},
    **{name: LOW | CONTAINERS | {"layers"} for name in CONTAINERS},
    "graph": LOW | {"layers", "graph"},
    "losses": {"accelerate", "arrays", "checks", "errors", "kernels", "layer", "losses", "math"},
    "optim": {"accelerate", "arrays", "checks", "kernels", "layer", "parameter", "optim"},
    "data": {"arrays", "checks", "data", "errors", "initializers"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path, nested: bool = False) -> set[str]:
    """What a file imports at its top level, by its full name (with `nested`, inside functions too)."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if nested else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" if node.module == "mtorch" else node.module for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("mtorch.")}
    if package in ALLOWED:
        assert inside <= ALLOWED[package], f"{name_of(path)} imports {inside - ALLOWED[package]}"
    for name in imports(path, nested=True):
        assert name.split(".")[0] not in ("apps", "tests", "benchmarks"), f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name_of(path)} has no docstring"


def test_only_arrays_and_kernels_may_name_cupy():
    for path in FILES:
        if path.name != "arrays.py" and not {"kernels", "fast", "parallel"} & set(path.parts):
            assert not any(name.split(".")[0] == "cupy" for name in imports(path, nested=True)), name_of(path)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] in ("layers", "losses")], ids=name_of
)
def test_layers_compute_with_their_own_array_module(path):
    """numpy is there for dtype queries and type hints only."""
    allowed = {"ndarray", "integer", "dtype", "finfo", "float32", "float64", "floating", "generic", "random", "bool_"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("numpy", "np"):
            assert node.attr in allowed, f"{name_of(path)}:{node.lineno} calls numpy.{node.attr}"


def test_layer_files_stay_short():
    lengths = {p.name: len(p.read_text().splitlines()) for p in (ROOT / "layers").glob("*.py")}
    assert max(lengths.values()) <= 200, max(lengths, key=lengths.get)
    assert statistics.median(lengths.values()) <= 80


def test_a_class_is_abstract_or_final():
    from harness import final_classes

    from mtorch import Layer

    final = final_classes(Layer)
    assert all("forward" in dir(cls) for cls in final)
    for cls in final:
        for base in cls.__mro__[1:]:
            assert base not in final


def test_importing_mtorch_imports_numpy_and_little_else():
    code = "import sys, mtorch; print([m for m in ('tqdm', 'cupy', 'torch', 'matplotlib', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_no_layer_class_looks_up_attributes_by_itself():
    """With __getattr__ in a class Python reads every attribute the slow way: a tenth of a small net's step."""
    assert not hasattr(mtorch.Layer, "__getattr__")
    assert mtorch.Layer.__getattribute__ is object.__getattribute__ and mtorch.Layer.__setattr__ is object.__setattr__
