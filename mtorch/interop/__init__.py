"""Nets from and to other libraries. Each function is fetched when first asked for, with the packages that it needs."""

from importlib import import_module

_HOMES = {
    "export_onnx": "mtorch.interop.onnx_export",
    "import_onnx": "mtorch.interop.onnx_import",
    "OnnxError": "mtorch.interop.onnx_errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mtorch.interop' has no attribute {name!r}: it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
