"""To and from other libraries. A function is imported when first asked for; docs/interop.md says what it needs."""

from importlib import import_module
from typing import Any

HOMES = {
    "from_torch": "torch_import",
    "from_torch_optimizer_state": "torch_optimizers",
    "from_torch_state_dict": "torch_weights",
    "load_keras_weights": "keras_weights",
    "to_torch": "torch_export",
    "to_torch_optimizer_state": "torch_optimizers",
    "to_torch_state_dict": "torch_weights",
}

__all__ = sorted(HOMES)


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(f"mtorch.interop.{HOMES[name]}"), name)
    raise AttributeError(f"module 'mtorch.interop' has no attribute {name!r}: it has {', '.join(__all__)}")
