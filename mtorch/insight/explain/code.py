"""The code of a page: the reference functions that ran in the worked example."""

import inspect
from pathlib import Path
from typing import Any

import mtorch
from mtorch.insight.explain.blocks import Code, Prose
from mtorch.insight.explain.trace import Trace, one_line
from mtorch.losses.base import LossFunction
from mtorch.optim.schedules import Schedule

VERBS = {"forward": 0, "backward": 1, "backward_parameters": 2, "terms": 0, "rule": 0, "__call__": 0}
PACKAGE = Path(mtorch.__file__).parent
SHARED = {str(PACKAGE / name) for name in ("layer.py", "container.py", "losses/base.py", "optim/base.py")}


def file_of(cls: Any) -> str:
    return str(Path(inspect.getfile(cls)).relative_to(PACKAGE.parent)).replace("\\", "/")


def files_of(cls: Any) -> set[str]:
    """The files whose statements are shown: that of the class, and those of the verbs that it inherits."""
    verbs: list[Any] = [getattr(cls, name, None) for name in VERBS]
    own = {inspect.unwrap(verb).__code__.co_filename for verb in verbs if hasattr(verb, "__code__")}
    return {inspect.getfile(cls)} | {file for file in own if file not in SHARED}


def code_blocks(shown: Any, trace: Trace) -> list[Any]:
    """The reference code that ran in the example, forward and backward first, then what they call."""
    ran = list(trace.ran)
    sources: dict[str, tuple[int, str]] = {}
    if issubclass(shown, Schedule):
        names: list[str] = ["__call__"]
    else:
        names = [name for name in VERBS if name != "__call__" or issubclass(shown, LossFunction)]
    for name in names:
        verb: Any = getattr(shown, name, None)
        code = getattr(inspect.unwrap(verb), "__code__", None) if verb is not None else None
        if code is not None and code.co_filename not in SHARED and code.co_filename.startswith(str(PACKAGE)):
            ran = [code, *ran]
    order = {code: number for number, code in enumerate(dict.fromkeys(ran))}
    for code in order:
        try:
            source = inspect.getsource(code)
        except OSError:
            source = f"# the source of {code.co_name} is not available\n"
        where = "/".join(Path(code.co_filename).parts[-2:])
        if code.co_name not in ("__init__", "check", "check_size", "details", "__repr__", "<lambda>"):
            sources[f"{where}:{code.co_qualname}"] = (code.co_firstlineno, inspect.cleandoc("\n" + source))
    if not sources:
        sources = {file_of(shown): (0, inspect.getsource(shown))}
    verbs = sorted(sources.items(), key=lambda item: (VERBS.get(item[0].rpartition(".")[2], 3), item[1][0]))
    blocks: list[Any] = [Code(source, name) for name, (_, source) in verbs]
    return blocks + ([Prose(f"It calls {', '.join(map(one_line, trace.called))}.")] if trace.called else [])
