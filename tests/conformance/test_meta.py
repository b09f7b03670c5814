"""A new layer or loss is one file, and its proofs appear by themselves: dropped into a copy of the package, they do."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYER = '''"""A layer that the package has never seen."""

from mtorch.layers.activation import Activation


class {name}(Activation):
    """y = x^3.  Backward: dx = 3 g x^2."""

    def forward(self, x):
        self.remember(x)
        return self.xp.asarray(x * x * x)

    def backward(self, output_grad):
        g = self.cast_grad(output_grad)
        x = self.recall()
        return self.xp.asarray({derivative})
'''

LOSS = '''"""A loss that the package has never seen."""

from mtorch.losses.base import LossFunction


class {name}(LossFunction):
    """(p - t)^4 of each entry, with the derivative 4 (p - t)^3."""

    def terms(self, xp, prediction, target):
        d = prediction - target
        return d * d * d * d, {derivative}

    @classmethod
    def examples(cls, *, xp, dtype, rng):
        yield cls(), ((3, 2), (3, 2))
'''


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """{class: {proof: outcome}} for a copy of the package with four new files, and for one layer and loss it has."""
    root = tmp_path_factory.mktemp("copy")
    unwanted = shutil.ignore_patterns("__pycache__", "unit", "against", "test_[!c]*.py", "test_c[!o]*.py")
    for folder in ("mtorch", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", root)
    for folder, template, name, derivative in (
        ("layers", LAYER, "NewCube", "3 * g * x * x"),
        ("layers", LAYER, "WrongCube", "3 * g * x"),
        ("losses", LOSS, "NewQuartic", "4 * d * d * d"),
        ("losses", LOSS, "WrongQuartic", "4 * d * d * d * (1 + 1e-3)"),
    ):
        text = template.format(name=name, derivative=derivative)
        (root / "mtorch" / folder / f"{name.lower()}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "tests/conformance/test_conformance.py", "-v", "--tb=no"]
    command += [
        "-p",
        "no:cacheprovider",
        "-k",
        "Cube or Quartic or GELU-0 or HuberLoss-0",
        "-o",
        "addopts=-m 'not gpu'",
    ]
    environment = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    found = {}
    for proof, options, outcome in re.findall(r"::(\w+)\[(\S+)\] (\w+)", done.stdout):
        name = re.search(r"[A-Z]\w+", options)[0]
        found.setdefault(name, {})[proof, options.replace(name, "")] = outcome
    assert set(found) == {"NewCube", "WrongCube", "NewQuartic", "WrongQuartic", "GELU", "HuberLoss"}, (
        done.stdout + done.stderr
    )
    return found


@pytest.mark.slow
def test_a_new_layer_gets_every_shared_proof_from_its_file_alone(proofs):
    first = {proof for proof in proofs["NewCube"] if proof[1].endswith("-0")}
    assert first == set(proofs["GELU"]) and len(first) >= 17
    assert set(proofs["NewCube"].values()) == {"PASSED"}


def test_a_new_loss_gets_every_shared_proof_from_its_file_alone(proofs):
    assert set(proofs["NewQuartic"]) == set(proofs["HuberLoss"]) and len(proofs["NewQuartic"]) >= 4
    assert set(proofs["NewQuartic"].values()) == {"PASSED"}


@pytest.mark.parametrize("name", ["WrongCube", "WrongQuartic"])
def test_a_wrong_derivative_in_a_new_file_is_rejected(proofs, name):
    for (proof, _), outcome in proofs[name].items():
        if "gradients_agree_with_finite_differences" in proof:
            assert outcome == "FAILED"
