"""One table: mtorch beside PyTorch, TinyTorch, micrograd, PyDyNet and thinc, with what was measured.

    python benchmarks/compare_libraries.py [--rounds 7] [--only NAME ...] [--tinytorch CLONE] [--write]

Each library is installed from the package index into a virtual environment of its own, .cache/compare/NAME, which stays
for the next run (`--fresh` makes them anew). TinyTorch is not in the index, where another project has its name: CLONE
is a folder with its repository, of which the package is made as its own tool does, of the cells marked for export.
With --write, docs/comparison.md is written. Nothing is compared that was not measured here, and what does not install
stands in the table as such.
"""

import argparse
import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "compare"
PAGE = ROOT / "docs" / "comparison.md"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
GRADIENT_CHECK = re.compile(r"finite.?diff|gradcheck\(|numeric(al)?_grad|check_gradients\(", re.I)


@dataclass(frozen=True)
class Library:
    """title and module; wants: what pip is asked for; imports: what a user imports; note: what a number leaves out."""

    title: str
    module: str
    wants: tuple[str, ...]
    imports: str
    reading: str = ""
    step: str = ""


LIBRARIES = [
    Library("mtorch", "mtorch", (), "import mtorch", "the references, `MTORCH_FAST=0`"),
    Library("PyTorch", "torch", ("torch==2.13.0",), "import torch", "and derivatives in C++, not counted"),
    Library("TinyTorch", "tinytorch", (), "import tinytorch", "it has no LSTM"),
    Library("micrograd", "micrograd", ("micrograd",), "import micrograd.nn", "it has no LSTM", "without the sigmoid"),
    Library("PyDyNet", "pydynet", ("pydynet",), "import pydynet"),
    Library("thinc", "thinc", ("thinc",), "import thinc.api", "and its LSTM in Cython, not counted"),
]


# ---------------------------------------------------------------------- installing


def python_of(library: Library) -> Path:
    return CACHE / library.module / ("Scripts" if os.name == "nt" else "bin") / "python"


def packages_of(library: Library) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python_of(library), "-c", code], capture_output=True, text=True).stdout.strip())


def install(library: Library, clone: Path | None) -> str:
    """Makes the environment unless it is there; "" or why it has no library."""
    home = CACHE / library.module
    if (home / "installed").exists() and library.module != "mtorch":
        return ""
    wants = library.wants
    if library.module == "tinytorch":
        if clone is None:
            return "not in the package index"
        wants = (str(exported(clone)),)
    if library.module == "mtorch":
        wants = (str(copied(ROOT, CACHE / "mtorch-source", ("mtorch",))),)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python_of(library), "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *wants], capture_output=True, text=True)
    if done.returncode:
        return "does not install here"
    (home / "installed").touch()
    return ""


def copied(clone: Path, folder: Path, parts: tuple[str, ...]) -> Path:
    """What pip needs of a clone, so that it builds nothing there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (clone / name).exists():
            shutil.copy(clone / name, folder)
    for name in parts:
        shutil.copytree(clone / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def exported(clone: Path) -> Path:
    """The package of TinyTorch: its cells marked `#| export`, each file's in the module that `#| default_exp` names."""
    folder = copied(clone, CACHE / "tinytorch-source", ("tinytorch", "tito", "tests"))
    modules: dict[str, list[str]] = {}
    for path in sorted(clone.glob("src/*/[0-9]*.py")):
        text = path.read_text()
        module = re.search(r"^#\| default_exp (\S+)", text, re.M)
        for cell in re.split(r"^# %%.*$", text, flags=re.M) if module else ():
            if re.search(r"^#\| exporti?\s*$", cell, re.M):
                modules.setdefault(module[1] if module else "", []).append(cell)
    for name, cells in modules.items():
        target = (folder / "tinytorch").joinpath(*name.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(cells))
    return folder


# ---------------------------------------------------------------------- measuring


def run(library: Library, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of the library's interpreter, on one thread, which sees nothing of this clone."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    given |= ONE_THREAD | environment
    command = [python_of(library), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=given, cwd=CACHE)


def answer(library: Library, task: str, **environment: str) -> Any:
    done = run(library, str(ROOT / "benchmarks" / "compared.py"), library.module, task, **environment)
    if done.returncode or not done.stdout.strip():
        print(f"{library.title}, {task}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def import_seconds(library: Library) -> float:
    """What the import takes in a fresh process."""
    code = f"import time; s = time.perf_counter(); {library.imports}; print(time.perf_counter() - s)"
    return float(run(library, "-c", code).stdout.split()[-1])


def size_of(library: Library) -> float:
    """MB of everything that was installed, without byte code."""
    files = [path for path in packages_of(library).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sum(path.stat().st_size for path in files) / 1e6


def version_of(library: Library) -> str:
    name = "mtorch-layers" if library.module == "mtorch" else library.module
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return run(library, "-c", code).stdout.strip()


def gradient_checks(library: Library) -> str:
    """How many cases pytest collects of the tests that come along, and how many of them compare with differences."""
    homes = {"mtorch": ROOT / "tests", "tinytorch": CACHE / "tinytorch-source" / "tests"}
    tests = homes.get(library.module, packages_of(library) / library.module / "tests")
    if not tests.exists():
        return "none shipped"
    tools = CACHE / "pytest"
    if not tools.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", tools]
        subprocess.run([*pip, "pytest", "hypothesis", "mock"], check=True)
    options = ["--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    settings = ["--rootdir", tests.parent] if library.module in homes else ["-c", os.devnull, "--rootdir", tests.parent]
    command = [python_of(library), "-m", "pytest", *options, *settings, tests]
    given = dict(os.environ) | ONE_THREAD | {"PYTHONPATH": str(tools), "PYTHONDONTWRITEBYTECODE": "1"}
    where = tests.parent if library.module in homes else CACHE
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=where)
    cases = re.findall(r"^(\S+\.py)::(?:\w+::)?(\w+)", done.stdout, re.M)
    found, sources = 0, {}
    for name, function in cases:
        if name not in sources:
            sources[name] = functions_of((tests.parent / name).read_text())
        found += bool(GRADIENT_CHECK.search(sources[name].get(function, "")))
    return f"{found:,} of {len(cases):,}"


def functions_of(text: str) -> dict[str, str]:
    """The source of every function by its name."""
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: ast.get_source_segment(text, node) or "" for node in nodes}


# ---------------------------------------------------------------------- the table


def measured(libraries: list[Library], rounds: int, clone: Path | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for library in libraries:
        print(f"{library.title}: installing", file=sys.stderr)
        rows.append({"library": library, "missing": install(library, clone)})
    here = [row for row in rows if not row["missing"]]
    for row in here:
        library = row["library"]
        print(f"{library.title}: reading, size, tests", file=sys.stderr)
        row |= {"version": version_of(library), "size": size_of(library), "tests": gradient_checks(library)}
        row |= {"read": answer(library, "read", MTORCH_FAST="0"), "imports": [], "steps": []}
    for number in range(rounds + 1):  # in turns; the first one fills the disk cache
        print(f"round {number} of {rounds}", file=sys.stderr)
        for row in here:
            took = import_seconds(row["library"])
            if number:
                row["imports"].append(took)
                if number <= 3 or (row["steps"][-1] or 0) < 1:  # three of steps that take seconds
                    row["steps"].append(answer(row["library"], "step"))
    return rows


def in_units(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Two digits, in the first unit that makes it at least 1."""
    for factor, unit in units:
        if value >= factor or (factor, unit) == units[-1]:
            scaled = value / factor
            return f"{scaled:.0f} {unit}" if scaled >= 10 else f"{scaled:.1f} {unit}"
    return ""


TIME = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))
HEADS = ("", "lines to read, Linear + LSTM", "import", "install", "digit-net step", "gradient checks among its tests")


def cells(row: dict[str, Any]) -> list[str]:
    library = row["library"]
    if row["missing"]:
        return [library.title, row["missing"], *[""] * (len(HEADS) - 2)]
    read, steps = row["read"], [each for each in row["steps"] if each is not None]
    lines = "n/a" if read is None else f"{read['lines']:,} in {read['functions']} functions, {read['files']} files"
    step = in_units(statistics.median(steps), TIME) if steps else "did not run"
    return [
        f"{library.title} {row['version']}",
        lines + (f"; {library.reading}" if library.reading else ""),
        in_units(statistics.median(row["imports"]), TIME[:2]),
        in_units(row["size"], ((1, "MB"), (1e-3, "kB"))),
        step + (f", {library.step}" if library.step else ""),
        row["tests"],
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [HEADS, ["---"] * len(HEADS), *(cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |")


RULES = """# Beside other libraries

`python benchmarks/compare_libraries.py --write` made this page. It installs each library into an environment of its own
and measures there; nothing is copied from elsewhere.

{table}

Measured with {rounds} rounds on {machine}, one thread each.

* **Lines to read**: an LSTM and a Linear after it run forward and backward, and every Python function of the library
  that runs the third time is counted, by its lines without blank ones, comments and docstrings. Compiled code does not
  count, though it must be read too: PyTorch's derivatives are C++, thinc's LSTM is Cython. mtorch counts its reference
  bodies, which `MTORCH_FAST=0` runs; the faster ones that replace them by default add nothing that must be understood.
* **Import**: the median of fresh processes, measured around the `import`.
* **Install**: what pip puts into an empty environment, dependencies included, without byte code. NumPy is most of
  mtorch's and PyDyNet's; micrograd needs nothing; PyTorch's is the wheel for CPUs only.
* **Digit-net step**: 784-16-16-10 with ReLU, ReLU and sigmoid, a batch of 20, half the squared error, SGD: forward,
  backward and update, the median over rounds. micrograd computes with single numbers, one object each; it has no
  sigmoid.
* **Gradient checks**: of the test cases that pytest collects, those that compare a derivative with finite differences,
  as the source of the test function shows. They are the tests that come with what was installed: of mtorch and
  TinyTorch the clone's, which the index has not. The wheels of PyTorch, micrograd and PyDyNet bring no tests. PyTorch's
  repository has thousands of such checks, micrograd's compares with PyTorch; they are not counted, because they were
  not there to count.
* **TinyTorch** is the course of the Machine Learning Systems book, in which a reader writes each part; the project of
  that name in the package index is another one. It was made from the sources of its repository.

What the table does not show: PyTorch does a thousand things that the others do not, among them GPUs and compilers;
micrograd fits on two screens, and nothing is easier to read; TinyTorch is a course more than a library.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="modules: " + ", ".join(x.module for x in LIBRARIES))
    parser.add_argument("--tinytorch", type=Path, metavar="CLONE", help="a folder with TinyTorch's repository")
    parser.add_argument("--fresh", action="store_true", help="install everything anew")
    parser.add_argument("--write", action="store_true", help="write docs/comparison.md")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [x for x in LIBRARIES if not options.only or x.module in options.only]
    rows = measured(wanted, options.rounds, options.tinytorch and options.tinytorch.resolve())
    print(table(rows))
    if options.write:
        machine = describe()
        text = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"
        PAGE.write_text(RULES.format(table=table(rows), rounds=options.rounds, machine=text))


if __name__ == "__main__":
    main()
