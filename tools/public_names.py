"""Writes every name that a user was given, with its signature, to tests/public_names.txt.

    PYTHONPATH=FOLDER python tools/public_names.py > tests/public_names.txt

FOLDER holds the commit whose names are to stay (8d2a0da, before the folders were laid out anew). A name is public where
an `__all__`, the README, docs/, an example in a docstring, an import of the apps or the design (`DESIGN`) gives it;
the attributes of the classes in `BASES` are public too, and so are the names in the classes' state dicts, the options
of the apps and the environment variables. `tests/unit/test_public_names.py` holds the list against the package.

The lines:

    module:Name(signature)                a function, a class or a method
    module:Name.attribute                 anything else
    state module:Class names ...          what its examples have in their state dicts
    option module [command] --option {choices}
    environment NAME
"""

import ast
import contextlib
import importlib
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

HEADER = "# Written by tools/public_names.py from commit 8d2a0da; do not edit by hand."

MODULES = ("mtorch", *(f"mtorch.{name}" for name in ("layers", "losses", "optim", "data", "training", "testing")))
# modules without an `__all__`: every function and class that they define
OPEN_MODULES = ("mtorch.models", "mtorch.initializers", "mtorch.optim.schedules", "mtorch.errors")

# The names of DESIGN section 5 and of the issue, where no `__all__` holds them.
DESIGN = """
    mtorch:exp mtorch:log mtorch:sqrt mtorch:abs mtorch:sum mtorch:mean mtorch:max mtorch:min mtorch:concat
    mtorch:matmul
    mtorch:ShapeNotMatchException mtorch.layers:Relu mtorch.layers:Linear2 mtorch.layers:Linear3
    mtorch.layers:RNNCell.initial_state mtorch.layers:GRUCell.initial_state mtorch.layers:LSTMCell.initial_state
    mtorch.layers:Conv1d mtorch.layers:Conv2d mtorch.layers:ConvTranspose2d
    mtorch.layers:RNN.final_state mtorch.layers:GRU.final_state mtorch.layers:LSTM.final_state
    mtorch:Graph.of mtorch:Sequential.layers mtorch:Loss.value mtorch:Loss.grad mtorch:Loss.backward
    mtorch.optim.schedules:StepLR mtorch.optim.schedules:MultiStepLR mtorch.optim.schedules:ExponentialLR
    mtorch.optim.schedules:CosineAnnealingLR mtorch.optim.schedules:LinearWarmup mtorch.optim.schedules:InverseSqrt
    mtorch:save mtorch:load mtorch:seed mtorch:summary
    mtorch.testing:check_gradients mtorch.testing:GradientError mtorch.testing:strict
    mtorch:Layer.remember mtorch:Layer.recall mtorch:Layer.walk mtorch:Layer.core mtorch:Parameter.accumulate
    mtorch.losses.base:LossFunction mtorch.losses.base:LossFunction.terms mtorch.optim.base:Optimizer
    mtorch.optim.base:Optimizer.rate mtorch.initializers:as_generator mtorch.training:train_epoch
    mtorch.training:evaluate mtorch.data:load_digits_data mtorch.checkpoint:save mtorch.checkpoint:load
    apps.mnist.__main__:main apps.rnn_sin_cos.__main__:main
""".split()

BASES = {
    "mtorch:Layer", "mtorch:Parameter", "mtorch:Buffer", "mtorch:Module", "mtorch:Container", "mtorch:Sequential",
    "mtorch:Graph", "mtorch:Input", "mtorch:Loss", "mtorch.losses:LossFunction", "mtorch.optim:Optimizer",
    "mtorch.data:DataLoader", "mtorch.data:Dataset", "mtorch.data:ArrayDataset",
}  # fmt: skip
MOVED = {"mtorch:Container": "mtorch.tape:Container"}  # given by the design, found elsewhere in that commit

# Words of the private vocabulary (the table of the issue); a name that is one of them, or begins with `bare_`, is
# private. `Fixed` and `Select` stand in that table too, but an `__all__` gave them to users: they keep their names.
PRIVATE = set(
    """
    door room admit admit_real admit_ids admit_array admit_target Doors flow expect meet spreads alone held undivided
    holding overwrites spare new_result new_grad promises moving firm lead settled thinned whole spoil Strip Team Crew
    Call part copies Plan Program places leaves goes spent DROP Symbol implied unread unspoilt note_fault raise_faults
    contributed proofs ancestors survivors floors bare rebuilt infer
""".split()
)
# Of the listed classes, what belongs to a private mechanism:
#   a rule hands a kernel of mtorch.kernels to the step; collect_in and buffers_below serve the flat parameter buffer
#   and the tape; chain and first_moving are the tape's; serial and apply are the tracer's.
INTERNAL = {
    "mtorch.optim:Optimizer.rule", "mtorch:Parameter.collect_in", "mtorch:Container.buffers_below",
    "mtorch:Sequential.buffers_below", "mtorch:Graph.buffers_below", "mtorch:Sequential.chain",
    "mtorch:Sequential.first_moving", "mtorch:Input.serial", "mtorch:Input.apply", "mtorch:Input.operand",
    "mtorch:Input.layer",
}  # fmt: skip

APPS = {"apps.mnist": ("train", "evaluate", "predict", "compare"), "apps.rnn_sin_cos": ("",)}


# ---------------------------------------------------------------------- names and signatures


def resolve(name: str) -> Any:
    """What `module:Qualified.name` names; AttributeError or ImportError where there is none."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def signature(thing: Any) -> inspect.Signature | None:
    """The signature of a call by a user; `**options` that bases take are written out. None for what is not called."""
    if isinstance(thing, type):
        own = thing.__init__
        if hasattr(thing, "_fields"):
            return inspect.signature(thing)
        if getattr(thing, "_is_protocol", False) or not getattr(own, "__module__", "").startswith("mtorch"):
            return None
        found = _without_first(inspect.signature(own))
        return _written_out(found, [vars(base).get("__init__") for base in thing.__mro__])
    if not inspect.isroutine(thing):
        return None
    return inspect.signature(thing)


def user_signature(name: str, thing: Any) -> inspect.Signature | None:
    """The signature of what has that name; a method's is without its instance."""
    found = signature(thing) if callable(thing) else None
    bound = found is not None and "." in name.partition(":")[2] and inspect.isfunction(thing)
    return _without_first(found) if bound else found


def _without_first(found: inspect.Signature) -> inspect.Signature:
    return found.replace(parameters=list(found.parameters.values())[1:])


def _written_out(found: inspect.Signature, inits: list[Any]) -> inspect.Signature:
    """The signature with the arguments of the bases' constructors in place of `*args` and `**options`."""
    kinds = {each.kind for each in found.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return found
    bases = [_without_first(inspect.signature(init)) for init in inits if inspect.isfunction(init)]
    parts = [each for each in found.parameters.values() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    known = {each.name for each in parts}
    for base in bases:
        for each in base.parameters.values():
            keyword = each.kind is each.KEYWORD_ONLY
            positional = each.kind is each.POSITIONAL_OR_KEYWORD and inspect.Parameter.VAR_POSITIONAL in kinds
            if each.name not in known and (keyword or positional):
                known.add(each.name)
                parts.append(each)
        if not any(each.kind is each.VAR_KEYWORD for each in base.parameters.values()):
            break
    parts.sort(key=lambda each: each.kind)
    return found.replace(parameters=parts)


def text_of(found: inspect.Signature) -> str:
    """The signature without types; a default that is no plain value is written as `...`."""
    plain = (bool, int, float, str, tuple, type(None))
    parameters = []
    for each in found.parameters.values():
        default = each.default
        if isinstance(default, ModuleType):
            default = _Text(default.__name__)
        elif default is not each.empty and not isinstance(default, plain):
            default = _Text("...")
        parameters.append(each.replace(annotation=each.empty, default=default))
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


class _Text:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def lost(before: str, after: inspect.Signature) -> list[str]:
    """What a call could say by the signature `before` (as text) that it cannot say, or that means another default."""
    arguments = ast.parse(f"def f{before}: pass").body[0].args  # type: ignore[attr-defined]
    places = [*arguments.posonlyargs, *arguments.args]
    new = list(after.parameters.values())
    by_name = {each.name: each for each in new}
    new_places = [each for each in new if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    any_places = any(each.kind is each.VAR_POSITIONAL for each in new)
    any_names = any(each.kind is each.VAR_KEYWORD for each in new)
    defaults = dict(zip([each.arg for each in places][::-1], arguments.defaults[::-1], strict=False))
    defaults |= {k.arg: d for k, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
    found = []
    for i, each in enumerate(places):
        if not any_places and (i >= len(new_places) or new_places[i].name != each.arg):
            found.append(f"argument {i} is no longer {each.arg}")
    for each in [*arguments.args, *arguments.kwonlyargs]:
        name, now = each.arg, by_name.get(each.arg)
        if now is None and not any_names:
            found.append(f"takes no {name}")
        elif now is not None and name in defaults:
            default = ast.unparse(defaults[name])
            if now.default is now.empty:
                found.append(f"{name} has no default")
            elif default != "..." and ast.unparse(ast.parse(_default_text(now.default), mode="eval")) != default:
                found.append(f"{name} is {_default_text(now.default)} by default, not {default}")
    if arguments.vararg and not any_places:
        found.append(f"takes no *{arguments.vararg.arg}")
    if arguments.kwarg and not any_names:
        found.append(f"takes no **{arguments.kwarg.arg}")
    old = {each.arg for each in [*places, *arguments.kwonlyargs]}
    for each in new:
        variable = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if each.name not in old and each.default is each.empty and not variable and not arguments.vararg:
            found.append(f"wants {each.name}")
    return found


def _default_text(default: Any) -> str:
    return default.__name__ if isinstance(default, ModuleType) else repr(default)


# ---------------------------------------------------------------------- instances


def samples() -> dict[str, Any]:
    """An instance of each class in `BASES`, because not all attributes belong to the class."""
    import mtorch
    from mtorch import layers, optim
    from mtorch.data import ArrayDataset, DataLoader

    net = mtorch.Sequential(layers.Linear(3, 2, rng=0), layers.Tanh())
    function = mtorch.SquareLoss()
    data = ArrayDataset(numpy.zeros((4, 3), "float32"))
    return {
        "mtorch:Layer": mtorch.Layer(), "mtorch:Parameter": mtorch.Parameter(numpy.zeros(3, "float32")),
        "mtorch:Buffer": mtorch.Buffer(numpy.zeros(3)), "mtorch:Module": mtorch.Module(net), "mtorch:Container": net,
        "mtorch:Sequential": net, "mtorch:Graph": mtorch.Graph.of(mtorch.exp(mtorch.Input("x"))),
        "mtorch:Input": mtorch.Input("x"), "mtorch:Loss": function(numpy.zeros((1, 2)), numpy.zeros((1, 2))),
        "mtorch.losses:LossFunction": function, "mtorch.optim:Optimizer": optim.SGD(mtorch.Module(net), 0.1),
        "mtorch.data:DataLoader": DataLoader(data), "mtorch.data:Dataset": data, "mtorch.data:ArrayDataset": data,
    }  # fmt: skip


def examples(cls: type) -> Iterator[Any]:
    """The layers of a class's examples."""
    for layer, _ in cls.examples(xp=numpy, dtype=numpy.dtype("float32"), rng=numpy.random.default_rng(0)):
        yield layer


def state_names(cls: type) -> list[str]:
    return list(dict.fromkeys(name for layer in examples(cls) for name in layer.state_dict()))


# ---------------------------------------------------------------------- where names are given


def code_blocks(text: str) -> Iterator[ast.Module]:
    """The examples of a Markdown page or a docstring: fenced blocks, and indented ones that are Python."""
    fenced = re.findall(r"```python\n(.*?)```", text, re.S)
    indented = re.findall(r"(?:^(?: {4,}.*)?\n)+", inspect.cleandoc(text) + "\n", re.M)
    for block in fenced + [inspect.cleandoc(block) for block in indented]:
        with contextlib.suppress(SyntaxError):
            yield ast.parse(block)


def given(tree: ast.AST) -> Iterator[str]:
    """`module:name` for what a piece of code imports from the package, and for dotted names that begin with it."""
    homes = {"mtorch": "mtorch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mtorch":
            for alias in node.names:
                yield f"{node.module}:{alias.name}"
                homes[alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in homes:
            home = homes[node.value.id]
            with contextlib.suppress(ImportError):
                importlib.import_module(home)
                yield f"{home}:{node.attr}"


def given_by_text(root: Path) -> Iterator[str]:
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for tree in code_blocks(page.read_text()):
            yield from given(tree)
    for path in (root / "apps").rglob("*.py"):
        yield from given(ast.parse(path.read_text()))
    for path in (root / "mtorch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for tree in code_blocks(ast.get_docstring(node) or ""):
                    yield from given(tree)


def is_private(name: str) -> bool:
    last = name.replace(":", ".").split(".")[-1]
    hidden = ("mtorch.kernels", "mtorch.tape", "mtorch.containers")
    return last in PRIVATE or last.startswith(("_", "bare_")) or name.startswith(hidden) or name in INTERNAL


def all_names(root: Path) -> set[str]:
    found = {f"{name}:{each}" for name in MODULES for each in importlib.import_module(name).__all__}
    for name in OPEN_MODULES:
        module = importlib.import_module(name)
        for each, thing in vars(module).items():
            if inspect.isroutine(thing) or isinstance(thing, type):
                if thing.__module__ == name:
                    found.add(f"{name}:{each}")
    found |= set(DESIGN) | BASES | set(given_by_text(root))
    instances = samples()
    for name in BASES:
        cls, instance = resolve(MOVED.get(name, name)), instances[name]
        everything = set(dir(cls)) | set(getattr(instance, "__dict__", ()))
        if name in ("mtorch:Container", "mtorch.optim:Optimizer", "mtorch.losses:LossFunction", "mtorch.data:Dataset"):
            assigned = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
            stored = [n for n in assigned if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
            mine = {n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == "self"}
            everything = set(dir(cls)) | mine  # the instance is one of a subclass
        found |= {f"{name}.{each}" for each in everything}
    return {name for name in found if not is_private(name)}


def resolved(name: str) -> Any:
    """What the name stands for, for an attribute of instances that one's value; None where there is none."""
    moved = next((name.replace(old, new, 1) for old, new in MOVED.items() if name.startswith(old)), name)
    with contextlib.suppress(AttributeError, ImportError):
        return resolve(moved)
    return None


def options(app: str, command: str) -> dict[str, str]:
    """{option: its choices as the help page shows them}, positional arguments included."""
    module = importlib.import_module(f"{app}.__main__")
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        module.main([*([command] if command else []), "--help"])
    usage = re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())
    found = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage), "")
    found |= {option: choices for option, choices in re.findall(r"(--[a-z-]+) (\{[^}]*\})", " ".join(usage.split()))}
    found |= dict.fromkeys(re.findall(r"^  ([A-Z]+)$", usage, re.M), "")  # arguments by position
    return {option: "".join(choices.split()) for option, choices in sorted(found.items())}


def environment(root: Path) -> list[str]:
    text = "\n".join(path.read_text() for path in (root / "mtorch").rglob("*.py"))
    return sorted(set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", text)))


def lines(root: Path) -> Iterator[str]:
    yield HEADER
    names = sorted(all_names(root))
    for name in names:
        found = user_signature(name, resolved(name))
        yield name if found is None else f"{name}{text_of(found)}"
    import mtorch

    for name in names:
        thing = resolved(name)
        if (
            name.startswith(("mtorch.layers:", "mtorch:"))
            and isinstance(thing, type)
            and issubclass(thing, mtorch.Layer)
        ):
            with contextlib.suppress(NotImplementedError):
                state = state_names(thing)
                if state:
                    yield f"state {name} {' '.join(state)}"
    for app, commands in APPS.items():
        for command in commands:
            for option, choices in options(app, command).items():
                yield " ".join(filter(None, ("option", app, command, option, choices)))
    for name in environment(root):
        yield f"environment {name}"


if __name__ == "__main__":
    import mtorch

    top = Path(mtorch.__file__).parents[1]
    sys.path.insert(0, str(top))
    print("\n".join(lines(top)))
