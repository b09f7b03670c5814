"""Our layers, losses and operators over PyTorch's own tables of samples, at 1e-9 in float64 (see `torch_tables.py`)."""

import random
import warnings
from collections import Counter
from functools import cache

import numpy
import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="PyTorch's tables import it")

import torch  # noqa: E402
from torch_tables import FUNCTIONS, MODULES, Unsupported, compare  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny products: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def tables():
    """{module name: its entry}, {function name: its entries}."""
    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db

    functions = {}
    for op in op_db:
        functions.setdefault(op.name, []).append(op)
    return {info.name.removeprefix("nn."): info for info in module_db}, functions


def module_samples(name):
    """(what torch computes, arguments of MODULES[name]) for each sample in training and in eval mode."""
    info = tables()[0][name]
    for training in (True, False):
        for sample in info.module_inputs_func(info, "cpu", torch.float64, requires_grad=False, training=training):
            module = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
            module = module.to(torch.float64).train(training)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.normal_(std=0.5)
            args, kwargs = sample.forward_input.args, sample.forward_input.kwargs
            yield (lambda m=module, a=args, k=kwargs: m(*a, **k)), (module, *args), kwargs


def function_samples(name):
    for op in tables()[1][name]:
        if op.variant_test_name in ("complex", "triton_optimized"):
            continue
        for sample in op.sample_inputs("cpu", torch.float64, requires_grad=False):
            arguments = (sample.input, *sample.args)
            yield (lambda o=op, a=arguments, k=sample.kwargs: o.op(*a, **k)), arguments, sample.kwargs


@cache
def outcome(table, name):
    """(number of samples compared, arrays compared, {reason: samples left out})."""
    torch.manual_seed(0)
    random.seed(0)
    handler, samples = (MODULES, module_samples) if table == "module" else (FUNCTIONS, function_samples)
    compared, arrays, reasons = 0, 0, Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on padding and on running statistics of single values
        for theirs, arguments, options in samples(name):
            try:
                found = compare(handler[name](*arguments, **options), theirs)
            except Unsupported as reason:
                reasons[str(reason)] += 1
            else:
                assert found, "nothing was compared"
                compared, arrays = compared + 1, arrays + found
    return compared, arrays, reasons


ENTRIES = [("module", name) for name in MODULES] + [("function", name) for name in FUNCTIONS]


@pytest.mark.parametrize("table, name", ENTRIES)
def test_every_sample_agrees_or_says_what_ours_has_not(table, name):
    compared, arrays, reasons = outcome(table, name)
    assert compared and all(reasons)


def test_the_whole_of_both_tables(capsys):
    found = {entry: outcome(*entry) for entry in ENTRIES}
    with capsys.disabled():
        print(f"\nPyTorch's tables: {sum(n for n, _, _ in found.values())} samples, ", end="")
        print(f"{sum(n for _, n, _ in found.values())} outputs and gradients compared; left out:")
        for (_, name), (_, _, reasons) in found.items():
            for reason, times in reasons.items():
                print(f"  {name}, {times} samples: {reason}")
    assert sum(n for n, _, _ in found.values()) > 1000
