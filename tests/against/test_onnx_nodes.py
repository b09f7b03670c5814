"""The node tests of ONNX, for every operator that `import_onnx` reads (see `onnx_nodes.py`)."""

from functools import cache

import numpy
import pytest

onnx = pytest.importorskip("onnx", minversion="1.19")

from onnx_nodes import OTHERWISE, compare, compute, load  # noqa: E402

from mtorch.interop import OnnxError, import_onnx  # noqa: E402

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


def test_where_each_maximum_stands_there_goes_its_gradient():
    compared = 0
    for case in load()["MaxPool"]:
        if not case.more or "column_major" in case.name or "storage_order" in case.name:
            continue
        net, (x,), (places,) = import_onnx(case.model), case.inputs, case.more
        y = net(x)
        counts = numpy.bincount(places.ravel(), minlength=x.size).reshape(x.shape)
        assert (net.backward(numpy.ones_like(y)) == counts).all(), case.name
        compared += 1
    assert compared


def test_statistics_of_the_batch_are_those_of_training():
    compared = 0
    for case in load()["BatchNormalization"]:
        if not case.more:
            continue
        model = onnx.ModelProto.FromString(case.model)
        (node,) = model.graph.node
        keep = next((a.f for a in node.attribute if a.name == "momentum"), 0.9)
        others = [a for a in node.attribute if a.name != "training_mode"]
        del node.attribute[:], node.output[1:]
        node.attribute.extend(others)
        net, (x,) = import_onnx(model), case.inputs
        kept = keep * next(v for k, v in net.state_dict().items() if k.endswith("running_var"))
        compare([net(x)], case.outputs)
        state, n = net.state_dict(), x.size // x.shape[1]
        mean, var = (next(v for k, v in state.items() if k.endswith(name)) for name in ("running_mean", "running_var"))
        # the new part is the variance with n - 1 in ours, with n in ONNX's
        compare([mean, (kept + (var - kept) * (n - 1) / n).astype(x.dtype)], case.more)
        compared += 1
    assert compared == 2
