"""The test session: floating-point accidents raise, the default generator is seeded, one BLAS answer for all."""

import numpy
import pytest

import mtorch


@pytest.fixture(autouse=True)
def _strict_floats_and_a_fixed_seed():
    mtorch.seed(0)
    with numpy.errstate(over="raise", divide="raise", invalid="raise"):
        yield
