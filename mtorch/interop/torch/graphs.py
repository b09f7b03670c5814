"""A `Graph` as a module of torch, and back: its nodes as names and numbers, its layers below their own paths."""

from typing import Any

import numpy

from mtorch.arrays import as_numpy, leaves, map_value
from mtorch.graph import Graph
from mtorch.layer import Layer
from mtorch.parameter import Parameter


def options(graph: Graph) -> dict[str, Any]:
    """inputs; sources: (name, path of a parameter, or a constant); nodes: (name, path of its layer, operand); output.

    An operand has names as leaves.
    """
    paths: dict[int, str] = {id(item): path for path, item in graph.own(Parameter)}
    paths |= {id(layer): prefix[:-1] for prefix, layer in reversed(list(graph.walk()))}
    sources: list[tuple[str, Any]] = []
    nodes: list[tuple[str, str, Any]] = []
    for name, node in graph.nodes.items():
        if isinstance(node, tuple):
            nodes.append((name, paths[id(node[0])], node[1]))
        else:
            sources.append((name, paths[id(node)] if isinstance(node, Parameter) else as_numpy(node.value)))
    return {"inputs": graph.inputs, "sources": sources, "nodes": nodes, "output": graph.outputs}


def run(module: Any, x: Any) -> Any:
    """What the graph computes, in torch."""
    inputs = module.options["inputs"]
    values = dict(zip(inputs, x if len(inputs) > 1 else (x,), strict=True))
    first = next(leaves(x))
    for name, source in module.options["sources"]:
        if isinstance(source, str):
            values[name] = module.get_parameter(source)
        else:
            c = module.torch.as_tensor(numpy.asarray(source), device=first.device)
            values[name] = c.to(first.dtype) if c.is_floating_point() and first.is_floating_point() else c
    for name, path, operand in module.options["nodes"]:
        values[name] = module.get_submodule(path)(map_value(values.__getitem__, operand))
    return map_value(values.__getitem__, module.options["output"])


def rebuilt(module: Any, layers: dict[str, Layer], parameters: dict[str, Parameter], home: dict[str, Any]) -> Graph:
    """The graph that `options` describes, of these layers and parameters by path."""
    given, nodes = module.options, {}
    for name, source in given["sources"]:
        nodes[name] = parameters[source] if isinstance(source, str) else source
    for name, path, operand in given["nodes"]:
        nodes[name] = (layer_at(layers, path), operand)
    return Graph(given["inputs"], nodes, given["output"], named={**layers, **parameters}, **home)


def layer_at(layers: dict[str, Layer], path: str) -> Layer:
    """The layer with that path, which may stand below one of these."""
    for prefix, layer in layers.items():
        if path == prefix:
            return layer
        if path.startswith(f"{prefix}."):
            found = {below[:-1]: each for below, each in layer.walk(f"{prefix}.")}
            if path in found:
                return found[path]
    raise KeyError(path)
