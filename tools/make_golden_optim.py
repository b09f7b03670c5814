"""Writes golden_optim.json: where five steps of PyTorch's optimizers take two numbers."""

import json
from pathlib import Path

START = [1.0, -2.0]
GRADS = [[0.5, -1.0], [0.25, 2.0], [-0.5, 0.0], [1.5, 0.125], [0.0, -0.75]]
CASES = {
    "SGD": [
        {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    ],
    "Adagrad": [{}, {"lr": 0.1, "lr_decay": 0.5, "initial_accumulator_value": 0.25, "weight_decay": 0.1}],
    "RMSprop": [{}, {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-3}],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.5, "weight_decay": 0.1}],
    "Adam": [{}, {"lr": 0.1, "betas": [0.5, 0.75], "eps": 1e-2, "weight_decay": 0.1}],
    "AdamW": [{}, {"lr": 0.1, "weight_decay": 0.5}],
}  # fmt: skip
FILE = Path(__file__).parents[1] / "tests" / "unit/golden_optim.json"


def main() -> None:
    import torch

    table = []
    for name, options in ((name, options) for name, many in CASES.items() for options in many):
        value = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        optimizer, path = getattr(torch.optim, name)([value], **options), []
        for grad in GRADS:
            value.grad = torch.tensor(grad, dtype=torch.float64)
            optimizer.step()
            path.append(value.tolist())
        table.append({"optimizer": name, "options": options, "path": path})
    rows = ",\n".join(json.dumps(row) for row in table)
    FILE.write_text(f'{{"torch": "{torch.__version__}", "start": {START}, "grads": {GRADS}, "table": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
