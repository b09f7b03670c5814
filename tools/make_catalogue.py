"""Writes docs/CATALOGUE.md and the README's table of layers from the classes themselves and their `examples()`.

    python tools/make_catalogue.py            # rewrites both
    python tools/make_catalogue.py --check    # exit code 1 where they are out of date

A feature is a row of names: of classes (its files are where they are defined, its tests are the conformance suite over
their examples) and of tests. A name that does not exist is an error, so the table cannot promise what is not there.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conformance")]

from harness import examples, final_classes  # noqa: E402

from mtorch.insight.explain.names import families  # noqa: E402
from mtorch.layer import Layer  # noqa: E402
from mtorch.losses.base import LossFunction  # noqa: E402

CLASSES = {cls.__name__: cls for base in (Layer, LossFunction) for cls in final_classes(base)}


# The names of the classes by family, as `python -m mtorch explain` lists them; those below stand in `PLACES`.
FAMILIES = {family: " ".join(classes) for family, classes in families().items()}
del FAMILIES["Optimizers"], FAMILIES["Schedules"]
PLACES = {
    "Optimizers": (
        "mtorch/optim",
        "SGD (momentum, dampening, Nesterov), Adagrad, RMSprop, Adadelta, Adam, AdamW (both with amsgrad)",
    ),
    "Schedules": (
        "mtorch/optim/schedules.py",
        "StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR, LinearWarmup, InverseSqrt",
    ),
    "Initialisers": (
        "mtorch/initializers.py",
        "normal, uniform, constant, xavier, kaiming (normal and uniform), orthogonal, coe",
    ),
}

# feature of the plan: (classes, files, tests). A test is a file of tests/, or file::name.
FEATURES: dict[str, dict[str, tuple[str, str, str]]] = {
    "Core": {
        "Layer contract: forward, backward, step": ("", "mtorch/layer.py", "test_conformance.py test_protocol.py"),
        "Sequential, nestable": ("Sequential", "", "test_protocol.py::test_sequential_backward_returns_the_input_gradient"),
        "DataParallel: a batch divided among processes": ("DataParallel", "mtorch/parallel", "test_data_parallel.py"),
        "Module, submodules, named parameters": ("Module", "mtorch/parameter.py", "test_module.py"),
        "Graph, from a table, a formula or a Module's forward": ("Graph", "", "test_graph.py test_autodiff_examples.py"),
        "Batches and any leading axes": ("", "mtorch/layers/linear.py", "test_conformance.py"),
        "train, eval, predict": ("", "mtorch/layer.py", "test_conformance.py::test_predict_keeps_nothing_and_disturbs_nothing"),
        "predict from any number of threads; a state that travels": (
            "", "mtorch/states.py", "test_predict.py test_passes.py"
        ),
        "Save, load, resume": ("", "mtorch/checkpoint", "test_checkpoint.py test_hostile_files.py"),
        "Summary: shapes, memory, multiply-adds, parameters": ("", "mtorch/insight/summary.py", "test_summary.py"),
        "inspect: one forward and one backward, layer by layer": ("", "mtorch/insight/inspection", "test_inspect.py"),
        "Typed errors with place, expected, got": ("", "mtorch/errors.py", "test_protocol.py"),
    },
    "Operators": {
        "Add, Subtract, Multiply, Divide with un-broadcasting": ("Add Subtract Multiply Divide", "", "test_operators.py"),
        "MatMul, batched": ("MatMul", "", "test_operators.py"),
        "Power, Sqrt, Square, Exp, Log, Abs, Negative": ("Power Sqrt Square Exp Log Abs Negative", "", "test_operators.py"),
        "Sum, Mean, Max, Min over axes": ("Sum Mean Max Min", "", "test_operators.py"),
        "Sin, Cos": ("Sin Cos", "", "test_torch_functions.py"),
        "Maximum, Minimum": ("Maximum Minimum", "", "test_operators.py"),
        "Clip, Where, Take (entries by id)": ("Clip Where Take", "", "test_choices.py test_torch_functions.py"),
        "Concat, Split": ("Concat Split", "", "test_operators.py"),
        "Reshape, Flatten, Transpose": ("Reshape Flatten Transpose", "", "test_operators.py"),
        "Slice, GetItem": ("Slice GetItem", "", "test_operators.py"),
        "Formulas with parameters": ("", "mtorch/operators.py", "test_formulas.py"),
    },
    "Layers": {
        "Linear": ("Linear", "", "test_protocol.py"),
        "Activations": (FAMILIES["Activations"], "", "test_activations.py test_torch_activations.py"),
        "Convolutions and their transposes, every padding": (
            FAMILIES["Convolution"], "mtorch/math/padding.py", "test_conv.py test_torch_conv.py"
        ),
        "Pooling": (FAMILIES["Pooling"], "", "test_conv.py test_torch_conv.py"),
        "Upsample": ("Upsample", "", "test_upsample.py test_torch_upsample.py"),
        "Normalisation": (FAMILIES["Normalisation"], "", "test_norm.py test_torch_norm.py"),
        "Dropout": ("Dropout", "mtorch/math/philox.py", "test_dropout.py test_philox.py"),
        "Embedding": ("Embedding", "", "test_attention.py test_torch_attention.py"),
        "RNN, GRU, LSTM and their cells": (FAMILIES["Sequences"], "", "test_recurrent.py test_torch_recurrent.py"),
        "Multi-head attention, positions": (
            "MultiHeadAttention PositionalEmbedding", "mtorch/models.py", "test_attention.py test_torch_attention.py"
        ),
        "Probes, attention weights on request": ("Probe", "mtorch/last_forward.py", "test_probe.py"),
        "Residual blocks": ("Residual", "mtorch/models.py", "test_protocol.py::test_residual_branches_must_agree"),
        "Containers": (FAMILIES["Containers"], "", "test_conformance.py test_recurrent.py test_graph.py"),
    },
    "Models, losses, optimizers, data": {
        "Models": ("", "mtorch/models.py", "test_models.py"),
        "Losses": (FAMILIES["Losses"], "", "test_losses.py test_several_predictions.py test_torch_losses.py"),
        "Sums of losses, on several heads": ("", "mtorch/losses/sums.py", "test_loss_sums.py test_torch_losses.py"),
        "Optimizers": ("", "mtorch/optim", "test_optim.py test_optimizers.py test_torch_optim.py"),
        "Schedules": ("", "mtorch/optim/schedules.py", "test_schedules.py test_torch_schedules.py"),
        "Initialisers": ("", "mtorch/initializers.py", "test_initializers.py test_torch_initializers.py"),
        "Datasets, IDX, loader": ("", "mtorch/data", "test_data_dataset.py test_data_idx.py test_data_loader.py"),
        "MNIST, built-in digits, sines": ("", "mtorch/data", "test_data_mnist.py test_data_digits.py test_data_sequences.py"),
    },
    "Tests": {
        "Gradient checker, and wrong layers it must reject": ("", "mtorch/testing/gradients.py", "test_checker.py"),
        "Strict fake of CuPy": ("", "mtorch/testing/strict.py", "test_strict.py test_strict_training.py"),
        "A new layer gets its tests from one file": ("", "tests/conformance/harness.py", "test_meta.py"),
        "Regressions of the originals": ("", "tests/unit/test_regressions.py", "test_regressions.py"),
        "Node tests of ONNX": ("", "tests/against/test_onnx_nodes.py", "test_onnx_nodes.py"),
        "PyTorch's own tables of samples": ("", "tests/against/test_torch_tables.py", "test_torch_tables.py"),
        "Numbers of the originals": ("", "apps", "test_app_mnist.py test_app_sine.py test_models.py"),
    },
}  # fmt: skip


def file_of(cls: type) -> str:
    return str(Path(inspect.getsourcefile(cls)).relative_to(ROOT))


def link(path: str, text: str = "", up: str = "") -> str:
    if not (ROOT / path).exists():
        raise SystemExit(f"{path} does not exist")
    return f"[{text or Path(path).name}]({up}{path})"


def test_link(name: str, up: str) -> str:
    file, _, function = name.partition("::")
    found = sorted((ROOT / "tests").rglob(file))
    if not found:
        raise SystemExit(f"tests/ has no {file}")
    path = found[0].relative_to(ROOT)
    if function:
        tree = ast.parse(found[0].read_text())
        if function not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            raise SystemExit(f"{path} has no {function}")
    return link(str(path), file, up)


def equation(cls: type) -> str:
    """The first sentence of the docstring."""
    text = inspect.getdoc(cls).split("\n\n")[0].replace("\n", " ").replace("|", "\\|").replace("*", "\\*")
    return text.split("; any shape")[0]


def number_of_examples(cls: type) -> int:
    found = len(list(examples(cls, numpy)))
    if not found:
        raise SystemExit(f"{cls.__name__} has no examples")
    return found


def catalogue() -> str:
    lines = [
        "# Catalogue", "",
        "Written by `python tools/make_catalogue.py` from the classes and their `examples()`; do not edit by hand.", "",
        "`python -m pytest -k Name` runs the shared tests of one class over all its examples: gradients against finite differences",
        "in float64 and longdouble, dtypes, structure, ownership, accumulation, state, copies, the strict array module.", "",
    ]  # fmt: skip
    for title, rows in FEATURES.items():
        lines += [f"## {title}", "", "| feature | where | tests |", "|---|---|---|"]
        for feature, (names, files, tests) in rows.items():
            classes = [CLASSES[name] for name in names.split()]
            where = dict.fromkeys([*(file_of(cls) for cls in classes), *files.split()])
            proofs = [test_link(name, "../") for name in tests.split()]
            if classes:
                total = sum(number_of_examples(cls) for cls in classes)
                proofs.insert(0, f"conformance over {total} examples")
            places = ", ".join(link(path, up="../") for path in where)
            lines.append(f"| {feature} | {places} | {', '.join(proofs)} |")
        lines.append("")
    lines += ["## Every class", "", "| class | what it computes | examples |", "|---|---|---|"]
    for name, cls in sorted(CLASSES.items()):
        lines.append(f"| {link(file_of(cls), name, '../')} | {equation(cls)} | {number_of_examples(cls)} |")
    return "\n".join(lines) + "\n"


def table_of_layers() -> str:
    lines = ["| family | |", "|---|---|"]
    for family, names in FAMILIES.items():
        lines.append(f"| {family} | {' · '.join(link(file_of(CLASSES[name]), name) for name in names.split())} |")
    lines += [f"| {family} | {link(path, names)} |" for family, (path, names) in PLACES.items()]
    return "\n".join(lines)


def main() -> int:
    readme = (ROOT / "README.md").read_text()
    begin, end = "<!-- layers: written by tools/make_catalogue.py -->\n", "<!-- end of layers -->"
    between = re.escape(begin) + r".*?" + re.escape(end)
    wanted = {
        ROOT / "docs" / "CATALOGUE.md": catalogue(),
        ROOT / "README.md": re.sub(between, lambda _: f"{begin}{table_of_layers()}\n{end}", readme, flags=re.S),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        print("\n".join(f"{path.relative_to(ROOT)} is out of date: python tools/make_catalogue.py" for path in stale))
        return bool(stale)
    for path in stale:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
