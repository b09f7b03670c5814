"""`python -m mtorch explain NAME`: equation, shapes, derivation, numbers, code and proof of a class.

All of it is read from the class: its docstring, its code, and its `examples()`; so it cannot drift from them. A page is
made once, as sections of blocks, and written as text, as Markdown or as HTML.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy

from mtorch import arrays
from mtorch.insight.explain import docstring
from mtorch.insight.explain.blocks import Page, Prose, Section, Table
from mtorch.insight.explain.code import code_blocks, file_of
from mtorch.insight.explain.names import example_of, families, find
from mtorch.insight.explain.numbers import numbers_of
from mtorch.insight.explain.proof import prove, said
from mtorch.insight.explain.trace import Trace
from mtorch.losses.base import LossFunction
from mtorch.optim.base import Optimizer
from mtorch.optim.schedules import Schedule


def explain(name: str) -> Page:
    """The page of a class by its name; LookupError, which names the nearest, for an unknown one."""
    cls: Any = find(name)
    shown: Any = example_of(cls)
    parts = docstring.sections(cls)
    equation = parts.get("equation", [Prose("It has no docstring.")])
    if shown is not cls:
        text = f"{cls.__name__} is what others extend; numbers, code and proof are those of {shown.__name__}."
        equation.append(Prose(text))
    try:
        example, trace = numbers_of(shown)
    except Exception as error:  # a class that is broken still gets its page, and its proof fails
        example, trace = [Prose(f"It does not run: {said(error)}")], Trace(None, set())
    sections = [
        Section("equation", equation),
        Section("shapes", [*parts.get("shapes", []), *shapes(shown)]),
        Section("derivation", derivation(cls, shown)),
        *(Section(title, parts[title]) for title in ("errors", "notes") if title in parts),
        Section("worked example", example),
        Section("code", code_blocks(shown, trace)),
        *(Section(title, parts[title]) for title in ("literature",) if title in parts),
    ]
    found = Page(cls.__name__, signature(cls), file_of(cls), sections)
    found.sections.append(proof_section(shown, found))
    return found


def page(name: str) -> str:
    """The page of a class as Markdown, for the documentation."""
    from mtorch.insight.explain.markdown import markdown

    return markdown(explain(name))


def signature(cls: Any) -> str:
    """Name(arguments), without type hints and without what every layer takes."""
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name not in ("xp", "dtype", "rng")]
    while parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD and parameters[-1].name != "options":
        parameters.pop()
    text = str(inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters]))
    return cls.__name__ + text.replace("<function ", "").replace(", *)", ")").replace("(*)", "()")


def shapes(cls: Any) -> list[Any]:
    """The shapes of the examples as they run, in a table."""
    if issubclass(cls, Optimizer):
        return [Prose("A direction d and each state have the shape of their parameter.")]
    if issubclass(cls, Schedule):
        return [Prose("schedule(k) takes the number of a step, counted from 0, and returns a float.")]
    rows = []
    try:
        from mtorch.testing.gradients import make_value

        for subject, inputs in cls.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
            value = make_value(inputs, numpy, numpy.dtype("float64"), numpy.random.default_rng(1))
            if isinstance(subject, LossFunction):
                result: Any = numpy.asarray(subject(*value).value)
            else:
                result = subject.predict(value)
            rows.append([repr(subject), str(arrays.shape_value(value)), str(arrays.shape_value(result))])
            if len(rows) == 3:
                break
    except Exception as error:
        rows.append(["fails", f"{type(error).__name__}", ""])
    return [Table(["for example", "takes", "returns"], rows)]


OPTIMIZER = (
    "An optimizer derives nothing: backward has collected the gradient g of each parameter, the equations above make a "
    "direction d of it, and step does w := w - lr d. With d = g this moves w against the slope of the loss, which to "
    "first order falls by lr |g|^2."
)


def derivation(cls: Any, shown: Any) -> list[Any]:
    """What the docstring derives, else that of the class which is shown for it, else why there is nothing to derive."""
    own = docstring.sections(cls).get("derivation", [])
    if not own and shown is not cls:
        own = [Prose(f"Of {shown.__name__}:"), *docstring.sections(shown).get("derivation", [])]
    if not own and issubclass(shown, Schedule):
        own = [Prose("A rate is a number that no gradient passes through: there is nothing to derive.")]
    if not own and issubclass(shown, Optimizer):
        own = [Prose(OPTIMIZER)]
    return own


def proof_section(cls: Any, into: Page) -> Section:
    """Runs the proof; its last line goes into the page, too."""
    proof = prove(cls)
    rows = [[check.subject, f"{check.error:.1e}"] for check in proof.checks]
    blocks: list[Any] = [Prose(proof.method), Table(["example", "error"], rows)]
    blocks += [Prose(f"{check.subject}: {check.fault}") for check in proof.checks if check.fault]
    if proof.left:
        more = "1 more example was" if proof.left == 1 else f"{proof.left} more examples were"
        blocks.append(Prose(f"{more} left out, to end in time; the tests run them all."))
    blocks.append(Prose(f"Allowed: {proof.tolerance:.0e}. It {'holds' if proof.holds else 'FAILS'}."))
    into.proof, into.proved = f"proof: largest error {proof.error:.0e}", proof.holds
    return Section("proof", blocks)


def listing() -> str:
    """All names by family."""
    from mtorch.insight.explain.lines import wrapped

    lines = ["python -m mtorch explain NAME explains one of these:", ""]
    for family, classes in families().items():
        lines += [family, *wrapped("  ".join(classes), "    ", "    "), ""]
    return "\n".join(lines).rstrip()


def main(name: str | None, html: str | None = None) -> int:
    """Prints the page of a class, or writes it as HTML; 0, or 1 where the proof fails, or 2 for an unknown name."""
    from mtorch.insight.explain.html import html as as_html
    from mtorch.insight.explain.text import text as as_text

    if name is None:
        print(listing())
        return 0
    try:
        found = explain(name)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if html is None:
        print(as_text(found))
    elif html == "-":
        print(as_html(found))
    else:
        try:
            Path(html).write_text(as_html(found), encoding="utf-8")
        except OSError as error:
            print(f"cannot write {html}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"{html}\n{found.proof}")
    return 0 if found.proved else 1


__all__ = ["explain", "listing", "main", "page"]
