"""`python -m mtorch explain NAME`: what each page has, and that its proof can fail."""

import ast
import contextlib
import inspect
import io
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy
import pytest
from harness import final_classes

import mtorch
from mtorch import layers, losses, optim
from mtorch.__main__ import main
from mtorch.insight import explain
from mtorch.insight.explain import docstring, examples, names, proof
from mtorch.insight.explain.blocks import Code, Numbers, written
from mtorch.insight.explain.formula import equations, evaluate, expression
from mtorch.insight.explain.lines import wrapped_code
from mtorch.layer import Layer
from mtorch.layers.activation import Activation
from mtorch.losses.base import LossFunction
from mtorch.optim import schedules

ROOT = Path(mtorch.__file__).parents[1]
FAMILIES = names.families()
NAMES = [name for family in FAMILIES.values() for name in family]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One or two examples in each proof: the conformance suite runs them all."""
    monkeypatch.setattr(proof.prove, "__defaults__", (0.0,))


@pytest.fixture
def no_proof(monkeypatch):
    monkeypatch.setattr(explain, "prove", lambda cls: proof.Proof("", [proof.Check("", 0.0)]))


def run(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(argv)
    return status, out.getvalue(), err.getvalue()


def proof_of(text: str) -> float:
    last = text.rstrip().rpartition("\n")[2]
    return float(re.fullmatch(r"proof: largest error (\S+)", last)[1])


# ---------------------------------------------------------------------- every name


@pytest.mark.parametrize("name", NAMES)
def test_every_page_has_its_sections_within_80_columns_and_its_proof_holds(name):
    status, text, err = run("explain", name)
    assert status == 0 and err == ""
    lines = text.splitlines()
    headings = ["equation", "shapes", "derivation", "worked example", "forward", "backward", "code", "proof"]
    places = [lines.index(heading) for heading in headings]
    assert places == sorted(places)
    assert max(map(len, lines)) <= 80
    for begin, end in zip(places, places[1:], strict=False):
        if lines[begin] not in ("worked example",):
            assert any(line.strip() for line in lines[begin + 2 : end]), f"nothing under {lines[begin]}"
    assert proof_of(text) <= 1e-10
    assert "does not run" not in text
    example = "\n".join(line for line in lines[places[3] : places[6]] if re.match("  +[^> ]", line))
    assert re.search(r"\d\.\d\d", example) and not re.search(r"\d\.\s|\d\.\]", example)


def test_every_public_layer_loss_optimizer_and_schedule_can_be_explained():
    known = names.every_name()
    for module in (mtorch, layers, losses, optim, schedules):
        for name in getattr(module, "__all__", vars(module)):
            item = getattr(module, name)
            kinds = Layer, LossFunction, optim.Optimizer, schedules.Schedule, losses.Loss
            if isinstance(item, type) and issubclass(item, kinds) and not name.startswith("_"):
                assert known[name] is item
    for base in (Layer, LossFunction):
        for cls in final_classes(base):
            assert known[cls.__name__] is cls


@pytest.mark.parametrize("name", ["Layer", "Container", "LossFunction", "Loss", "Optimizer", "Schedule", "Linear2"])
def test_what_others_extend_is_explained_by_one_of_them(name):
    status, text, _ = run("explain", name)
    assert status == 0 and proof_of(text) <= 1e-10


def test_names_are_found_in_any_case_and_unknown_ones_name_the_nearest():
    assert names.find("conv2d") is names.find("mtorch.layers.Conv2d") is layers.Conv2d
    assert names.find("layer_norm") is layers.LayerNorm
    for wrong, near in (("Conv3d", "Conv2d"), ("Lstmm", "LSTM"), ("adamm", "Adam"), ("entropy", "CrossEntropyLoss")):
        status, out, err = run("explain", wrong)
        assert status > 0 and out == "" and near in err and err.count("\n") == 1, err
    status, out, err = run("explain", "qqqqqq")
    assert status > 0 and "qqqqqq" in err and "python -m mtorch explain lists them all" in err


def test_without_a_name_all_are_listed_by_family_as_in_the_catalogue():
    status, text, _ = run("explain")
    assert status == 0 and max(map(len, text.splitlines())) <= 80
    for family, classes in FAMILIES.items():
        assert f"\n{family}\n" in text
        assert set(classes) <= set(text.split())
    import make_catalogue

    assert {family: names.split() for family, names in make_catalogue.FAMILIES.items()} == {
        family: list(classes) for family, classes in FAMILIES.items() if family not in ("Optimizers", "Schedules")
    }


def test_without_a_command_there_is_help():
    status, text, _ = run()
    assert status == 0 and "explain Conv2d" in text and "doctor" in text


# ---------------------------------------------------------------------- the numbers


def numbers(name: str) -> dict[str, numpy.ndarray]:
    """The values of the worked example by label; of several of one label the last."""
    page = explain.explain(name)
    section = next(each for each in page.sections if each.title == "worked example")
    return {block.name: block.value for block in section.blocks if isinstance(block, Numbers)}


def test_the_numbers_of_linear_are_those_of_its_equation(no_proof):
    n = numbers("Linear")
    x, W, b, y, g = (n[name] for name in "x W b y g".split())
    assert numpy.array_equal(y, x @ W.T + b) and numpy.array_equal(n["dx"], g @ W)
    assert numpy.array_equal(n["dW"], g.T @ x) and numpy.array_equal(n["db"], g.sum(axis=0))


def test_the_numbers_of_a_loss_and_of_an_optimizer_are_those_of_their_equations(no_proof):
    n = numbers("MSELoss")
    assert n["L"] == ((n["p"] - n["t"]) ** 2).mean()
    assert numpy.allclose(n["dL/dp"], 2 * (n["p"] - n["t"]) / 4, atol=0)
    n = numbers("SGD")
    assert numpy.allclose(n["d"], n["g"]) and n["y"] == -1 and n["L"] == 4


def test_the_statements_of_the_code_are_shown_with_what_they_gave(no_proof):
    text = run("explain", "Softmax")[1]
    assert "  > e = self.xp.exp(self.shifted(x))\n    e (1, 3) = [[0.1353, 0.3679, 1.0000]]" in text
    text = run("explain", "LSTM")[1]
    assert "# in step, call 2" in text and "> c_new = f * c + i * g" in text


def test_numbers_are_printed_with_decimals_and_in_columns():
    assert (
        written(1.0) == "1.00" and written(numpy.array([[1.0, -2.5], [10, 0]])) == "[[ 1.00, -2.50],\n [10.00,  0.00]]"
    )
    assert written(numpy.array([1 / 3])) == "[0.3333]" and written(numpy.array([-1e-17, 1.0])) == "[0.0000, 1.0000]"
    assert written(numpy.array([1.5e-6])) == "[1.50e-06]" and written(0.0015) == "0.001500"
    assert written(numpy.array([0.0015, 0])) == "[0.001500, 0.000000]" and written(numpy.array([2, 0])) == "[2, 0]"


def test_a_class_without_an_entry_takes_the_smallest_of_its_examples(monkeypatch, no_proof):
    monkeypatch.setattr(examples, "EXAMPLES", {})
    for name in ("Linear", "Tanh", "MSELoss", "Add", "LSTM"):
        assert "does not run" not in run("explain", name)[1]


# ---------------------------------------------------------------------- the code


@pytest.mark.parametrize(
    "name", ["Linear", "Softmax", "LSTM", "Conv2d", "MultiHeadAttention", "Graph", "CrossEntropyLoss"]
)
def test_wrapped_code_is_the_same_code(name, no_proof):
    page = explain.explain(name)
    for section in page.sections:
        for block in (each for each in section.blocks if section.title == "code" and isinstance(each, Code)):
            for width in (76, 60):
                lines = wrapped_code(block.source, width)
                assert max(map(len, lines)) <= width
                assert same_code("\n".join(lines), block.source), "\n".join(lines)


def same_code(a: str, b: str) -> bool:
    def dumped(source: str) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]  # wrapped as prose is
        return ast.dump(tree)

    return dumped(a) == dumped(b)


def test_the_reference_body_is_shown_where_a_faster_one_runs(no_proof):
    text = run("explain", "Tanh")[1]
    for line in textwrap.dedent(inspect.getsource(layers.Tanh.backward)).strip().splitlines():
        assert f"    {line}" in text


# ---------------------------------------------------------------------- the proof


def status_of(cls, monkeypatch, method, body) -> tuple[int, str]:
    monkeypatch.setattr(cls, method, body)
    status, text, _ = run("explain", cls.__name__)
    return status, text


def test_a_layer_with_a_wrong_backward_fails_its_proof(monkeypatch):
    def backward(self, output_grad):
        return self.cast_grad(output_grad) * (1 - self.recall())  # not squared

    status, text = status_of(layers.Tanh, monkeypatch, "backward", backward)
    assert status == 1 and proof_of(text) > 1e-3 and "It FAILS." in text


def test_a_layer_that_raises_still_gets_a_page_and_fails(monkeypatch):
    def forward(self, x):
        raise ZeroDivisionError("broken")

    status, text = status_of(layers.GELU, monkeypatch, "forward", forward)
    assert status == 1 and proof_of(text) == math.inf and "ZeroDivisionError: broken" in text


def test_a_loss_with_a_wrong_gradient_fails_its_proof(monkeypatch):
    status, text = status_of(losses.L1Loss, monkeypatch, "terms", lambda self, xp, p, t: (abs(p - t), p - t))
    assert status == 1 and proof_of(text) > 1e-3


def test_an_optimizer_whose_code_is_not_its_equation_fails_its_proof(monkeypatch):
    def rule(self, xp, g, state, t):
        state.sum = state.sum + g * g
        return g / (xp.sqrt(state.sum) + 2 * self.eps + 1e-3)

    status, text = status_of(optim.Adagrad, monkeypatch, "rule", rule)
    assert status == 1 and proof_of(text) > 1e-6


def test_a_schedule_whose_code_is_not_its_equation_fails_its_proof(monkeypatch):
    status, text = status_of(
        schedules.ExponentialLR, monkeypatch, "__call__", lambda self, k: self.lr * self.gamma ** (k + 1)
    )
    assert status == 1 and proof_of(text) > 1e-3


def test_a_faster_body_that_differs_from_the_reference_fails_the_proof(monkeypatch):
    before = proof._outcome
    monkeypatch.setattr(
        proof, "_outcome", lambda subject, value, fast: [a + 1e-6 * fast for a in before(subject, value, fast)]
    )
    status, text, _ = run("explain", "ReLU")
    assert status == 1 and 1e-7 < proof_of(text) < 1e-5


def test_every_optimizer_and_schedule_has_an_equation_that_can_be_read():
    for cls in FAMILIES["Optimizers"].values():
        found = proof.prove(cls, 10)
        assert found.holds and len(found.checks) == len(list(cls.examples())), found
    for cls in FAMILIES["Schedules"].values():
        assert proof.prove(cls, 10).holds


def test_an_optimizer_of_ones_own_is_held_against_its_docstring():
    class Lion(optim.Optimizer):
        """d = sign(0.9 m + 0.1 g), then m := 0.99 m + 0.01 g."""

        slots, decoupled = ("exp_avg",), True

        def rule(self, xp, g, state, t):
            d = xp.sign(0.9 * state.exp_avg + 0.1 * g)
            state.exp_avg = 0.99 * state.exp_avg + 0.01 * g
            return d

        @classmethod
        def examples(cls):
            yield {"lr": 0.01}
            yield {"lr": 0.01, "weight_decay": 0.1}

    class Wrong(Lion):
        """d = sign(0.8 m + 0.2 g), then m := 0.99 m + 0.01 g."""

    class Silent(Lion):
        """Like Lion."""

    assert proof.prove(Lion, 10).holds and not proof.prove(Wrong, 10).holds
    silent = proof.prove(Silent, 10)
    assert silent.error == math.inf and "has no equation for d" in silent.checks[0].fault


def test_formulas_are_read_as_they_are_written():
    def value(text, **names):
        return float(evaluate(expression(text, names)[0], names))

    assert value("a b + 2 (a - b)^2", a=3.0, b=1.0) == 11
    assert value("a / 2 b", a=8.0, b=2.0) == 8 and value("-a^2", a=3.0) == -9
    assert value("sqrt(a) [a > 3] + max(a, 7)", a=4.0) == 9 and value("1e-3 a, or so", a=2.0) == 0.002
    assert expression("lr * gamma^k: the rate", ("lr", "gamma", "k"))[0] == "lr*gamma**k"
    found = equations("m := b m + g and, as in d = m / 2.  Then nothing", {"b", "g"})
    assert [(each.name, each.state, each.expression) for each in found] == [
        ("m", True, "b*m+g"),
        ("d", False, "m/WIDE('2')"),
    ]
    with pytest.raises(ValueError, match="no equation begins"):
        expression("with nothing", ())


# ---------------------------------------------------------------------- docstrings


def test_a_docstring_is_divided_into_its_sections():
    class Mine(Activation):
        """y = 2 x.

        scale: what is said of an argument goes on
            in the next line.

        Shapes: any -> the same.  Remembers nothing.

        Backward: dy/dx = 2, so
            dx = 2 output_grad,
        as in every line.

        Somebody, "A paper", 1999.
        """

    found = docstring.sections(Mine)
    assert list(found) == ["equation", "shapes", "derivation", "literature"]
    assert found["equation"][1].option == "scale" and found["equation"][1].text.endswith("goes on in the next line.")
    assert [type(block).__name__ for block in found["derivation"]] == ["Prose", "Prose", "Formula", "Prose"]


def test_every_layer_and_loss_has_its_derivation_in_its_own_docstring():
    """With a reason: the formula alone is not enough."""
    for family, classes in FAMILIES.items():
        for name, cls in classes.items():
            if family not in ("Optimizers", "Schedules"):
                blocks = docstring.sections(cls).get("derivation", [])
                words = " ".join(str(block) for block in blocks)
                assert len(words.split()) >= 10, f"{name}: {words}"


# ---------------------------------------------------------------------- HTML and Markdown


def test_the_html_page_is_one_file_that_asks_for_no_other(tmp_path):
    path = tmp_path / "page.html"
    status, text, _ = run("explain", "Conv2d", "--html", str(path))
    assert status == 0 and proof_of(text) <= 1e-10
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[\w.]+\.\w|src=|@import|url\(", page)
    for heading in ("equation", "shapes", "derivation", "worked example", "code", "proof"):
        assert f"<h2>{heading}</h2>" in page
    assert "<h3>forward</h3>" in page and "<h3>backward</h3>" in page and "prefers-color-scheme: dark" in page
    status, printed, _ = run("explain", "Conv2d", "--html")
    assert status == 0 and printed.startswith("<!doctype html>") and printed.rstrip().endswith("</html>")


@pytest.mark.parametrize("left, says", [(1, "1 more example was left out"), (2, "2 more examples were left out")])
def test_examples_that_were_left_out_are_counted(left, says, monkeypatch):
    monkeypatch.setattr(explain, "prove", lambda cls: proof.Proof("", [proof.Check("", 0.0)], left))
    assert says in run("explain", "Tanh")[1]


def test_html_may_stand_before_the_name(no_proof):
    status, out, err = run("explain", "--html", "Tanh")
    assert status == 0 and "<title>Tanh" in out and err == ""


def test_html_that_cannot_be_written_is_one_line(tmp_path):
    status, out, err = run("explain", "Tanh", "--html", str(tmp_path / "no" / "page.html"))
    assert status > 0 and err.count("\n") == 1 and "cannot write" in err


def test_a_page_is_markdown_for_the_documentation():
    text = explain.page("Conv2d")
    assert text.startswith("# Conv2d\n") and "\n## derivation\n" in text and "```python\n@accelerated" in text
    assert text.count("```") % 2 == 0 and re.search(r"\*\*proof: largest error \S+\*\*", text)


# ---------------------------------------------------------------------- as a command


def test_the_command_ends_in_time_and_with_its_proof():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mtorch", "explain", "Tanh"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "" and proof_of(done.stdout) <= 1e-10
    code = "import sys, mtorch.__main__; print([n for n in sys.modules if 'explain' in n or 'cupy' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]"
