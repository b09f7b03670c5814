"""How a layer calls layers: each call's memory is kept in order, so that one layer may stand in many places."""

from collections.abc import Iterable, Sequence

from mtorch.arrays import Value, shape_value
from mtorch.layer import EMPTY, NO_ARRAY, NO_VALUE, TRUSTED, Layer, complete, refuse, settled
from mtorch.parameter import Buffer, Parameter

Chain = tuple[tuple[Layer, bool, bool], ...]


def chained(layers: Sequence[Layer]) -> Chain:
    """Each layer, and whether it may write into what it is given, going forward and going back."""
    back = layers[::-1]
    over = _spared(layers, [layer.new_result for layer in layers])
    over_back = _spared(back, [layer.new_grad for layer in back])[::-1]
    return tuple(zip(layers, over, over_back, strict=True))


def _spared(layers: Sequence[Layer], promises: list[bool | None]) -> list[bool]:
    free, found = False, []
    for layer, new in zip(layers, promises, strict=True):
        found.append(free and layer.overwrites)
        free = free if new is None else new
    return found


class Tape:
    """The calls that one forward made, each with what it remembered; backward pulls them in reverse.

    Because the memory moves from the layer to the tape, a layer that stands twice in a net, a cell unrolled over time
    and a net called twice all work. When a call raises, buffers get back the values they had when the tape was made.

    Layers are called without their guards (`bare_forward`, `bare_backward`): what a layer returns is what the next
    one takes, so one check at the door of the outermost container does for all.
    """

    __slots__ = ("owner", "calls", "buffers")

    def __init__(self, owner: "Container"):
        self.owner = owner
        self.calls: list = []
        self.buffers = [(buffer, buffer.value) for buffer in owner.buffers_below] if owner.buffers_below else ()

    def call(self, layer: Layer, x: Value) -> Value:
        """layer.forward(x), its memory kept here."""
        return self.run(((layer, False, False),), x)

    def run(self, chain: Chain, x: Value) -> Value:
        """One layer after the other, each on what the last returned."""
        calls, array = self.calls, self.owner.xp.ndarray
        for layer, over, over_back in chain:
            try:
                if x.__class__ is not array and x.__class__ in NO_ARRAY and layer.array_only:
                    refuse(layer, x)
                x = layer.bare_forward(x, x) if over and x.__class__ is array else layer.bare_forward(x)
                if x.__class__ is not array and x.__class__ in NO_VALUE:
                    settled(layer, x, layer.moves_data)
            except BaseException as error:
                layer._memory = EMPTY
                self.undo()
                self._note(error, layer)
                raise
            calls.append((layer, layer._memory, over_back))
            layer._memory, layer._returned = EMPTY, None
        return x

    def undo(self) -> None:
        """Gives buffers the values they had when the tape was made."""
        for buffer, value in self.buffers:
            buffer.value = value

    def pull(self, output_grad: Value) -> Value:
        """The last call's backward."""
        return self.rewind(output_grad, len(self.calls) - 1)

    def rewind(self, output_grad: Value, stop: int = 0) -> Value:
        """The backward of one call after the other, from the last down to number `stop`; all of a chain at once."""
        calls, layer = self.calls, None
        while len(calls) > stop:
            above = layer
            layer, layer._memory, over = calls.pop()
            if output_grad is not None:
                layer._returned = TRUSTED
                try:
                    if over and output_grad.__class__ is self.owner.xp.ndarray:
                        output_grad = layer.bare_backward(output_grad, output_grad)
                    else:
                        output_grad = layer.bare_backward(output_grad)
                except BaseException as error:
                    self._note(error, layer)
                    mistaken = isinstance(error, TypeError | ValueError | AttributeError) and len(error.__notes__) == 1
                    if above is not None and mistaken:
                        kind = getattr(output_grad, "dtype", type(output_grad).__name__)
                        error.add_note(f"its output gradient, {kind} {shape_value(output_grad)}, came from {above!r}")
                    raise
                layer._returned = None
                if output_grad is None:
                    self._without_gradient(layer)
            layer._memory = EMPTY
        return output_grad

    def _without_gradient(self, layer: Layer) -> None:
        """TypeError for a layer that returned no gradient, unless it has a door of its own, which may admit ids."""
        if type(layer).cast_input is Layer.cast_input:
            wanted = "the gradient of its input (zeros to stop it)"
            error = TypeError(f"{layer!r} expected its backward to return {wanted}, got None")
            self._note(error, layer)
            raise error

    def pull_parameters(self, output_grad: Value) -> None:
        """The last call's backward_parameters."""
        layer, layer._memory, _ = self.calls.pop()
        layer._returned = TRUSTED
        try:
            layer.backward_parameters(output_grad)
        except BaseException as error:
            self._note(error, layer)
            raise
        layer._memory, layer._returned = EMPTY, None

    def _note(self, error: BaseException, layer: Layer) -> None:
        error.add_note(f"in {self.owner.place(layer, len(self.calls))}")


class Container(Layer):
    """A layer that calls layers. It takes its array module and dtype from those that have parameters.

    `children()` names the layers; subclasses whose layers are not plain attributes override it.
    """

    def __init__(self, layers: tuple[Layer, ...]):
        self.moving = firm = tuple(layer for layer in layers if layer.parameters())
        lead = (firm or layers)[0]
        for layer in firm:
            if layer.xp is not lead.xp or layer.dtype != lead.dtype:
                raise ValueError(
                    f"{type(self).__name__} needs layers of one array module and dtype, got "
                    f"{lead!r} ({lead.xp.__name__}, {lead.dtype}) and {layer!r} ({layer.xp.__name__}, {layer.dtype})"
                )
        super().__init__(xp=lead.xp, dtype=lead.dtype)
        self.multithreaded = any(layer.multithreaded for layer in layers)
        below = [(layer, each) for layer in layers for _, each in layer.walk()]
        settled = set(map(id, firm))
        for layer, each in below:
            if id(layer) not in settled and (each.xp is not lead.xp or each.dtype != lead.dtype):
                each._adopt(lead.xp, lead.dtype)
        self.buffers_below = tuple({id(b): b for _, each in below for _, b in each.own(Buffer)}.values())

    @classmethod
    def bare(cls, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """The layers to hold: a `Module` is replaced by its net, what is no layer is a TypeError."""
        found = tuple(layers)
        for layer in found:
            if not isinstance(layer, Layer):
                raise TypeError(f"{cls.__name__} is made of layers, got {layer!r}")
        return tuple(complete(layer).core() for layer in found)

    def step(self, lr: float) -> None:
        for layer in self.moving:
            layer.step(lr)
        for _, parameter in self.own(Parameter):
            parameter.step(lr)

    def infer(self, x: Value) -> Value:
        below = [layer for _, layer in self.walk()]
        before = [(layer._memory, layer._returned, layer.training) for layer in below]
        for layer in below:
            layer.training = False
        try:
            return self.forward(x)
        finally:
            for layer, state in zip(below, before, strict=True):
                layer._memory, layer._returned, layer.training = state

    def place(self, layer: Layer, position: int) -> str:
        """Where the layer of that call stands, for the notes of errors."""
        name = next((name for name, child in self.children() if child is layer), str(position))
        return f"{name} of {type(self).__name__}"
