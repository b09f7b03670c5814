"""What decides the bits of a run, and where it can be asked."""

import numpy

from mtorch import blas
from mtorch.testing import strict
from mtorch.training.environment import UNKNOWN, differences, environment


def test_the_environment_names_what_decides_the_bits():
    found = environment()
    assert {"python", "numpy", "mtorch", "system", "blas", "kernel", "threads", "simd", "fast"} == found.keys()
    assert found["numpy"] == numpy.__version__ and all(isinstance(text, str) and text for text in found.values())
    assert environment() == found and "device" in environment(strict)


def test_what_cannot_be_asked_is_unknown(monkeypatch):
    monkeypatch.setattr(blas, "openblas", lambda name: None)
    monkeypatch.setattr(numpy, "show_config", lambda mode: {})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(blas, "kernel", blas.kernel.__wrapped__)
    monkeypatch.setattr(blas, "version", blas.version.__wrapped__)
    found = environment()
    assert {name for name, text in found.items() if text == UNKNOWN} == {"blas", "kernel", "threads", "simd"}


def test_a_difference_is_one_line_that_names_both():
    now = {"numpy": "2.3.1", "threads": "2", "kernel": "Zen"}
    assert differences(now, now) == ""
    before = {"numpy": "2.2.0", "threads": "2", "cupy": "\x1b13" + 99 * "!"}
    cut = rf"\x1b13{57 * '!'}... (102 characters)"
    assert differences(before, now) == f"numpy 2.3.1, was 2.2.0; kernel Zen, was unknown; cupy none, was {cut}"
