"""Do the tests notice a small fault? Changes one expression of the package at a time and counts what a test finds.

    python tools/mutants.py [--count N] [--seed S] [--only PATH] [--all] [--list] [--jobs N] [--fast] [--report FILE]

A mutant is one small change of one expression in a reference body (layers/, losses/, optim/, the containers, graph/,
math/), which then runs without the fast bodies (MTORCH_FAST=0); with `--fast`, of a fast body. The changes: a sign, a
factor 1 + 1e-3, an axis, an index or a slice off by one, a gradient that is not added or that overwrites the old one,
two gates or results swapped, a term, factor, call or transpose dropped, a comparison with or without its equality. The
tests that concern the file (see `concerned`) run on a copy of the package until the first one fails.

Each mutant has a process of its own, forked from one that has imported everything but mtorch; the changed module is
compiled from memory, the copy on disk stays as it is. The run prints its score, killed / total, and writes the mutants
that survived, each with its place and its change, to the report. The exit code is 0 if the score is 95 % or more.
"""

import argparse
import ast
import difflib
import hashlib
import importlib.abc
import importlib.util
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTAINERS = ("container", "sequential", "residual", "fork", "bidirectional", "unroll")
REFERENCES = (
    *(f"mtorch/{folder}/*.py" for folder in ("layers", "losses", "optim", "graph", "math")),
    *(f"mtorch/{name}.py" for name in CONTAINERS),
)
FAST = ("mtorch/fast/*.py", "mtorch/fast/*/*.py")
REPORT = ROOT / ".cache" / "mutants.txt"

# The test modules of a file, beside the shared proofs of its classes; the first pattern that is in its path decides.
TESTS = [
    ("/graph/", "graph autodiff_examples module protocol"),
    ("unroll bidirectional rnn gru lstm recurr cells sequences", "recurrent"),
    ("container sequential residual fork", "protocol graph checker module fast ownership"),
    ("optim/schedules", "schedules"),
    ("optim update", "optim strict_training schedules regressions checkpoint"),
    ("losses labels", "losses protocol strict_training"),
    ("conv pool windows geometry", "conv threads ownership"),
    ("norm", "norm rows"),
    ("philox dropout", "philox dropout recurrent"),
    ("attention embedding positional", "attention"),
    ("memory threads passes", "threads memory conv activations norm ownership"),
    ("relu", "activations linear threads ownership"),
    ("activation erf elu gelu sigmoid silu softmax softplus tanh rows", "activations erf rows norm threads losses"),
    ("layers/linear layers/reshape identity namespace", "protocol module linear activations memory ownership"),
    ("", "operators graph protocol"),
]


# ---------------------------------------------------------------------- the changes


@dataclass(frozen=True)
class Mutant:
    path: str  # of the file, in the package
    line: int
    where: str  # the function, with its class
    kind: str
    start: int  # the characters of the file that are replaced
    end: int
    text: str

    def source(self, original: str) -> str:
        return original[: self.start] + self.text + original[self.end :]

    def change(self, original: str) -> str:
        """The lines that differ, without their indentation: `- old` and `+ new`."""
        lines = difflib.unified_diff(original.splitlines(), self.source(original).splitlines(), n=0, lineterm="")
        return "\n".join(f"{line[0]} {line[1:].strip()}" for line in list(lines)[2:] if not line.startswith("@@"))


SIGNS = {ast.Add: "-", ast.Sub: "+"}
COMPARISONS = {ast.Gt: ">=", ast.GtE: ">", ast.Lt: "<=", ast.LtE: "<", ast.Eq: "!=", ast.NotEq: "=="}
OPPOSITES = {
    "add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply", "maximum": "minimum",
    "minimum": "maximum", "greater": "greater_equal", "argmax": "argmin", "argmin": "argmax", "max": "min",
    "min": "max", "triu": "tril", "log1p": "log", "expm1": "exp", "sum": "mean", "mean": "sum",
}  # fmt: skip
ALONG = {"sum", "mean", "max", "min", "reduce", "concatenate", "stack", "argmax", "argmin"}
OTHER_AXIS = {"0": "1", "1": "0", "-1": "0", "-2": "-1"}
DROPPED = {"sqrt", "exp", "log", "tanh", "abs", "absolute", "square", "negative", "copy"}
PRODUCTS = {"dot", "matmul", "exp", "tanh", "sqrt", "log", "sum", "mean", "sigmoid", "take"}
WRITTEN = {
    "details",
    "describe",
    "examples",
    "example_shapes",
    "example_pair",
    "__repr__",
    "_text",
    "infer_shape",
    "place",
}
SPEED = (
    "BLOCK", "LARGE", "LIMIT", "SMALL", "PIECE", "WORTH", "PASS", "is_numpy", "xp is numpy", "nbytes", "c_contiguous",
    "strides", "_batch_last",
)  # fmt: skip
WORK = {"in_parts": [2], "passes_in_parts": [2], "in_blocks": [2, 3], "entrywise": [0]}  # arguments that estimate it
SHAPES = ("shape", "size", "ndim", "len(", "stride", "padding", "kernel")


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Every change of the file, in reading order."""
    tree = ast.parse(source)
    lines, starts = source.splitlines(keepends=True), [0]
    for text in lines:
        starts.append(starts[-1] + len(text))
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent
    found, seen = [], set()

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())  # Python counts columns in bytes

    def place(node: ast.AST) -> tuple[int, int]:
        return offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)

    for node in ast.walk(tree):
        if not hasattr(node, "lineno") and not isinstance(node, ast.Slice):
            continue
        if not _is_computing(node):
            continue
        for kind, target, text in _changes(node, lambda n: source[slice(*place(n))]):
            start, end = place(target)
            if (start, end, text) not in seen and source[start:end] != text:
                seen.add((start, end, text))
                found.append(Mutant(path, target.lineno, _function(node), kind, start, end, text))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.text))


def _is_computing(node: ast.AST) -> bool:
    """False for texts, examples, types, messages, and for what differs in its speed only: choices between bodies,
    estimates of work and of memory, and how much at a time fits into a budget.
    """
    inside = False
    while hasattr(node, "parent"):
        parent = node.parent
        if isinstance(parent, ast.Raise | ast.JoinedStr | ast.arguments | ast.AnnAssign) and (
            not isinstance(parent, ast.AnnAssign) or node is parent.annotation
        ):
            return False
        if isinstance(parent, ast.If | ast.IfExp) and node is parent.test and _about_speed(parent.test):
            return False
        if isinstance(parent, ast.BoolOp | ast.Compare) and _about_speed(parent):
            return False
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.FloorDiv) and _about_speed(parent.left):
            return False
        if isinstance(parent, ast.Assign) and ast.unparse(parent.targets[0]).endswith("_bytes"):
            return False
        if isinstance(parent, ast.Call):
            estimates = WORK.get(ast.unparse(parent.func).rpartition(".")[2], [])
            if any(node is parent.args[i] for i in estimates if i < len(parent.args)):
                return False
        if isinstance(parent, ast.FunctionDef):
            if parent.name in WRITTEN or node is parent.returns or node in parent.decorator_list:
                return False
            inside = True
        if isinstance(parent, ast.Lambda):
            inside = True
        node = parent
    return inside


def _function(node: ast.AST) -> str:
    names = []
    while hasattr(node, "parent"):
        node = node.parent
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    return ".".join(names[::-1])


def _about_speed(node: ast.AST) -> bool:
    """Thresholds of size are constants in capitals."""
    return _about(node, SPEED) or re.search(r"\b_?[A-Z]+_[A-Z]+\b", ast.unparse(node)) is not None


def _about(node: ast.AST, words: tuple[str, ...]) -> bool:
    text = ast.unparse(node)
    return any(word in text for word in words)


def _changes(node: ast.AST, text) -> Iterator[tuple[str, ast.AST, str]]:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield from _of_operation(node, left, op, right, text)
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", node, text(operand)
        case ast.AugAssign(target=target, op=op, value=value):
            yield from _of_assignment(node, target, op, value, text)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            if not _about_speed(node):
                yield "comparison", node, f"{text(left)} {COMPARISONS[type(op)]} {text(right)}"
        case ast.Subscript(value=value, slice=ast.Constant(value=int(index))):
            yield "off by one", node, f"{text(value)}[{index + 1}]"
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield "off by one", lower, f"({text(lower)}) + 1"
            if upper is not None:
                yield "off by one", upper, f"({text(upper)}) - 1"
        case ast.Attribute(value=value, attr="T"):
            yield "transpose", node, text(value)
        case (
            ast.Return(value=ast.Tuple(elts=[first, second, *_]))
            | ast.Assign(targets=[ast.Tuple(elts=[ast.Name() as first, ast.Name() as second, *_])])
        ):
            if text(first) != text(second) != "_":
                between = ", "
                whole = node.value if isinstance(node, ast.Return) else node.targets[0]
                rest = "".join(f", {text(each)}" for each in whole.elts[2:])
                inner = f"{text(second)}{between}{text(first)}{rest}"
                closed = text(whole).startswith("(") and text(whole).endswith(")")
                yield "swap", whole, f"({inner})" if closed else inner
        case ast.Call():
            yield from _of_call(node, text)
        case ast.Constant(value=float(value)) if value not in (0.0, 1.0):
            yield "factor", node, repr(value * (1 + 1e-3))
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))) if name not in ("accumulate", "accumulate_result"):
            yield "dropped", node, "pass"


def _of_operation(node, left, op, right, text):
    a, b = text(left), text(right)
    if isinstance(left, ast.Tuple | ast.List | ast.JoinedStr) or isinstance(
        right, ast.Tuple | ast.List | ast.JoinedStr
    ):
        return
    if any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (left, right)):
        return
    if type(op) in SIGNS:
        yield (
            "sign",
            node,
            f"{a} {SIGNS[type(op)]} {b if isinstance(right, ast.Name | ast.Call | ast.Constant) else f'({b})'}",
        )
        yield "dropped", node, f"({a})"
        if isinstance(op, ast.Add):
            yield "dropped", node, f"({b})"
    elif isinstance(op, ast.Mult | ast.Div):
        yield "dropped", node, f"({a})"
        if isinstance(op, ast.Mult):
            yield "dropped", node, f"({b})"
    if isinstance(op, ast.Mult | ast.Div | ast.MatMult | ast.Pow) and _is_value(node):
        yield "factor", node, f"(({text(node)}) * (1 + 1e-3))"


def _of_assignment(node, target, op, value, text):
    left, right = text(target), text(value)
    if isinstance(value, ast.Tuple | ast.List):
        return
    if isinstance(op, ast.Add | ast.Sub):
        yield "sign", node, f"{left} {'-' if isinstance(op, ast.Add) else '+'}= {right}"
        yield "accumulation", node, f"{left} = {right}"
        yield "dropped", node, "pass"
    elif isinstance(op, ast.Mult | ast.Div | ast.BitAnd | ast.BitXor):
        yield "dropped", node, "pass"
    if isinstance(op, ast.Mult) and isinstance(value, ast.Name | ast.Attribute):
        yield "factor", node, f"{left} *= {right} * (1 + 1e-3)"


def _of_call(node, text):
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    for keyword in node.keywords:
        if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant | ast.UnaryOp):
            yield "axis", keyword.value, OTHER_AXIS.get(text(keyword.value), "0")
        if keyword.arg == "axis" and isinstance(keyword.value, ast.Tuple):
            yield "axis", keyword.value, f"({text(keyword.value.elts[0])},)"
        if keyword.arg == "keepdims" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
            yield "axis", keyword.value, "False"
    if not isinstance(function, ast.Attribute):
        if name == "range" and len(node.args) == 1:
            yield "off by one", node, f"range({text(node.args[0])} - 1)"
        elif name == "range":
            rest = "".join(f", {text(each)}" for each in node.args[1:])
            yield "off by one", node, f"range({text(node.args[0])} + 1{rest})"
        return
    owner = text(function.value)
    if name in ("accumulate", "accumulate_result"):
        yield "accumulation", node, "None"
        yield "accumulation", node, f"({owner}.zero_grad(), {text(node)})"
    if name in ("transpose", "swapaxes"):
        yield "transpose", node, owner
    if name == "transpose" and len(node.args) > 1:
        first, second, *rest = map(text, node.args)
        yield "axis", node, f"{owner}.transpose({', '.join((second, first, *rest))})"
    if name in ALONG and node.args and text(node.args[-1]) in OTHER_AXIS:
        yield "axis", node.args[-1], OTHER_AXIS[text(node.args[-1])]
    out = any(keyword.arg == "out" for keyword in node.keywords)
    if name in OPPOSITES:
        yield "sign" if name in ("add", "subtract") else "function", function, f"{owner}.{OPPOSITES[name]}"
    if name in DROPPED and not out and len(node.args) <= 1:
        yield "dropped", node, f"({text(node.args[0]) if node.args else owner})"
    if name in PRODUCTS and not out and not isinstance(node.parent, ast.Expr) and _is_value(node):
        yield "factor", node, f"(({text(node)}) * (1 + 1e-3))"


def _is_value(node: ast.AST) -> bool:
    """False inside an index and among the sizes and bounds of a shape."""
    if _about(node, SHAPES) and not _about(node, (".dot(", "xp.")):
        return False
    while hasattr(node, "parent") and not isinstance(node, ast.stmt):
        if isinstance(node.parent, ast.Subscript) and node is node.parent.slice:
            return False
        if isinstance(node.parent, ast.Call) and node is not node.parent.func:
            called = ast.unparse(node.parent.func).rpartition(".")[2]
            if called in ("reshape", "empty", "zeros", "range", "full", "arange", "transpose", "isfinite", "slice"):
                return False
        node = node.parent
    return True


def files(fast: bool = False) -> list[Path]:
    """What is mutated: the reference bodies, or the fast bodies."""
    patterns = FAST if fast else REFERENCES
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.name != "__init__.py")


def all_mutants(only: str = "", fast: bool = False) -> list[Mutant]:
    found = []
    for path in files(fast):
        name = path.relative_to(ROOT).as_posix()
        if only in name:
            found += mutants_of(name, path.read_text())
    return found


def family_of(path: str) -> str:
    """The folder of a file; the containers stand in the package itself."""
    folder = path.split("/")[1]
    return "containers" if folder.endswith(".py") else folder


Key = tuple[str, str, str, int]  # path, function, change, how many of the same came before


def keys_of(mutants: list[Mutant]) -> dict[Mutant, Key]:
    """What stays of each mutant when other lines change."""
    sources = {path: (ROOT / path).read_text() for path in {mutant.path for mutant in mutants}}
    before, keys = Counter(), {}
    for mutant in mutants:
        key = mutant.path, mutant.where, mutant.change(sources[mutant.path])
        keys[mutant] = *key, before[key]
        before[key] += 1
    return keys


def sample(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Those whose hash is smallest: an edit elsewhere leaves the choice as it is, a larger count adds to it."""
    keys = keys_of(mutants)
    return sorted(mutants, key=lambda m: hashlib.sha256(repr((seed, *keys[m])).encode()).digest())[:count]


# ---------------------------------------------------------------------- which tests concern a file


def module_name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def concerned(path: str) -> tuple[list[str], set[str]]:
    """The test modules of a file, and the modules whose classes give the shared proofs.

    A file that defines classes has their proofs, and those of what extends them; a file of functions has those of the
    files that import it, other files of functions in between.
    """
    names = next(tests for words, tests in TESTS if not words or any(w in path for w in words.split()))
    names += " bad_input" + (" fast" if path.startswith("mtorch/fast") else "")
    folder = dict.fromkeys(("strict_training", "checker", "fast"), "conformance")
    files = [f"tests/{folder.get(name, 'unit')}/test_{name}.py" for name in dict.fromkeys(names.split())]
    importers: dict[str, set[str]] = {}
    helpers = set()
    for other in (ROOT / "mtorch").rglob("*.py"):
        tree, name = ast.parse(other.read_text()), module_name(other.relative_to(ROOT).as_posix())
        if not any(isinstance(node, ast.ClassDef) and node.bases for node in tree.body):
            helpers.add(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for imported in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    importers.setdefault(imported, set()).add(name)
    found, stack = set(), [module_name(path)]
    while stack:
        module = stack.pop()
        if module not in found and not module.endswith("__init__"):
            found.add(module)
            stack += importers.get(module, ()) if module in helpers else ()
    return [file for file in files if (ROOT / file).exists()], found


# ---------------------------------------------------------------------- one mutant, one process


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a source that is in memory."""

    def __init__(self, name: str, path: str, source: str):
        self.name, self.path, self.code = name, path, compile(source, path, "exec")

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self, origin=self.path) if name == self.name else None

    def exec_module(self, module):
        module.__file__ = self.path
        exec(self.code, module.__dict__)


class Failures:
    """A pytest plugin that notes the tests that fail."""

    def __init__(self):
        self.found = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.found.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.found.append(report.nodeid)


OPTIONS = ["-q", "--assert=plain", "--tb=no", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow and not gpu"]


def run_tests(folder: Path, mutant: Mutant | None, source: str, chosen: list[str]) -> list[str]:
    """The tests that fail, in this process, which is then of no more use.

    With a mutant the chosen test modules and the shared proofs of the classes concerned run until the first failure,
    without one the chosen tests run to their end.
    """
    import pytest

    os.chdir(folder)
    sys.path[:0] = [str(folder), *(str(folder / "tests" / name) for name in ("conformance", "unit"))]
    plugin = Failures()
    if mutant is None:
        pytest.main([*OPTIONS, *chosen], plugins=[plugin])
        return plugin.found
    sys.meta_path.insert(0, Replaced(module_name(mutant.path), str(folder / mutant.path), source))
    import harness

    files, modules = concerned(mutant.path)
    for cases in (harness.LAYERS, harness.LOSSES):
        cases[:] = [c for c in cases if any(base.__module__ in modules for base in c.values[0].__mro__)]
    if harness.LAYERS or harness.LOSSES:
        every = "tests/conformance/test_conformance.py::test_every_final_class_has_examples"  # it counts all of them
        pytest.main([*OPTIONS, "-x", f"--deselect={every}", "tests/conformance/test_conformance.py"], plugins=[plugin])
    if not plugin.found:
        code = pytest.main([*OPTIONS, "-x", *files], plugins=[plugin])
        if code not in (0, 5) and not plugin.found:
            return [f"pytest ends with {code}"]
    return plugin.found


CPU_SECONDS = 90  # the slowest tests of a file take a quarter of it; a clock would count what others make it wait
TIMEOUT = 600  # seconds by the clock, for what waits for ever


class Worker:
    """A forked process that runs tests: those that concern a mutant, or, without one, those that are named."""

    def __init__(self, folder: Path, mutant: Mutant | None, source: str = "", chosen: tuple[str, ...] = ()):
        self.mutant, self.began = mutant, time.monotonic()
        self.pipe, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        try:
            failures = run_tests(folder, mutant, source, list(chosen))
        except BaseException as error:
            failures = [f"{type(error).__name__} at import"]
        os.write(write, json.dumps(failures[:100]).encode()[:60000])
        os._exit(0)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > TIMEOUT

    def finish(self) -> list[str]:
        """The tests that failed, once the pipe is readable or the time is over."""
        if self.late:
            os.killpg(self.pid, signal.SIGKILL)
            failures = ["time is over"]
        else:
            text = os.read(self.pipe, 65536)
            failures = json.loads(text) if text else ["the process died"]
        os.close(self.pipe)
        os.waitpid(self.pid, 0)
        return failures


def snapshot() -> Path:
    """A copy of the package and its tests: others may edit the originals meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    for name in ("mtorch", "tests", "apps", "benchmarks", "docs", "tools"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.npz.part"))
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    return folder


def judge(
    mutants: list[Mutant], jobs: int, say=print, record: Path | None = None, fast: bool = False
) -> list[tuple[Mutant, Key, str]]:
    """(mutant, its key, the first test that fails, or nothing), without those whose test fails without the change too.

    record: a file of results that are taken from there, and to which new ones are added.
    """
    global ROOT
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["MTORCH_FAST"] = str(int(fast))
    import numpy.testing  # noqa: F401
    import pytest  # noqa: F401

    original, folder = ROOT, snapshot()
    ROOT = folder
    try:
        sources = {path: (folder / path).read_text() for path in {m.path for m in mutants}}
        kept = {}
        for line in record.read_text().splitlines() if record and record.exists() else []:
            *key, failure = json.loads(line)
            kept[tuple(key)] = failure
        keys = keys_of(mutants)
        results = [(mutant, key, kept[key]) for mutant, key in keys.items() if key in kept]
        waiting, running = [mutant for mutant, key in keys.items() if key not in kept][::-1], {}
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                source = mutant.source(sources[mutant.path])
                compile(source, f"{mutant.path}, mutated in line {mutant.line}", "exec")
                worker = Worker(folder, mutant, source)
                running[worker.pipe] = worker
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for pipe in {*ready, *(pipe for pipe, worker in running.items() if worker.late)}:
                worker = running.pop(pipe)
                mutant, failures = worker.mutant, worker.finish()
                results.append((mutant, keys[mutant], failures[0] if failures else ""))
                if record:
                    with record.open("a") as file:
                        file.write(json.dumps([*keys[mutant], results[-1][-1]]) + "\n")
                if len(results) % 50 == 0:
                    say(f"  {len(results)} of {len(mutants)}, {sum(bool(failure) for *_, failure in results)} killed")
        killers = tuple(sorted({failure for *_, failure in results if "::" in failure}))
        unsound = set(Worker(folder, None, chosen=killers).finish()) if killers else set()
        for failure in sorted(unsound):
            say(f"not counted, since it fails without any change: {failure}")
        return [result for result in results if result[-1] not in unsound]
    finally:
        ROOT = original
        shutil.rmtree(folder, ignore_errors=True)


def described(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line} {mutant.where} ({mutant.kind})"


def report(results: list[tuple[Mutant, Key, str]], file: Path, say=print) -> float:
    """Writes the surviving mutants to the file, prints the score; returns the share of the mutants that were killed."""
    alive = [(mutant, key[2]) for mutant, key, failure in results if not failure]
    lines = []
    for label, name_of in (("kind", lambda m: m.kind), ("folder", lambda m: family_of(m.path))):
        total = Counter(name_of(mutant) for mutant, *_ in results)
        dead = Counter(name_of(mutant) for mutant, *_, failure in results if failure)
        lines.append(f"by {label}: " + ", ".join(f"{name} {dead[name]}/{total[name]}" for name in sorted(total)))
    share = 1 - len(alive) / max(len(results), 1)
    lines.append(f"killed {len(results) - len(alive)} of {len(results)} mutants, {100 * share:.1f} %")
    say("\n".join(lines))
    found = [f"{described(mutant)}\n{change}\n" for mutant, change in sorted(alive, key=lambda each: each[0].path)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, f"\n{len(alive)} survived:\n", *found]))
    say(f"{len(alive)} that survived stand in {file}")
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400, help="how many mutants, drawn by their hash (400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--fast", action="store_true", help="change the fast bodies instead of the references")
    parser.add_argument("--list", action="store_true", help="show them, run nothing")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", type=Path, help="a file for the results; a run that was ended goes on from it")
    parser.add_argument(
        "--report", type=Path, default=REPORT, help="a file for the surviving mutants (.cache/mutants.txt)"
    )
    options = parser.parse_args()
    mutants = all_mutants(options.only, options.fast)
    if not options.all and options.count < len(mutants):
        mutants = sample(mutants, options.count, options.seed)
    if options.list:
        for mutant in mutants:
            print(f"{described(mutant)}\n{mutant.change((ROOT / mutant.path).read_text())}")
        print(f"{len(mutants)} mutants")
        return 0
    results = judge(mutants, options.jobs, record=options.record, fast=options.fast)
    return 0 if report(results, options.report) >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
