"""The node tests of ONNX, for every operator that we have a layer, a loss or an operator for (see `onnx_nodes.py`)."""

from functools import cache

import pytest
from onnx_nodes import CASES, Unsupported, compare, load

pytestmark = pytest.mark.slow  # loading ONNX and its cases takes seconds

LEAST = 280


@cache
def outcome():
    """({operator: names compared}, [(operator, name, reason not to)], [failures])."""
    pytest.importorskip("onnx", minversion="1.19")
    compared, skipped, failed = {}, [], []
    for operator, cases in load().items():
        for case in cases:
            try:
                outputs = CASES[operator](case)
                assert compare(case, outputs), "no output was compared"
                compared.setdefault(operator, []).append(case.name)
            except Unsupported as reason:
                skipped.append((operator, case.name, str(reason)))
            except Exception as error:
                failed.append(f"{operator} {case.name}: {type(error).__name__}: {error}")
    return compared, skipped, failed


def test_our_layers_give_the_stored_outputs():
    compared, skipped, failed = outcome()
    assert not failed, "\n".join(failed)


def test_at_least_280_cases_are_compared_and_every_other_one_has_a_reason(capsys):
    compared, skipped, failed = outcome()
    with capsys.disabled():
        print(f"\nONNX node tests: {sum(map(len, compared.values()))} compared, {len(skipped)} left out:")
        print("\n".join(f"  {operator} {name}: {reason}" for operator, name, reason in skipped))
    assert sum(map(len, compared.values())) >= LEAST
    assert all(reason for _, _, reason in skipped)


def test_every_operator_has_a_case_that_is_compared():
    compared, skipped, failed = outcome()
    assert set(compared) == set(CASES)
