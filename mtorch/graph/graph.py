"""A network whose layers form a directed acyclic graph."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from mtorch import arrays, guards
from mtorch.accelerate import Blas
from mtorch.arrays import Value, add_values, leaves, map_value, shape_value
from mtorch.checks import shown
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.graph.expression import Expression, Input, table_of
from mtorch.graph.inputs import Readers
from mtorch.graph.schedule import NOT_WANTED, PARAMETERS, Schedule, Step
from mtorch.graph.table import Constant, NodeTable, Template
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Operator
from mtorch.layers.get_item import completed
from mtorch.parameter import Buffer, Parameter
from mtorch.tree import home_of

Named = dict[str, Layer | Parameter | Buffer]


class Graph(Container):
    """A directed acyclic graph of layers: every node applies a layer to values defined above it.

        Graph("x", {"h": (Linear(3, 3), "x"), "y": (Add(), ("h", "x"))}, "y")

    inputs, outputs: a name or a tuple of names; one is a bare value, several are a tuple.
    nodes: {name: (layer, operand)} in reading order. An operand is a name, or where the layer takes a tuple a tuple,
        of names, numbers, arrays and Parameters. {name: Parameter} names a parameter.
    xp, dtype: for a graph without parameters; else they are those of the layers with parameters.
    named: how layers and parameters are called in the state dict, if not after their nodes; `title` in errors.

    `Graph.of(expression)` builds one from a formula.

    Backward: a value that several nodes read acts on the outputs through all of them, so its gradient is the sum of the
    gradients that they return. Backward runs over the nodes in reverse order, so every sum is complete before its use.
    Nodes that lead to no parameter and no wanted input are skipped.
    """

    module: Any = None  # the Module that this graph is traced from

    def __init__(
        self,
        inputs: str | tuple[str, ...],
        nodes: dict[str, Any],
        outputs: Any,
        *,
        xp: ModuleType | None = None,
        dtype: Any = None,
        named: Named | None = None,
        title: str = "Graph",
    ):
        if not isinstance(nodes, Mapping):
            raise TypeError(f"{title} expected nodes as {{name: (layer, operand)}}, got {shown(nodes)}")
        self.inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        if not self.inputs or not all(isinstance(name, str) for name in (*self.inputs, *nodes)):
            raise TypeError(f"Graph expected names of inputs and nodes, got {shown(inputs)} and {shown(list(nodes))}")
        if len({*self.inputs, *nodes}) < len(self.inputs) + len(nodes):
            raise ValueError(f"Graph expected different names, got the inputs {self.inputs} and nodes {list(nodes)}")
        outputs = tuple(outputs) if isinstance(outputs, list) else outputs
        if arrays.depth(outputs) > arrays.DEEPEST:
            raise ValueError(f"{title} expected outputs, got tuples in tuples, more than {arrays.DEEPEST} deep")
        single = isinstance(outputs, tuple) and len(outputs) == 1
        if not isinstance(named, Mapping | None):
            raise TypeError(f"{title} expected named as {{path: layer or parameter}}, got {shown(named)}")
        self._table = table = NodeTable(self.inputs, nodes, outputs[0] if single else outputs)
        self.title, self.named = title, dict(named or {})
        layers = {id(layer): layer for layer in table.layers}
        layers.update((id(item), item) for item in self.named.values() if isinstance(item, Layer))
        self._check_homes(tuple(layers.values()), xp, dtype)
        super().__init__(tuple(layers.values()))
        self.moves_data = all(layer.moves_data for layer in table.layers)
        if isinstance(table.output, tuple):
            self.parts = len(table.output)
        elif table.output >= table.first:
            self.parts = table.layers[table.output - table.first].parts
        self._name()
        self.takes = self._readers.takes(len(self.inputs))
        are_parameters = [isinstance(item, Parameter) for item in table.sources.values()]
        have_parameters = [layer in self.with_parameters for layer in table.layers]
        self._schedule = schedule = Schedule(table)
        self._all_train = [schedule.backward(wanted, have_parameters, are_parameters) for wanted in (False, True)]
        parameters = tuple(item for item in table.sources.values() if isinstance(item, Parameter))
        self._leading = self.first_parameters + parameters
        self.infer_shape({})

    @classmethod
    def of(
        cls,
        result: Any,
        *,
        inputs: tuple[Input, ...] | None = None,
        xp: ModuleType | None = None,
        dtype: Any = None,
        named: Named | None = None,
        title: str = "Graph",
    ) -> "Graph":
        """The graph of an expression or a tuple of expressions; its inputs come in the order of first use."""
        for leaf in list(leaves(result)) or [result]:
            if not isinstance(leaf, Expression):
                raise TypeError(f"{title} expected an expression or a tuple of expressions, got {shown(leaf)}")
        if inputs is not None and not (isinstance(inputs, tuple | list) and all(isinstance(x, Input) for x in inputs)):
            raise TypeError(f"{title} expected inputs as a tuple of Inputs, got {shown(inputs)}")
        table = table_of(result, inputs, _paths_below(named or {}))
        return cls(*table, xp=xp, dtype=dtype, named=named, title=title)

    def _check_homes(self, layers: tuple[Layer, ...], xp: ModuleType | None, dtype: Any) -> None:
        """One array module and dtype for all: those of the parameters, else those asked for, else the first layer's."""
        trained = next((layer for layer in layers if layer.parameters()), None)
        homes: list[tuple[str, Any, Any]] = [] if trained is None else [(repr(trained), trained.xp, trained.dtype)]
        for item in self._table.sources.values():
            if isinstance(item, Parameter):
                homes.append((repr(item), arrays.array_module(item.value), item.value.dtype))
        _, home, found = (
            homes[0] if homes else ("", layers[0].xp if xp is None else xp, layers[0].dtype if dtype is None else dtype)
        )
        home, found = home_of(self.title, home, found)
        asked = [
            (
                f"{self.title}(xp=, dtype=)",
                *home_of(self.title, home if xp is None else xp, found if dtype is None else dtype),
            )
        ]
        for who, where, kind in homes + asked:
            if where is not home or kind != found:
                raise ValueError(
                    f"{self.title} needs one array module and dtype, got "
                    f"{homes[0][0]} ({home.__name__}, {found}) and {who} ({where.__name__}, {kind})"
                )
        for layer in layers if trained is None else ():
            for _, each in layer.walk():
                if each.xp is not home or each.dtype != found:
                    each._adopt(home, found)

    def _name(self) -> None:
        """The names of everything below, and the parameters and constants in the order of their slots."""
        table, below = self._table, _paths_below(self.named)
        self._children = [(path, item) for path, item in self.named.items() if isinstance(item, Layer)]
        self._children += [pair for pair in zip(table.names, table.layers, strict=True) if id(pair[1]) not in below]
        self._items = {path: item for path, item in self.named.items() if not isinstance(item, Layer)}
        paths = {id(item): f"{path}.{name}" for path, layer in self._children for name, item in layer._state().items()}
        paths |= {id(item): path for path, item in self._items.items()}
        self._readers = Readers(table)
        self._sources: list[Parameter | Buffer] = []
        self._source_names = [paths.get(id(item), name) for name, item in table.sources.items()]
        for i, item in enumerate(table.sources.values()):
            if isinstance(item, Constant):
                item = Buffer(self._readers.constant(self, len(self.inputs) + i, item.value), persistent=False)
            self._sources.append(item)
            self._items[self._source_names[i]] = item

    # ------------------------------------------------------------------ the tree

    @property
    def nodes(self) -> dict[str, Any]:
        """The nodes as the constructor takes them: parameters and constants by name, then (layer, operand) by name."""
        table, names = self._table, self._slot_names()
        operands = (map_value(names.__getitem__, operand) for operand in table.operands)
        return {
            **dict(zip(table.sources, self._sources, strict=True)),
            **dict(zip(table.names, zip(table.layers, operands, strict=True), strict=True)),
        }

    @property
    def outputs(self) -> Any:
        """The name of the output, or a tuple of names."""
        return map_value(self._slot_names().__getitem__, self._table.output)

    def _slot_names(self) -> list[str]:
        return [*self.inputs, *self._table.sources, *self._table.names]

    def children(self) -> Iterator[tuple[str, Layer]]:
        self._follow()
        return iter(self._children)

    def _follow(self) -> None:
        """Lets the Module whose forward this is trace it again if other layers are assigned to it."""
        if self.module is not None:
            self.module.core()

    def own(self, kind: type) -> Iterator[tuple[str, Any]]:
        return ((name, item) for name, item in self._items.items() if isinstance(item, kind))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        table = self._table
        known_sizes = [known] if len(self.inputs) == 1 else [{} for _ in self.inputs]
        for shape in (source.value.shape for source in self._sources):
            known_sizes.append({axis - len(shape): n for axis, n in enumerate(shape)})
        for name, layer, operand in zip(table.names, table.layers, table.operands, strict=True):
            slots = operand if operand.__class__ is tuple else ()
            try:
                if operand.__class__ is int:
                    known_sizes.append(layer.infer_shape(known_sizes[operand]))
                elif isinstance(layer, Operator) and [slot.__class__ for slot in slots] == [int, int]:
                    known_sizes.append(layer.broadcast_shapes(known_sizes[slots[0]], known_sizes[slots[1]]))
                else:
                    known_sizes.append(layer.infer_shape({}))
            except ValueError as error:
                error.add_note(f"in node {name!r} of {self.title}")
                raise
        return known_sizes[table.output] if table.output.__class__ is int else {}

    def place(self, layer: Layer, position: int) -> str:
        names = self._table.names
        return f"node {names[min(position, len(names) - 1)]!r} of {self.title}"

    def details(self) -> str:
        table = self._table
        if len(table.layers) > 8:
            return f"{', '.join(self.inputs)}; {len(table.layers)} nodes"
        names = [*self.inputs, *self._source_names, *table.names]
        rows = zip(table.names, table.layers, table.operands, strict=True)
        nodes = [f"{name} = {layer!r}({', '.join(names[slot] for slot in leaves(op))})" for name, layer, op in rows]
        return ", ".join([*self.inputs, *nodes])

    # ------------------------------------------------------------------ the verbs

    def cast_input(self, x: Value) -> Value:
        given = self._readers.cast(self, self._parts(x))
        return given if len(self.inputs) > 1 else given[0]

    def _parts(self, x: Value) -> tuple[Value, ...]:
        count = len(self.inputs)
        if count == 1:
            return (x,)
        if x.__class__ is not tuple or len(x) != count:
            text = f"expected a tuple of {count} ({', '.join(self.inputs)}), got {shape_value(x)}"
            raise ShapeMismatchError(self, text)
        return x

    def forward(self, x: Value) -> Value:
        self._follow()
        values = [*self._parts(x), *[source.value for source in self._sources]]
        if self.multithreaded and not Blas.held():
            return Blas.limited(self.forward, x)
        tape, schedule = Tape(self), self._schedule
        for chain, operand, last_read in schedule.steps:
            values.append(tape.run(chain, operand(values)))
            for slot in last_read:
                values[slot] = None
        self.remember(tape)
        return self.returns(schedule.result(values))

    def backward(self, output_grad: Value) -> Value:
        grads = self._answer(output_grad, self._steps(True))
        return grads[0] if len(self.inputs) == 1 else tuple(grads[: len(self.inputs)])

    def backward_parameters(self, output_grad: Value) -> None:
        self._answer(output_grad, self._steps(False))

    def _steps(self, input_grad: bool) -> list[Step]:
        """What backward does, now that these parameters are trainable and those are frozen."""
        for parameter in self._leading:
            if not parameter._trainable:
                break
        else:
            return self._all_train[input_grad]
        trains = {id(layer) for layer in self.with_parameters if layer.trains()}
        sources = [isinstance(item, Parameter) and item.trainable for item in self._sources]
        return self._schedule.backward(input_grad, [id(layer) in trains for layer in self._table.layers], sources)

    def _answer(self, output_grad: Value, steps: list[Step]) -> list[Value]:
        """The gradients of the inputs, parameters and constants."""
        if self.multithreaded and not Blas.held():
            return Blas.limited(self._answer, output_grad, steps)
        output_grad = self.cast_grad(output_grad)
        tape: Tape = self.recall()
        try:
            return self._rewind(tape, output_grad, steps)
        except BaseException as error:
            guards.discard(self, error)
            raise

    def _rewind(self, tape: Tape, output_grad: Value, steps: list[Step]) -> list[Value]:
        """Runs the backward of all nodes in reverse order."""
        calls, sums = tape.calls, _Sums(self._schedule.size)
        sums.add_parts(self._schedule.output, output_grad)
        grads = sums.grads
        outlines: dict[int, Any] = {}  # slot -> outline of its tuple, where the gradient so far may have gaps
        for slot, target, start, stop, is_get_item, is_half_wanted in steps:
            grad, grads[slot] = grads[slot], None
            if grad is None or target == NOT_WANTED:
                del calls[start:]
            elif is_get_item:
                outlines.pop(slot, None)
                get_item: Any
                get_item, outlines[target] = calls.pop()
                sums.add(target, get_item.placed(grad, len(outlines[target])))
            else:
                if outlines and slot in outlines:
                    grad = completed(self.xp, grad, outlines.pop(slot))
                if is_half_wanted:
                    operator: Any = calls[start][0]
                    calls[start] = operator, operator.memory_for(calls[start][1], target)
                grad = tape.rewind(grad, stop)
                if target == PARAMETERS:
                    tape.pull_parameters(grad)
                    del calls[start:]
                elif target.__class__ is int and grads[target] is None:
                    grads[target] = grad
                else:
                    sums.add_parts(target, grad)
        for slot, outline in outlines.items():  # inputs that are tuples
            grads[slot] = completed(self.xp, grads[slot], outline)
        for slot, source in enumerate(self._sources, start=len(self.inputs)):
            if grads[slot] is not None and source.__class__ is Parameter:
                source.accumulate(grads[slot])
        return grads

    @classmethod
    def examples(cls, *, xp: Any, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        from mtorch import layers

        nn = layers.on(xp, dtype=dtype, rng=rng)
        yield cls("x", {"h": (nn.Linear(3, 3), "x"), "y": (nn.Add(), ("h", "x"))}, "y"), (4, 3)
        twice = nn.Linear(3, 3)
        nodes = {"h": (twice, "a"), "k": (twice, "h"), "m": (nn.Multiply(), ("k", "b")), "s": (nn.Tanh(), "m")}
        yield cls(("a", "b"), nodes, ("s", "h")), ((4, 3), (4, 1))
        scale = Parameter(xp.asarray(rng.standard_normal(3), dtype=dtype))
        x, y = Input("x"), Input()
        left, right = nn.Split(2, -1)(x)
        formula: Any = (2.0 - left * scale) / (right * right + 1.5) + y[[0, 0, 1]] ** 3 * scale
        yield cls.of((formula, left), xp=xp, dtype=dtype), ((3, 6), (2, 3))


def _paths_below(named: Named) -> dict[int, str]:
    """The path of every layer at or below the named ones, by id; of a shared one the first."""
    paths: dict[int, str] = {}
    for path, item in named.items():
        for prefix, layer in item.walk(f"{path}.") if isinstance(item, Layer) else ():
            paths.setdefault(id(layer), prefix[:-1])
    return paths


class _Sums:
    """The gradient of every slot so far. Nothing that came from a layer is written to; a sum made here may be."""

    __slots__ = ("grads", "owned")

    def __init__(self, count: int):
        self.grads: list[Value] = [None] * count
        self.owned: set[int] = set()

    def add(self, slot: int, grad: Value) -> None:
        """Adds a gradient to a slot's sum."""
        before = self.grads[slot]
        if before is None:
            self.grads[slot] = grad
        elif slot in self.owned and grad is not None:
            before += grad
            self.grads[slot] = before
        else:
            self.grads[slot] = add_values(before, grad)
            if grad is not None and before.__class__ is not tuple:
                self.owned.add(slot)

    def add_parts(self, template: Template, grad: Value) -> None:
        """Adds the parts of a gradient to the slots of a template."""
        if template.__class__ is int:
            self.add(template, grad)
        elif template is not None and grad is not None:
            for part, inner in zip(template, grad, strict=True):
                self.add_parts(part, inner)
