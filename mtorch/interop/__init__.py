"""Nets from and to other libraries. Each function is fetched when first asked for, with the packages that it needs."""

from importlib import import_module

_HOMES = {
    "OnnxError": "mtorch.interop.onnx.errors",
    "export_onnx": "mtorch.interop.onnx.exporter",
    "from_torch": "mtorch.interop.torch.importer",
    "from_torch_optimizer_state": "mtorch.interop.torch.optimizers",
    "from_torch_state_dict": "mtorch.interop.torch.weights",
    "import_onnx": "mtorch.interop.onnx.importer",
    "load_keras_weights": "mtorch.interop.keras_weights",
    "to_torch": "mtorch.interop.torch.exporter",
    "to_torch_optimizer_state": "mtorch.interop.torch.optimizers",
    "to_torch_state_dict": "mtorch.interop.torch.weights",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mtorch.interop' has no attribute {name!r}: it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
