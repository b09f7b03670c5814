"""A sample of the mutation run (`python tools/mutants.py` is the whole of it); its mutants are what they say."""

import re
import subprocess
import sys
from collections import Counter

import mutants
import pytest

KINDS = "sign factor axis accumulation swap dropped transpose comparison function".split() + ["off by one"]


@pytest.mark.slow
def test_there_are_mutants_of_every_kind_in_every_folder_and_all_are_python():
    """And none of the references is in `fast/`."""
    found = mutants.all_mutants()
    kinds = Counter(mutant.kind for mutant in found)
    assert set(kinds) == set(KINDS) and min(kinds.values()) >= 10 and len(found) >= 1000
    families = {mutants.family_of(mutant.path) for mutant in found}
    assert families == {"layers", "losses", "optim", "graph", "math", "containers"}
    sources = {path: (mutants.ROOT / path).read_text() for path in {mutant.path for mutant in found}}
    for mutant in found[::17]:
        source = mutant.source(sources[mutant.path])
        compile(source, mutant.path, "exec")
        assert source != sources[mutant.path] and mutant.change(sources[mutant.path]).count("\n+ ") >= 1


def test_a_file_with_other_letters_than_ascii_is_cut_at_the_right_places():
    source = "def f(x):\n    µ = x\n    return 'é', µ + x\n"
    changes = [mutant.change(source) for mutant in mutants.mutants_of("layers/new.py", source)]
    assert "- return 'é', µ + x\n+ return 'é', µ - x" in changes


def test_the_surviving_mutants_are_an_output_of_the_run(tmp_path, capsys):
    source = "def forward(x):\n    return x + 1\n"
    found = mutants.mutants_of("mtorch/layers/new.py", source)
    results = [(m, (m.path, m.where, m.change(source), 0), "" if i == 0 else "a test") for i, m in enumerate(found)]
    share = mutants.report(results, tmp_path / "out" / "report.txt")
    text = (tmp_path / "out" / "report.txt").read_text()
    assert round(share, 3) == 0.667 and "killed 2 of 3 mutants, 66.7 %" in capsys.readouterr().out
    assert "1 survived" in text and "mtorch/layers/new.py:2 forward" in text and "- return x + 1" in text


def test_texts_examples_and_switches_of_speed_are_left_alone():
    source = '''def details(self):
    return self.a + self.b


def forward(xp, x):
    """y = x + 1."""
    if x.size > BLOCK:
        raise ValueError(f"{x - 1}")
    return x + 1
'''
    changes = [mutant.change(source) for mutant in mutants.mutants_of("layers/new.py", source)]
    assert changes == [f"- return x + 1\n+ return {text}" for text in ("(1)", "(x)", "x - 1")]


@pytest.mark.slow
def test_a_sample_of_mutants_is_found_by_the_tests(tmp_path):
    """All but one of twelve."""
    command = [sys.executable, mutants.__file__, "--count", "12", "--seed", "2", "--report", tmp_path / "report.txt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=mutants.ROOT, timeout=900)
    killed = re.search(r"killed (\d+) of 12 mutants", done.stdout)
    assert killed and int(killed[1]) >= 11, done.stdout + done.stderr
