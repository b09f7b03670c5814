"""Writes tests/unit/checkpoints_format_1.npz: what the last commit that wrote format 1 saved, and how it went on.

Run it with that commit (8d2a0da) in front of the path, from any folder: PYTHONPATH=OLD_CLONE python tools/make_old_checkpoints.py
"""  # noqa: E501

import tempfile
from pathlib import Path

import numpy

CASES = {
    "SGD": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    "RMSprop": ("RMSprop", {"lr": 0.01, "alpha": 0.9}),
    "RMSprop momentum": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.5}),
    "RMSprop centered": ("RMSprop", {"lr": 0.01, "alpha": 0.8, "momentum": 0.5, "centered": True, "eps": 1e-3}),
    "Adadelta": ("Adadelta", {"lr": 1.0, "rho": 0.8, "eps": 1e-3}),
    "Adam": ("Adam", {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.1, "clip_norm": 0.3}),
    "AdamW": ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "scale": {"0.*": 0.5}}),
}
SUFFIXES = (".npz", ".safetensors")
FILE = Path(__file__).parents[1] / "tests" / "unit" / "checkpoints_format_1.npz"
BATCHES = numpy.random.default_rng(5).standard_normal((6, 8, 3))
TARGETS = numpy.random.default_rng(6).standard_normal((6, 8, 1))


def net(dtype: str):
    from mtorch import Module, Sequential, layers

    nn = layers.on(numpy, dtype=dtype, rng=0)
    return Module(Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Dropout(0.25, rng=7), nn.Linear(2, 1)))


def train(module, optimizer, batches: range) -> None:
    from mtorch import MSELoss

    loss_func = MSELoss(module)
    for i in batches:
        loss_func(module(BATCHES[i]), TARGETS[i]).backward()
        optimizer.step()


def main() -> None:
    import mtorch

    entries = {}
    for case, (name, options) in CASES.items():
        module = net("float64")
        optimizer = getattr(mtorch, name)(module, **options)
        train(module, optimizer, range(3))
        with tempfile.TemporaryDirectory() as folder:
            for suffix in SUFFIXES:
                path = Path(folder) / f"model{suffix}"
                mtorch.save(path, module, optimizer, case=case)
                entries[f"{case}{suffix}"] = numpy.frombuffer(path.read_bytes(), "uint8")
        train(module, optimizer, range(3, 6))
        for path, value in module.state_dict().items():
            entries[f"{case} {path}"] = value
    numpy.savez_compressed(FILE, **entries)


if __name__ == "__main__":
    main()
