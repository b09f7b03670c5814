"""Every name that a user was given before the folders were laid out anew is still there and takes what it took.

`tools/public_names.py` wrote the list from that commit. A name may gain arguments with a default; it loses none, and
none changes its place or its default. Where that was intended, `CHANGED` has the new signature and the reason.
"""

import inspect
from pathlib import Path
from typing import Any

import public_names
import pytest

import mtorch

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "tests" / "public_names.txt").read_text().splitlines() if line[:1] != "#"]
NAMES = [line for line in LINES if line.split(" ")[0] not in ("state", "option", "environment")]
STATES = [line.removeprefix("state ") for line in LINES if line.startswith("state ")]
OPTIONS = [line.removeprefix("option ") for line in LINES if line.startswith("option ")]
ENVIRONMENT = [line.removeprefix("environment ") for line in LINES if line.startswith("environment ")]

# The first argument of a class with torch's name means what it means in torch, where it was the size of the last axis;
# and so does the sixth of a transposed convolution, which was the dilation: (8, 4, 3, 2, 1, 1) is what people write.
ON = "xp=numpy, dtype='float32', rng=None"
CHANGED = {
    "mtorch.layers:ConvTranspose2d": (
        "(in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, "
        f"dilation=1, *, {ON})"
    ),
    "mtorch.layers:ELU": f"(alpha=1.0, *, {ON})",
    "mtorch.layers:GELU": f"(approximate='none', *, {ON})",
    "mtorch.layers:Hardtanh": f"(min_val=-1.0, max_val=1.0, *, {ON})",
    "mtorch.layers:LeakyReLU": f"(negative_slope=0.01, *, {ON})",
    "mtorch.layers:LogSoftmax": f"(dim=None, *, axis=None, {ON})",
    "mtorch.layers:SiLU": f"(*, {ON})",
    "mtorch.layers:Softmax": f"(dim=None, *, axis=None, {ON})",
    "mtorch.layers:Softplus": f"(beta=1.0, threshold=None, *, {ON})",
}


@pytest.fixture(scope="module")
def instances() -> dict[str, Any]:
    return public_names.samples()


def an_instance(name: str, instances: dict[str, Any]) -> Any:
    if name in instances:
        return instances[name]
    return next(public_names.examples(public_names.resolve(name)))


@pytest.mark.parametrize("line", NAMES, ids=lambda line: line.partition("(")[0])
def test_a_name_is_there_and_takes_what_it_took(line, instances):
    name, bracket, rest = line.partition("(")
    try:
        thing = public_names.resolve(name)
    except AttributeError:
        owner, _, attribute = name.rpartition(".")
        assert ":" in owner and not bracket, f"{name} is not there"
        assert hasattr(an_instance(owner, instances), attribute), f"{name} is not there"
        return
    if bracket:
        found = public_names.user_signature(name, thing)
        assert found is not None, f"{name} is called no longer"
        before = CHANGED.get(name, bracket + rest)
        assert name not in CHANGED or public_names.lost(bracket + rest, found), f"{name} has not changed"
        lost = public_names.lost(before, found)
        assert not lost, f"{line}: {', '.join(lost)}"


@pytest.mark.parametrize("line", STATES, ids=lambda line: line.split(" ")[0])
def test_names_in_a_state_dict_stay(line):
    name, *names = line.split(" ")
    missing = set(names) - set(public_names.state_names(public_names.resolve(name)))
    assert not missing, f"the state dicts of {name} have no {', '.join(sorted(missing))}"


@pytest.mark.parametrize(
    "app, command", [(app, each) for app, commands in public_names.APPS.items() for each in commands]
)
def test_an_app_takes_every_option_that_it_took(app, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    start = f"{app} {command}".strip() + " "
    before = [line.removeprefix(start).split(" ") for line in OPTIONS if line.startswith(start)]
    after = public_names.options(app, command)
    assert before
    for option, *choices in before:
        assert option in after, f"{start}has no {option}"
        if choices:
            old, new = (set(text.strip("{}").split(",")) for text in (choices[0], after[option]))
            assert old <= new, f"{start}{option} takes no {', '.join(old - new)}"


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_an_environment_variable_is_read(name):
    assert name in public_names.environment(Path(mtorch.__file__).parents[1])


def test_what_is_lost_is_found():
    def before(a, b=2, *, c=3):
        pass

    def accepts(a, b=2, e=5, *, c=3, d=4):
        pass

    def reordered(b, a=2, *, c=3):
        pass

    def narrower(a, *, c):
        pass

    def other_default(a, b=3, *, c=3):
        pass

    def wants_more(a, b, *, c=3, d):
        pass

    text = public_names.text_of(inspect.signature(before))
    assert text == "(a, b=2, *, c=3)"
    found = [public_names.lost(text, inspect.signature(each)) for each in (before, accepts)]
    assert found == [[], []]
    for each in (reordered, narrower, other_default, wants_more):
        assert public_names.lost(text, inspect.signature(each)), each.__name__
