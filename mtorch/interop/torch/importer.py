"""A net of PyTorch's as ours: the same layers with the same weights."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy

import mtorch
from mtorch import layers
from mtorch.interop.torch import classes, graphs
from mtorch.interop.torch.table import ARGUMENTS, OURS, REQUIRED, SPECIAL, THEIRS, arguments, option_of_torch
from mtorch.interop.torch.weights import as_array, pytorch
from mtorch.layer import Layer
from mtorch.parameter import Parameter
from mtorch.sequential import Sequential
from mtorch.tree import home_of


def from_torch(module: Any, *, xp: ModuleType = numpy, dtype: Any = None) -> Layer:
    """The layer, or the `Sequential`, that computes what the torch module does, with its weights.

    module: an `nn.Sequential`, nested as it may be, or one layer that both libraries have; what `to_torch` made; a
    shared module or parameter stays shared. Modes (train, eval) and frozen parameters are taken over. torch's recurrent
    modules return (y, state), ours y; torch's attention takes three arrays and returns its weights too, ours y alone.
    dtype: that of the parameters unless given (bfloat16 becomes float32).

    Errors: ValueError that lists every module and option which mtorch has not, with its path.
    """
    torch = pytorch("from_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch expected a module of torch.nn, got {type(module).__name__}")
    reader = _Reader(torch, *home_of("from_torch", xp, dtype or _dtype_of(module)))
    found = reader.read(module, "")
    if reader.refused:
        text = "; ".join(reader.refused)
        raise ValueError(f"from_torch cannot build {len(reader.refused)} of these modules: {text}")
    return found


def _dtype_of(module: Any) -> str:
    state = [*module.parameters(), *module.buffers()]
    found = {str(each.dtype).removeprefix("torch.") for each in state if each.is_floating_point()}
    found = {"float32" if name == "bfloat16" else name for name in found}
    if len(found) > 1:
        raise ValueError(f"from_torch expected parameters of one dtype, got {', '.join(sorted(found))}")
    return found.pop() if found else "float32"


class _Reader:
    """Builds our layers, a shared one once, and notes what it cannot build."""

    def __init__(self, torch: Any, xp: ModuleType, dtype: Any):
        self.torch, self.options = torch, {"xp": xp, "dtype": dtype}
        self.made: dict[int, Layer] = {}
        self.parameters: dict[int, Parameter] = {}
        self.refused: list[str] = []

    def read(self, module: Any, path: str) -> Layer:
        if id(module) not in self.made:
            self.made[id(module)] = self.made_of(module, path)
        return self.made[id(module)]

    def made_of(self, module: Any, path: str) -> Layer:
        if module._forward_hooks or module._forward_pre_hooks:
            return self.refuse(module, path, "mtorch has no hooks")
        chain = self.torch.nn.Sequential
        if isinstance(module, chain) and type(module).forward is chain.forward:
            return self.checked(module, path, lambda below: Sequential(below) if below else self.leaf(module, path))
        kind = getattr(module, "kind", None)
        if kind in classes.OPTIONS and type(module) is classes.function_class(kind):
            if kind == "Graph":
                return self.graph(module, path)
            return self.checked(module, path, lambda below: self.own(kind, module, below))
        return self.leaf(module, path)

    def checked(self, module: Any, path: str, build: Callable[[list[Layer]], Layer]) -> Layer:
        """A container of what stands below."""
        before = len(self.refused)
        below = [self.read(child, f"{path}.{name}" if path else name) for name, child in module._modules.items()]
        if len(self.refused) > before:
            return Layer()
        try:
            layer = build(below)
            if not below:
                return self.with_weights(layer, module, path)
            layer.training = module.training
            return layer
        except (TypeError, ValueError) as error:
            return self.refuse(module, path, str(error))

    def own(self, kind: str, module: Any, below: list[Layer]) -> Layer:
        cls = getattr(layers, kind, None) or getattr(mtorch, kind)
        return cls(*below, **module.options) if below else cls(**module.options, **self.options)

    def graph(self, module: Any, path: str) -> Layer:
        before = len(self.refused)
        holders = {name for name, each in module.named_modules() if type(each) is self.torch.nn.Module}
        found: dict[str, Layer] = {}
        for name, each in module.named_modules(remove_duplicate=False):
            above = {name[:i] for i, letter in enumerate(name) if letter == "."}
            if name and name not in holders and above <= holders:
                found[name] = self.read(each, f"{path}.{name}" if path else name)
        own: dict[str, Parameter] = {}
        for _, name in module.options["sources"]:
            if isinstance(name, str):
                tensor, xp = module.get_parameter(name), self.options["xp"]
                made = Parameter(xp.asarray(as_array(tensor, name), dtype=self.options["dtype"]))
                made.trainable = tensor.requires_grad
                own[name] = self.parameters.setdefault(id(tensor), made)
        if len(self.refused) > before:
            return Layer()
        layer = graphs.rebuilt(module, found, own, self.options)
        layer.training = module.training
        return layer

    def refuse(self, module: Any, path: str, why: str) -> Layer:
        self.refused.append(f"{path or 'the module'} ({type(module).__name__}): {why}")
        return Layer()

    def leaf(self, module: Any, path: str) -> Layer:
        name = type(module).__name__
        given: dict[str, Any] = {}
        kind = getattr(module, "kind", None)
        if kind in classes.OWN_OPTIONS and type(module) is classes.called_as_ours(kind):
            name, given = THEIRS.get(kind, kind), module.options
        elif isinstance(module, self.torch.nn.Sequential) and not module._modules:
            name = "Identity"
        elif getattr(self.torch.nn, name, None) is not type(module):
            return self.refuse(module, path, "no class of torch.nn")
        if name == "Unflatten":
            return self.unflatten(module, path)
        name = SPECIAL.get(name, name)
        if name not in ARGUMENTS:
            return self.refuse(module, path, "mtorch has no such layer")
        wrong = [
            f"{option}={getattr(module, option)!r}"
            for option, needed in REQUIRED.get(name, {}).items()
            if not _same(getattr(module, option, needed), needed)
        ]
        if wrong:
            return self.refuse(module, path, f"mtorch has no {', '.join(wrong)}")
        try:
            options = {ours: option_of_torch(module, theirs) for theirs, ours in arguments(name)}
            layer = getattr(layers, OURS.get(name, name))(**options, **given, **self.options)
        except (TypeError, ValueError) as error:
            return self.refuse(module, path, str(error))
        return self.with_weights(layer, module, path)

    def unflatten(self, module: Any, path: str) -> Layer:
        sizes = module.unflattened_size
        if module.dim != 1 or not all(isinstance(n, int) for n in sizes):
            return self.refuse(module, path, "mtorch has Reshape, for dim=1 and a shape of integers")
        return self.with_weights(layers.Reshape(tuple(sizes), **self.options), module, path)

    def with_weights(self, layer: Layer, module: Any, path: str) -> Layer:
        """The layer with the module's values, mode and sharing."""
        state = {name: as_array(tensor, name) for name, tensor in module.state_dict().items()}
        try:
            layer.load_state_dict(state)
        except ValueError as error:
            return self.refuse(module, path, str(error))
        tensors = dict(module.named_parameters(remove_duplicate=False))
        for prefix, each in layer.walk():
            each.training = module.training
            for name, parameter in list(each.own(Parameter)):
                tensor = tensors[prefix + name]
                parameter.trainable = tensor.requires_grad
                setattr(each, name, self.parameters.setdefault(id(tensor), parameter))
        return layer


def _same(value: Any, needed: Any) -> bool:
    return value is needed or (needed is not None and value == needed)
