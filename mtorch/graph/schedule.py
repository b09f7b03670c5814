"""The order in which a Graph runs its nodes: straight stretches become chains, and only their ends get a slot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mtorch.graph.table import NodeTable, Template, gather, leaves, mapped
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Operator
from mtorch.layers.get_item import GetItem

NOT_WANTED, PARAMETERS = -1, -2  # in place of a template: no gradient is wanted, or only that of the parameters


class Step(NamedTuple):
    """What backward does with one chain."""

    slot: int  # of the chain's value
    target: Template  # the slots that its input gradient is added to, or NOT_WANTED, or PARAMETERS
    start: int  # its first node
    stop: int  # the node at which full backward calls end
    is_get_item: bool
    is_half_wanted: bool  # whether it begins with an operator of which the gradient of one operand is not wanted


class Schedule:
    """What a Graph does forward and backward, as lists of integers and layers.

    A chain is a stretch of nodes in which each reads only the one before it, and no other node reads that one. A
    GetItem is a chain of its own, because its gradient is only a part of what it read.
    """

    def __init__(self, table: NodeTable):
        self.table, self.inputs = table, len(table.inputs)
        readers: dict[int, int] = {}
        for template in (*table.operands, table.output):
            for slot in leaves(template):
                readers[slot] = readers.get(slot, 0) + 1
        count, first = len(table.layers), table.first
        apart = [layer.__class__ is GetItem for layer in table.layers]
        starts = [
            node
            for node, operand in enumerate(table.operands)
            if node == 0 or apart[node - 1] or apart[node] or operand != first + node - 1 or readers[operand] > 1
        ]
        self.spans = list(zip(starts, [*starts[1:], count], strict=True))
        slots = list(range(first)) + [-1] * count
        for chain, (_, end) in enumerate(self.spans):
            slots[first + end - 1] = first + chain
        self.size = first + len(self.spans)
        self.operands: list[Template] = [mapped(slots.__getitem__, table.operands[start]) for start in starts]
        self.output: Template = mapped(slots.__getitem__, table.output)
        self.result = gather(self.output)
        chains = [tuple(table.layers[start:end]) for start, end in self.spans]
        self.steps = list(zip(chains, map(gather, self.operands), self._last_uses(), strict=True))
        self._back: dict[tuple[bool, ...], list[Step]] = {}

    def _last_uses(self) -> list[tuple[int, ...]]:
        """For each chain the slots that nobody reads after it."""
        last: dict[int, int] = {}
        for chain, operand in enumerate(self.operands):
            last.update(dict.fromkeys(leaves(operand), chain))
        for slot in leaves(self.output):
            last.pop(slot, None)
        found: list[list[int]] = [[] for _ in self.operands]
        for slot, chain in last.items():
            found[chain].append(slot)
        return [tuple(slots) for slots in found]

    def backward(self, input_grad: bool, trained: Sequence[bool], sources: Sequence[bool]) -> list[Step]:
        """The steps of backward, one for each chain, the last chain first.

        trained: for each node, whether its layer is trainable. sources: for each source, whether it is.
        """
        key = (input_grad, *trained, *sources)
        if key not in self._back:
            self._back[key] = self._backward(trained, [input_grad] * self.inputs + list(sources))
        return self._back[key]

    def _backward(self, trained: Sequence[bool], wanted: list[bool]) -> list[Step]:
        layers, steps = self.table.layers, []
        for (start, end), operand in zip(self.spans, self.operands, strict=True):
            target: Any = NOT_WANTED
            stop = start
            if any(wanted[slot] for slot in leaves(operand)):
                target = mapped(lambda slot: slot if wanted[slot] else None, operand)
            else:
                found = [node for node in range(start, end) if trained[node]]
                if found:
                    target, stop = PARAMETERS, found[0] + 1
            is_get_item = layers[start].__class__ is GetItem and operand.__class__ is int
            is_half_wanted = _is_operator(layers[start]) and target.__class__ is tuple and None in target
            steps.append(Step(len(wanted), target, start, stop, is_get_item, is_half_wanted))
            wanted.append(target != NOT_WANTED)
        return steps[::-1]


def _is_operator(layer: Layer) -> bool:
    """Whether it is an operator that remembers and answers as all of them do."""
    kind: Any = type(layer)
    return isinstance(layer, Operator) and (kind.forward, kind.backward) == (Operator.forward, Operator.backward)
