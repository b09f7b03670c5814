"""Watches reference code run: which statement gave which value to which name, in the order of the run."""

import ast
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy

from mtorch.arrays import Value, map_value
from mtorch.insight.explain.blocks import Numbers, Step
from mtorch.layer import Layer

ENTRIES = 64  # of a larger array the numbers are not shown


class Trace:
    """The statements of one file, and the calls of layers below the one that is explained."""

    def __init__(self, top: Any, files: set[str]):
        self.top, self.files = top, files
        self.names = {id(layer): prefix for prefix, layer in top.walk()} if isinstance(top, Layer) else {}
        self.blocks: list[Any] = []
        self.ran: dict[CodeType, None] = {}
        self.called: dict[CodeType, None] = {}  # mathematics of other folders, which is named and not shown
        self.active: list[tuple[int, str]] = []
        self.given: list[Any] = []
        self.shown: dict[tuple[str, str], Any] = {}  # by function and name
        self.place = ""  # the function whose statements were shown last
        self.calls: Counter[str] = Counter()

    def run(self, call: Callable[[], Any], shown: dict[str, Any]) -> tuple[Any, list[Any]]:
        """What the call returns, and the blocks of its statements; `shown` are values that need no second showing."""
        self.blocks, self.place, self.calls = [], "", Counter()
        self.given, self.shown = list(shown.values()), {("", name): copied(value) for name, value in shown.items()}
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            result = call()
        finally:
            sys.settrace(before)
        for block in self.blocks:
            name, _, number = block.place.removeprefix("in ").partition(", call ")
            if number and self.calls[name] == 1:
                block.place = f"in {name}"
        return result, self.blocks

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_name in ("forward", "backward", "backward_parameters"):
            layer = frame.f_locals.get("self")
            if isinstance(layer, Layer) and layer is not self.top and id(layer) in self.names:
                return self._child(frame, layer)
        if code.co_name.startswith("<") or code.co_name in SILENT:
            return None
        shared = is_arithmetic(code)
        if code.co_filename in self.files or shared == "layers":
            self.ran[code] = None
            return _Watch(self, frame)
        if shared == "math":
            self.called[code] = None
        return None

    def _child(self, frame: FrameType, layer: Layer) -> Any:
        """Notes what a layer below returned, if it is a leaf: the statements of another file are not shown."""
        verb, me = frame.f_code.co_name, id(layer)
        if next(iter(layer.children()), None) is not None or (me, verb) in self.active:
            return None
        self.active.append((me, verb))
        given = next((frame.f_locals[name] for name in frame.f_code.co_varnames[1:2]), None)
        sizes = copied(given)

        def leave(_: FrameType, event: str, value: Any) -> Any:
            if event == "return" and (me, verb) in self.active:
                self.active.remove((me, verb))
                place = f"in {self.names[me].rstrip('.')}, " if self.names[me] else "in "
                arrow = ("returns" if verb == "forward" else "passes down") if value is not None else "gets"
                self._note_call(f"{place}{layer!r}", arrow, sizes if value is None else value)
            return leave

        return leave

    def _note_call(self, name: str, what: str, value: Any) -> None:
        parts = [Numbers(what, copied(each)) for each in leaves_of(value) if small(each)]
        if parts:
            self.blocks.append(Step("", parts, name))
            self.place = name

    def note(self, place: str, source: str, names: dict[str, Any]) -> None:
        """A statement, and the values that are new or changed."""
        values = [Numbers(name, copied(value)) for name, value in names.items() if self._is_news(place, name, value)]
        if values or (source.startswith("return ") and not source[7:].isidentifier()):
            self.blocks.append(Step(source, values, place if place != self.place else ""))
            self.place = place

    def _is_news(self, place: str, name: str, value: Any) -> bool:
        """Whether to show it: it is small, it is no view of what was given, and its function has not shown it so."""
        if not small(value) or name.startswith("_"):
            return False
        for given in self.given:
            same = getattr(given, "shape", None) == getattr(value, "shape", ()) and numpy.array_equal(given, value)
            if same and numpy.shares_memory(given, value):
                return False
        before = self.shown.get((place, name))
        self.shown[place, name] = copied(value)
        return before is None or numpy.shape(before) != numpy.shape(value) or not numpy.array_equal(before, value)


SILENT = ("__repr__", "details", "check_size")


def is_arithmetic(code: CodeType) -> str:
    """ "layers" or "math" for a function of that folder that computes with an array module, which it is given first."""
    folder = Path(code.co_filename).parent
    computes = "xp" in code.co_varnames[: min(2, code.co_argcount)] and "." not in code.co_qualname
    return folder.name if computes and folder.parent.name == "mtorch" and folder.name in ("layers", "math") else ""


class _Watch:
    """Called at each line of one function; what a line changed is known when the next one begins."""

    def __init__(self, trace: Trace, frame: FrameType):
        self.trace = trace
        self.statements = statements(frame.f_code)
        self.before = {name: mark(value) for name, value in frame.f_locals.items()}
        self.line: int | None = None
        name = frame.f_code.co_name
        self.is_verb = name in ("forward", "backward", "backward_parameters", "terms", "rule", "__call__")
        trace.calls[name] += 1
        self.place = "" if self.is_verb else f"in {name}, call {trace.calls[name]}"

    def __call__(self, frame: FrameType, event: str, value: Any) -> Any:
        self._changes(frame)
        if event == "line":
            self.line = frame.f_lineno
        if event == "return" and self.is_verb and value is not None:
            self.trace.note(self.place, self.statements.get(frame.f_lineno, ""), {})
        return self

    def _changes(self, frame: FrameType) -> None:
        now = {name: mark(value) for name, value in frame.f_locals.items()}
        changed = {name: frame.f_locals[name] for name in now if now[name] != self.before.get(name)}
        self.before = now
        if changed and self.line is not None:
            self.trace.note(self.place, self.statements.get(self.line, ""), changed)


def mark(value: Any) -> Any:
    """What tells one value of a name from the next."""
    return (id(value), value.tobytes()) if isinstance(value, numpy.ndarray) and small(value) else id(value)


@cache
def statements(code: CodeType) -> dict[int, str]:
    """The simple statement that stands at each line of a function."""
    try:
        lines, first = inspect.getsourcelines(code)
    except OSError:
        return {}
    source = textwrap.dedent("".join(lines))
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            text = ast.get_source_segment(source, node) or ""
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[first + line - 1] = " ".join(part.strip() for part in text.split("\n"))
        elif isinstance(node, ast.For | ast.If | ast.While | ast.With):
            text = (ast.get_source_segment(source, node) or "").split("\n")[0]
            found.setdefault(first + node.lineno - 1, text)
    return found


def small(value: Any) -> bool:
    """Whether the numbers of a value can be shown: an array of some entries that says something, or one float."""
    if isinstance(value, numpy.ndarray):
        if not 0 < value.size <= ENTRIES or value.ndim > 4 or value.dtype.kind not in "fiub":
            return False
        told: Any = numpy.isfinite(value) if value.dtype.kind == "f" else value.ndim == 0 or value.dtype.kind != "b"
        return bool(numpy.any(told) or (value.dtype.kind == "b" and value.any() and not value.all()))
    return isinstance(value, float | numpy.floating) and abs(float(value)) < 1e6


def copied(value: Value) -> Any:
    """The value with a copy of each array."""
    return map_value(lambda part: part.copy() if isinstance(part, numpy.ndarray) else part, value)


def one_line(code: CodeType) -> str:
    """`name (mtorch/math/file.py)`."""
    return f"`{code.co_name}` (mtorch/{'/'.join(Path(code.co_filename).parts[-2:])})"


def leaves_of(value: Any) -> list[Any]:
    """What is no tuple in a value, None too: it stands for an input that was left out."""
    return [leaf for part in value for leaf in leaves_of(part)] if isinstance(value, tuple) else [value]
