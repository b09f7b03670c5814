"""The shape of the source: which way imports point, what every module is, and which words it uses."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtorch

ROOT = Path(mtorch.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LOWEST = {"accelerate", "arrays", "checks", "deferred", "devices", "errors", "initializers", "keywords", "operators"}
LOWEST |= {"outputs", "parameter"}
LOW = LOWEST | {"math", "tree", "layer", "guards", "states", "container", "last_forward"}
CONTAINERS = {"sequential", "residual", "fork", "bidirectional", "unroll"}
MIDDLE = LOW | CONTAINERS | {"layers", "losses", "optim"}
NETS = MIDDLE | {"graph", "module"}

# The arrows: what a module or folder may import at its top level. They point down.
ALLOWED = {
    "errors": set(),
    "checks": set(),
    "keywords": set(),
    "accelerate": set(),
    "blas": set(),
    "initializers": {"arrays", "checks"},
    "devices": set(),
    "arrays": {"checks", "devices", "errors"},
    "deferred": {"arrays"},
    "parameter": {"accelerate", "arrays", "checks", "errors", "operators"},
    "operators": set(),
    "outputs": {"arrays"},
    "math": {"accelerate", "arrays", "checks", "math"},
    "guards": LOWEST,
    "last_forward": {"guards"},
    "tree": LOWEST,
    "states": LOWEST | {"guards", "last_forward"},
    "layer": LOWEST | {"guards", "states", "tree"},
    "container": LOWEST | {"guards", "layer"},
    "layers": LOW | {"layers", "aliases"},
    **{name: LOW | {"layers"} for name in CONTAINERS},
    "losses": LOW | {"losses"},
    "optim": LOW | {"optim"},
    "aliases": {"errors", "insight", "layers"},
    "data": LOWEST | {"data"},
    "graph": MIDDLE | {"graph"},
    "module": MIDDLE | {"graph"},
    "models": MIDDLE,
    "checkpoint": MIDDLE | {"checkpoint"},
    **{name: NETS | {name} for name in ("insight", "interop", "testing")},
    "parallel": NETS | {"fast", "parallel"},
    "training": NETS | {"blas", "checkpoint", "data", "insight", "parallel", "training"},
    "fast": LOW | CONTAINERS | {"layers", "losses", "optim", "fast", "blas"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def first_of(path: Path) -> str:
    """The folder of a file, or the file itself, in the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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


def parts_of_the_package(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("mtorch.")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    part = first_of(path)
    if part in ALLOWED:
        beyond = parts_of_the_package(imports(path)) - ALLOWED[part]
        assert not beyond, f"{name_of(path)} imports {beyond}"
    for name in imports(path, nested=True):
        assert name.split(".")[0] not in ("apps", "tests", "benchmarks", "tools"), f"{name_of(path)} imports {name}"


def test_every_part_of_the_package_has_its_arrows():
    assert {first_of(path) for path in FILES} <= {*ALLOWED, "__init__", "__main__"}


def test_nobody_imports_a_fast_body_but_the_package_itself():
    """`parallel/` shares the threads, which are no body."""
    for path in FILES:
        if first_of(path) not in ("fast", "parallel", "__init__"):
            assert "fast" not in parts_of_the_package(imports(path, nested=True)), name_of(path)
    assert "fast" in parts_of_the_package(imports(ROOT / "__init__.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name_of(path)} has no docstring"


def test_only_arrays_the_doctor_and_fast_and_parallel_code_name_cupy():
    for path in FILES:
        if first_of(path) not in ("arrays", "fast", "parallel") and name_of(path) != "insight.doctor":
            found = {name for name in imports(path, nested=True) if name.split(".")[0] in ("cupy", "cupyx")}
            assert not found, name_of(path)


def test_layers_containers_and_losses_compute_with_their_own_array_module():
    """numpy is there for dtype queries and type hints only."""
    allowed = {"ndarray", "integer", "dtype", "finfo", "float32", "float64", "floating", "generic", "random", "bool_"}
    places = [path for path in FILES if first_of(path) in {"layers", "losses", "container"} | CONTAINERS]
    found = [
        f"{name_of(path)}:{node.lineno} calls numpy.{node.attr}"
        for path in places
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("numpy", "np")
        if node.attr not in allowed
    ]
    assert not found


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


EVERY_MODULE = """
import importlib, sys
from importlib.abc import MetaPathFinder

class OnlyNumpy(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "mtorch"):
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)

before = set(sys.modules)
sys.meta_path.insert(0, OnlyNumpy())
for name in sys.argv[1:]:
    importlib.import_module(name)
print("all imported")
"""


@pytest.mark.parametrize("fast", ["1", "0"])
def test_every_module_imports_where_nothing_but_numpy_is_installed(fast):
    names = [f"mtorch.{name_of(path)}".removesuffix(".__init__") for path in FILES if path.name != "__main__.py"]
    command = [sys.executable, "-c", EVERY_MODULE, *names]
    environment = os.environ | {"MTORCH_FAST": fast, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "all imported", done.stderr


def test_no_layer_class_looks_up_attributes_by_itself():
    """With __getattr__ in a class Python reads every attribute the slow way: a tenth of a small net's step."""
    assert not hasattr(mtorch.Layer, "__getattr__")
    assert mtorch.Layer.__getattribute__ is object.__getattribute__ and mtorch.Layer.__setattr__ is object.__setattr__


def test_a_module_is_a_plain_class():
    assert type(mtorch.Module) is type and not hasattr(mtorch.Module, "__getattr__")
    assert mtorch.Module.__setattr__ is object.__setattr__


def test_the_methods_of_a_subclass_are_what_it_defines():
    assert "__init_subclass__" not in vars(mtorch.Layer) and "__init_subclass__" not in vars(mtorch.Module)

    class Mine(mtorch.Layer):
        def forward(self, x):
            return x

    before = vars(Mine)["forward"]
    assert Mine.forward is before and before.__qualname__.endswith("Mine.forward")


def test_private_words_are_gone():
    """A door, a room, a crew are not what the field calls them."""
    words = re.compile(r"(?i)(?<![a-z])(doors?|rooms?|strips?|spoil\w*|thinned|firm|crews?|survivors?|unread)(?![a-z])")
    pages = [ROOT.parent / "README.md", ROOT.parent / "CHANGELOG.md", *(ROOT.parent / "docs").rglob("*.md")]
    found = [
        f"{path.relative_to(ROOT.parent)}:{number}: {line.strip()}"
        for path in [*FILES, *pages]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(re.sub(r"\.[rl]?strip\b", "", line))
    ]
    assert not found, "\n".join(found)


def test_types_are_not_forced():
    """No `cast`; an ignored error of the type checker has its code and a reason, and there are few."""
    ignored = []
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "type: ignore" in line:
                ignored.append(f"{name_of(path)}:{number}")
                assert re.search(r"# type: ignore\[[\w, -]+\]  # \w", line), f"{name_of(path)}:{number}: no reason"
        names = {alias for name in imports(path, nested=True) for alias in [name]}
        assert "typing" not in names or not re.search(r"\bimport\b.*\bcast\b|typing\.cast", path.read_text()), path
    assert len(ignored) <= 20, ignored
