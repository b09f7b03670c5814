"""How a layer calls layers: a tape keeps the memory of each call, so that one layer may be called several times."""

from collections.abc import Iterable, Sequence
from typing import Any

from mtorch import accelerate, guards
from mtorch.accelerate import Blas
from mtorch.arrays import Value, shape_value
from mtorch.checks import shown
from mtorch.guards import EMPTY, NO_ARRAY, NO_VALUE, in_predict, passes
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter


class Tape:
    """The calls that one forward made, each with what it remembered; backward takes them in reverse.

    A call's memory is taken from the layer and kept here, so that a network may use one layer twice, or one cell at
    every step of time. When a call raises, buffers get back the values they had when the tape was made.
    """

    __slots__ = ("owner", "calls", "buffers")

    def __init__(self, owner: "Container"):
        self.owner = owner
        self.calls: list[tuple[Layer, Any]] = []
        keeps = owner.buffers_below and not in_predict()
        self.buffers = [(buffer, buffer.value) for buffer in owner.buffers_below] if keeps else ()

    def call(self, layer: Layer, x: Value) -> Value:
        """layer.forward(x), its memory kept here."""
        return self.run((layer,), x)

    def run(self, layers: Sequence[Layer], x: Value) -> Value:
        """Calls the layers one after the other, each on what the one before it returned."""
        if self.owner.multithreaded and not Blas.held():
            return Blas.limited(self.run, layers, x)
        owner, calls = self.owner, self.calls
        array, composites, keeps = owner.xp.ndarray, owner.composites, not (passes and in_predict())
        layer = layers[0]
        try:
            for layer in layers:
                if x.__class__ is not array and x.__class__ in NO_ARRAY and layer.array_only:
                    guards.refuse_value(layer, x)
                x = layer.forward(x)
                if x.__class__ is not array and x.__class__ in NO_VALUE:
                    guards.as_value(layer, x, layer.moves_data)
                if not keeps:
                    calls.append((layer, EMPTY))
                elif composites and layer in composites:
                    calls.append((layer, _take(layer)))
                else:
                    calls.append((layer, layer._memory))
                    layer._memory, layer._returned = EMPTY, None
        except BaseException as error:
            self.undo()
            if keeps:
                layer.forget()
            self._note(error, layer)
            raise
        return x

    def undo(self) -> None:
        """Gives buffers the values they had when the tape was made."""
        for buffer, value in self.buffers:
            buffer.value = value

    def pull(self, output_grad: Value) -> Value:
        """Runs the backward of the last call."""
        return self.rewind(output_grad, len(self.calls) - 1)

    def rewind(self, output_grad: Value, stop: int = 0) -> Value:
        """Runs the backward of one call after the other, from the last down to number `stop`."""
        if self.owner.multithreaded and not Blas.held():
            return Blas.limited(self.rewind, output_grad, stop)
        calls, composites = self.calls, self.owner.composites
        layer: Any = None
        above = None
        try:
            while len(calls) > stop:
                above = layer
                layer, memory = calls.pop()
                if output_grad is None:  # the layer above took integers: nothing below it gets a gradient
                    continue
                layer._memory = memory
                if composites and layer in composites:
                    memory.restore()
                output_grad = layer.backward(output_grad)
                layer._memory = EMPTY
                if output_grad is None and layer.takes == "floats":
                    wanted = "the gradient of its input (zeros to stop it)"
                    raise TypeError(f"{layer!r} expected its backward to return {wanted}, got None")
        except BaseException as error:
            self._fail(error, layer, above, output_grad)
            raise
        return output_grad if output_grad.__class__ is self.owner.xp.ndarray else guards.as_grad(output_grad)

    def pull_parameters(self, output_grad: Value, number: int | None = None) -> None:
        """Runs backward_parameters of call `number`, by default the last, after the backward of all calls above it."""
        if self.owner.multithreaded and not Blas.held():
            return Blas.limited(self.pull_parameters, output_grad, number)
        if number is not None:
            output_grad = self.rewind(output_grad, number + 1)
            if output_grad is None:
                return
        layer, memory = self.calls.pop()
        layer._memory = memory
        try:
            if self.owner.composites and layer in self.owner.composites:
                memory.restore()
            layer.backward_parameters(output_grad)
            layer._memory = EMPTY
        except BaseException as error:
            self._fail(error, layer, None, output_grad)
            raise

    def _fail(self, error: BaseException, layer: Layer | None, above: Layer | None, output_grad: Value) -> None:
        if layer is not None:
            self._note(error, layer)
            mistaken = isinstance(error, TypeError | ValueError | AttributeError) and len(error.__notes__) == 1
            if above is not None and mistaken:
                kind = getattr(output_grad, "dtype", type(output_grad).__name__)
                error.add_note(f"its output gradient, {kind} {shape_value(output_grad)}, came from {above!r}")
        guards.discard(self.owner, error)

    def _note(self, error: BaseException, layer: Layer) -> None:
        error.add_note(f"in {self.owner.place(layer, len(self.calls))}")


class _Memories:
    """The memories of a layer whose attributes are layers: its own, and those of the layers below it."""

    __slots__ = ("kept",)

    def __init__(self, kept: list[tuple[Layer, Any, Any]]):
        self.kept = kept

    def restore(self) -> None:
        for layer, memory, returned in self.kept:
            layer._memory, layer._returned = memory, returned


def _take(layer: Layer) -> _Memories:
    kept = [(each, each._memory, each._returned if each is not layer else None) for _, each in layer.walk()]
    layer.forget()
    return _Memories(kept)


class Container(Layer):
    """A layer that calls layers. It takes its array module and dtype from those that have parameters.

    `children()` names the layers; subclasses whose layers are not plain attributes override it. A forward runs the
    layers by a Tape and ends with `self.remember(tape)` and `return self.returns(y)`.
    """

    has_tape = True

    def __init__(self, layers: tuple[Layer, ...]):
        self.with_parameters = trained = tuple(layer for layer in layers if layer.parameters())
        # While the first parameter of a layer is trainable, so is the layer; `trains` asks them all.
        self.first_parameters = tuple(next(iter(layer.parameters().values())) for layer in trained)
        first = (trained or layers)[0]
        for layer in trained:
            if layer.xp is not first.xp or layer.dtype != first.dtype:
                raise ValueError(
                    f"{type(self).__name__} needs layers of one array module and dtype, got "
                    f"{first!r} ({first.xp.__name__}, {first.dtype}) and {layer!r} ({layer.xp.__name__}, {layer.dtype})"
                )
        super().__init__(xp=first.xp, dtype=first.dtype)
        below = [(layer, each) for layer in layers for _, each in layer.walk()]
        self.multithreaded = any(
            accelerate.multithreaded(each) or getattr(each, "multithreaded", False) for _, each in below
        )
        checked = set(map(id, trained))
        for layer, each in below:
            if id(layer) not in checked and (each.xp is not first.xp or each.dtype != first.dtype):
                each._adopt(first.xp, first.dtype)
        self.buffers_below = tuple({id(b): b for _, each in below for _, b in each.own(Buffer)}.values())
        # Layers that call layers without a tape: the tape keeps what those below them remembered, too.
        self.composites = frozenset(x for x in layers if not x.has_tape and next(iter(x.children()), None))

    @classmethod
    def cores(cls, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """The layers, with its network in place of each `Module`; TypeError for anything that is not a layer."""
        found = tuple(layers)
        for layer in found:
            if not isinstance(layer, Layer):
                raise TypeError(f"{cls.__name__} is made of layers, got {shown(layer)}")
            layer._fits(None)  # AttributeError where __init__ did not run
        return tuple(layer.core() for layer in found)

    def step(self, lr: float) -> None:
        for _, layer in self.children():
            layer.step(lr)
        for _, parameter in self.own(Parameter):
            parameter.step(lr)

    def place(self, layer: Layer, position: int) -> str:
        """The name of the layer of that call, for the notes of errors."""
        name = next((name for name, child in self.children() if child is layer), str(position))
        return f"{name} of {type(self).__name__}"
