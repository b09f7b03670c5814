"""A net of ours as modules of PyTorch: the same layers with the same weights."""

from typing import Any

import numpy

from mtorch.arrays import as_numpy
from mtorch.graph import Graph
from mtorch.interop.torch import classes
from mtorch.interop.torch.table import ARGUMENTS, THEIRS, arguments, option_of_ours
from mtorch.interop.torch.weights import pytorch, to_torch_state_dict
from mtorch.layer import Layer
from mtorch.parameter import Parameter
from mtorch.sequential import Sequential


def to_torch(module: Layer) -> Any:
    """The torch module that computes what the layer does, with its weights, under the same names in the state dict.

    A `Sequential` becomes an `nn.Sequential`, and a layer that torch.nn has becomes that one. The others become small
    modules made for them: `Residual`, `Reshape`, `Slice`, ...; recurrent layers and attention, which torch calls
    otherwise, are subclasses of torch's that are called as ours. `from_torch` makes ours of all of them again.

    Errors: ValueError that lists every layer that torch cannot say, with its path.
    """
    torch = pytorch("to_torch")
    if not isinstance(module, Layer):
        raise TypeError(f"to_torch expected a module or layer, got {module!r}")
    net = module.core()
    writer = _Writer(torch)
    found = writer.write(net, "")
    if writer.refused:
        text = "; ".join(writer.refused)
        raise ValueError(f"to_torch cannot say {len(writer.refused)} of these modules: {text}")
    found.load_state_dict(to_torch_state_dict(net))
    first: dict[int, Any] = {}
    places = dict(found.named_modules(remove_duplicate=False))
    for prefix, layer in net.walk():
        place = places.get(prefix.removesuffix("."))
        if place is None:  # the dropout of attention, which torch has as a number
            continue
        place.training = layer.training
        for name, parameter in layer.own(Parameter):
            holder, last = writer.holder(place, name)
            tensor = first.setdefault(id(parameter), getattr(holder, last))
            tensor.requires_grad_(parameter.trainable)
            setattr(holder, last, tensor)
    return found


class _Writer:
    """Builds modules of torch, a shared one once, and notes what it cannot build."""

    def __init__(self, torch: Any):
        self.torch = torch
        self.made: dict[int, Any] = {}
        self.refused: list[str] = []

    def write(self, layer: Layer, path: str) -> Any:
        if id(layer) not in self.made:
            try:
                self.made[id(layer)] = self.made_of(layer, path)
            except (TypeError, ValueError) as error:
                self.made[id(layer)] = self.refuse(path, layer, str(error))
        return self.made[id(layer)]

    def refuse(self, path: str, layer: Layer, why: str) -> Any:
        self.refused.append(f"{path or 'the layer'} ({type(layer).__name__}): {why}")
        return self.torch.nn.Module()

    def made_of(self, layer: Layer, path: str) -> Any:
        kind, nn = type(layer).__name__, self.torch.nn
        home = {"dtype": getattr(self.torch, min(layer.dtype.name, "float64", key=_bits))}
        if not type(layer).__module__.startswith("mtorch."):
            return self.refuse(path, layer, "no class of mtorch")
        if kind in classes.OPTIONS:
            return self.function(layer, kind, path, home)
        if isinstance(layer, Sequential):
            return self.with_children(nn.Sequential(), layer, path)
        theirs = THEIRS.get(kind, kind)
        if theirs not in ARGUMENTS:
            return self.refuse(path, layer, "torch has no such module")
        options = {name: option_of_ours(layer, ours) for name, ours in arguments(theirs)}
        if layer.state_dict():
            options |= home
        if kind in classes.OWN_OPTIONS:
            given = {name: getattr(layer, name) for name in classes.OWN_OPTIONS[kind]}
            return classes.called_as_ours(kind)(given=given, **options)
        return getattr(nn, theirs)(**options)

    def function(self, layer: Any, kind: str, path: str, home: dict[str, Any]) -> Any:
        options = classes.options(layer)
        module = classes.function_class(kind)(**options)
        if isinstance(layer, Graph):
            for name, parameter in layer.own(Parameter):
                holder, last = self.holder(module, name)
                value = numpy.array(as_numpy(parameter.value))
                holder.register_parameter(last, self.torch.nn.Parameter(self.torch.from_numpy(value).to(**home)))
        if kind == "PositionalEmbedding":
            weight = self.torch.from_numpy(numpy.array(as_numpy(layer.weight.value))).to(**home)
            if options["learned"]:
                module.weight = self.torch.nn.Parameter(weight)
            else:
                module.register_buffer("weight", weight, persistent=False)
        return self.with_children(module, layer, path)

    def with_children(self, module: Any, layer: Layer, path: str) -> Any:
        for name, child in layer.children():
            holder, last = self.holder(module, name)
            holder.add_module(last, self.write(child.core(), f"{path}.{name}" if path else name))
        return module

    def holder(self, module: Any, path: str) -> tuple[Any, str]:
        """Where a dotted path ends: the module before the last dot, made if need be, and the last name."""
        *before, last = path.split(".")
        for name in before:
            if name not in module._modules:
                module.add_module(name, self.torch.nn.Module())
            module = module._modules[name]
        return module, last


def _bits(name: str) -> int:
    return numpy.dtype(name).itemsize
