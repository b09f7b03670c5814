"""The test session: floating-point accidents are errors, the default generator is seeded."""

import numpy
import pytest

import mtorch


@pytest.fixture(autouse=True)
def _strict_floats_and_a_fixed_seed():
    mtorch.seed(0)
    with numpy.errstate(over="raise", divide="raise", invalid="warn"):  # pyproject.toml makes the warning an error
        yield
