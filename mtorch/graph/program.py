"""A Plan made ready to run: straight stretches of nodes become chains, and only their ends get a slot."""

from typing import Any

from mtorch.container import chained
from mtorch.graph.plan import Plan, Template, gather, leaves, mapped
from mtorch.layers.select import Select

DROP, PARAMETERS = -1, -2  # in place of a template: nobody wants this gradient, or only the chain's parameters do


class Program:
    """What a Graph does forward and backward, as lists of integers and layers.

    A chain is a stretch of nodes in which each reads only the one before it and is all that reads it. A Select stands
    alone, because its gradient is only a part of what it read.

    moving: the ids of the layers that have parameters. moved: for each source of the plan, whether it is a parameter.
    """

    def __init__(self, plan: Plan, moving: set[int], moved: list[bool]):
        self.plan, self.inputs = plan, len(plan.inputs)
        readers: dict[int, int] = {}
        for template in (*plan.operands, plan.output):
            for slot in leaves(template):
                readers[slot] = readers.get(slot, 0) + 1
        count, first = len(plan.layers), plan.first
        alone = [layer.__class__ is Select for layer in plan.layers]
        starts = [
            node
            for node, operand in enumerate(plan.operands)
            if node == 0 or alone[node - 1] or alone[node] or operand != first + node - 1 or readers[operand] > 1
        ]
        self.spans = list(zip(starts, [*starts[1:], count], strict=True))
        slots = list(range(first)) + [-1] * count
        for chain, (_, end) in enumerate(self.spans):
            slots[first + end - 1] = first + chain
        self.size = first + len(self.spans)
        self.operands: list[Template] = [mapped(slots.__getitem__, plan.operands[start]) for start in starts]
        self.output: Template = mapped(slots.__getitem__, plan.output)
        self.result = gather(self.output)
        chains = [chained(plan.layers[start:end]) for start, end in self.spans]
        self.steps = list(zip(chains, map(gather, self.operands), self._last_uses(), strict=True))
        self.all_back = self._backward(moving, [True] * self.inputs + moved)
        self.parameters_back = self._backward(moving, [False] * self.inputs + moved)

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

    def _backward(self, moving: set[int], wanted: list[bool]) -> list[tuple[int, Template, int, int, bool]]:
        """For each chain, the last one first: its slot, where its input gradient goes, its first node, the node at
        which full backward calls end, and whether it is a Select.

        wanted: whether anybody wants the gradient of each slot up to the first chain.
        """
        layers, steps = self.plan.layers, []
        for (start, end), operand in zip(self.spans, self.operands, strict=True):
            goes: Any = DROP
            stop = start
            if any(wanted[slot] for slot in leaves(operand)):
                goes = mapped(lambda slot: slot if wanted[slot] else None, operand)
            else:
                movers = [node for node in range(start, end) if id(layers[node]) in moving]
                if movers:
                    goes, stop = PARAMETERS, movers[0] + 1
            selects = layers[start].__class__ is Select and operand.__class__ is int
            steps.append((len(wanted), goes, start, stop, selects))
            wanted.append(goes != DROP)
        return steps[::-1]
