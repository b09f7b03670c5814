"""Several models trained alike, side by side."""

import argparse
from pathlib import Path
from typing import Any

from apps.mnist.train import OPTIONS, run_training
from mtorch.training import RunFolder, going_on, written


def compare(args: argparse.Namespace) -> None:
    """`python -m apps.mnist compare --models a,b,c`: a run in a folder each, then one table and one figure."""
    folder = RunFolder(args.out)
    folder.prepare()
    given = written(args, [name for name in OPTIONS if name != "model"])
    again = f"compare --models {','.join(args.models)} {given}"
    metrics, histories = {}, {}
    for model in args.models:
        own = argparse.Namespace(**vars(args) | {"model": model, "out": str(Path(args.out) / model)})
        metrics[model], histories[model] = run_training(own, again)
    folder.kept = f"all models are kept in {folder.path}"
    with going_on(folder, f"python -m apps.mnist {again}"):
        show(folder, metrics, histories)


def show(folder: RunFolder, metrics: dict[str, dict[str, Any]], histories: dict[str, list[dict[str, Any]]]) -> None:
    """The table and the figure."""
    folder.write_metrics({"models": metrics})
    print(f"{'model':<12}{'parameters':>12}{'epochs':>8}{'test accuracy':>16}{'seconds':>10}")
    for model, found in metrics.items():
        print(
            f"{model:<12}{found['parameters']:>12,}{found['epochs']:>8}{found['test_accuracy']:>16.2%}"
            f"{found['seconds']:>10.1f}"
        )
    try:
        from apps.mnist import figures
    except ImportError:
        return
    figures.curves(folder.path / "compare.png", histories)
    print(f"see {folder.path / 'compare.png'}")
