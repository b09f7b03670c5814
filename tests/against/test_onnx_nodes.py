"""The node tests of ONNX, for every operator that `import_onnx` reads (see `onnx_nodes.py`)."""

from functools import cache

import pytest

pytest.importorskip("onnx", minversion="1.19")

from onnx_nodes import OTHERWISE, compare, compute, load  # noqa: E402

from mtorch.interop import OnnxError  # noqa: E402

pytestmark = pytest.mark.slow  # loading ONNX and its cases takes seconds

LEAST = 480


@cache
def outcome():
    """({operator: names compared}, [(operator, name, reason not to)], [failures])."""
    compared, refused, failed = {}, [], []
    for operator, cases in load().items():
        for case in cases:
            if case.name in OTHERWISE:
                refused.append((operator, case.name, OTHERWISE[case.name]))
                continue
            try:
                compare(compute(case), case.outputs)
                compared.setdefault(operator, []).append(case.name)
            except OnnxError as reason:
                refused.append((operator, case.name, str(reason)))
            except Exception as error:
                failed.append(f"{operator} {case.name}: {type(error).__name__}: {error}")
    return compared, refused, failed


def test_imported_nets_give_the_stored_outputs():
    compared, refused, failed = outcome()
    assert not failed, "\n".join(failed)


def test_at_least_480_cases_are_compared_and_every_other_one_has_a_reason(capsys):
    compared, refused, failed = outcome()
    with capsys.disabled():
        print(f"\nONNX node tests: {sum(map(len, compared.values()))} compared, {len(refused)} refused:")
        print("\n".join(f"  {operator} {name}: {reason}" for operator, name, reason in refused))
    assert sum(map(len, compared.values())) >= LEAST
    assert all(reason for _, _, reason in refused)


def test_every_operator_has_a_case_that_is_compared():
    compared, refused, failed = outcome()
    assert set(compared) == set(load())
