"""The test session: floating-point accidents are errors, the default generator is seeded, Ctrl-C is heard."""

import signal

import numpy
import pytest

import mtorch


def pytest_configure():
    """A script that starts the tests with & has them ignore Ctrl-C, and so would every program that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _strict_floats_and_a_fixed_seed():
    mtorch.seed(0)
    with numpy.errstate(over="raise", divide="raise", invalid="warn"):  # pyproject.toml makes the warning an error
        yield
