"""State dicts of PyTorch: the same names, shapes and gate orders as ours, so that only arrays change their library."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy

from mtorch import arrays
from mtorch.layer import Layer


def pytorch(function: str) -> Any:
    """The module torch; ImportError with what installs it."""
    try:
        return import_module("torch")
    except ImportError:
        raise ImportError(f"mtorch.interop.{function} needs PyTorch: pip install -e '.[torch]'") from None


def to_torch_state_dict(module: Layer) -> dict[str, Any]:
    """The state dict as tensors, for `load_state_dict` of a torch module of the same layers.

    Every parameter and buffer under its own name and in its own dtype; a shared one under every path, as in torch. The
    tensors are copies on the CPU.
    """
    torch = pytorch("to_torch_state_dict")
    if not isinstance(module, Layer):
        raise TypeError(f"to_torch_state_dict expected a module or layer, got {module!r}")
    return {name: torch.from_numpy(as_torch_has_it(array)) for name, array in module.state_dict().items()}


def from_torch_state_dict(state: Mapping[str, Any]) -> dict[str, numpy.ndarray]:
    """A state dict of torch's as NumPy arrays, for our `load_state_dict`.

    Tensors on the CPU that need no gradient load without this too: `module.load_state_dict(net.state_dict())`. Here
    they may be on any device, require a gradient or be of bfloat16, which becomes float32 (the same numbers).
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"from_torch_state_dict expected a state dict of tensors by name, got {type(state).__name__}")
    return {name: as_array(tensor, name) for name, tensor in state.items()}


def as_array(tensor: Any, name: str) -> numpy.ndarray:
    """A copy of the tensor, or of what else holds numbers, as a NumPy array."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return numpy.array(arrays.host_array(tensor, name))


def as_torch_has_it(array: numpy.ndarray) -> numpy.ndarray:
    """The array, longdouble as float64: torch has nothing wider."""
    return array.astype("float64") if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array
