"""What goes wrong with ONNX files, and the package that they need."""

from types import ModuleType


class OnnxError(ValueError):
    """A net that ONNX cannot say, or a file that is no sound ONNX model or has what mtorch cannot compute."""


def onnx_package() -> ModuleType:
    """The package `onnx`; ImportError with the way to install it."""
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX files need the package onnx: pip install -e '.[interop]'") from None
    return onnx


def quoted(text: object, most: int = 60) -> str:
    """A name out of a file for a message, in quotation marks: in ASCII, without control characters, and short."""
    name = ascii(str(text)[: most + 1])
    return name if len(name) <= most + 2 else f"{name[:most]}...'"
