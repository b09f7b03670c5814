"""The states of layers that read a sequence step by step: how they travel through `predict`, and `final_state`."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtorch import guards
from mtorch.arrays import Value
from mtorch.last_forward import OfLastForward

if TYPE_CHECKING:
    from mtorch.layer import Layer


class States(guards.Pass):
    """The states of one `predict(x, state=...)`: those that its layers begin with, then those that they end with.

    They are called by the dotted names of the layers. The n-th call of a layer within the pass has a state of its own,
    called name:n from the second on. Layers within a cell have none: they begin anew at every step.
    """

    def __init__(self, net: "Layer", state: Any):
        self.net, self.calls = net, Counter[str]()
        self.names: dict[int, str] = {}
        self.inner: set[int] = set()  # the layers within cells
        cells: list[str] = []
        for prefix, layer in net.walk():
            within = any(prefix.startswith(cell) for cell in cells)
            if within:
                self.inner.add(id(layer))
            elif isinstance(layer, Stateful) and layer.has_state:
                self.names.setdefault(id(layer), prefix[:-1])
                cells.append(prefix)
            if id(layer) in self.inner and id(layer) in self.names:
                raise TypeError(f"{layer!r} is in a cell and outside of it: call predict(x) on the whole sequence")
        if not self.names:
            raise TypeError(f"{net!r} has no layer with a state: call predict(x) on the whole sequence")
        self.alone = "" in self.names.values()  # the net is one such layer
        self.last = self._checked({} if state is None else {"": state} if self.alone else state)

    def _checked(self, state: Any) -> dict[str, Value]:
        """A copy of the dict; an error unless its names are those of layers with a state."""
        names = {*self.names.values()}
        known = ", ".join(map(repr, sorted(names)))
        if not isinstance(state, Mapping):
            given = f"an array of shape {state.shape}" if hasattr(state, "shape") else type(state).__name__
            raise TypeError(f"{self.net!r} expected state=None or a dict of states by name ({known}), got {given}")
        for name in state:
            first, _, number = str(name).rpartition(":")
            if name not in names and not (first in names and number.isdecimal() and int(number) > 1):
                raise ValueError(f"{self.net!r} has states named {known}, got a state named {name!r}")
        return dict(state)

    def begin(self, layer: "Layer") -> Value:
        """The state that the layer begins its next call with; None if there is none."""
        name = self.names.get(id(layer))
        if name is None:
            if id(layer) in self.inner:
                return None
            raise TypeError(f"{layer!r} is no attribute of a layer below {self.net!r}, so that its state has no name")
        self.calls[name] += 1
        state = self.last.get(self._key(name))
        kind = layer.takes[0] if isinstance(layer.takes, tuple) else layer.takes
        return None if state is None else guards.cast(layer, state, kind)

    def end(self, layer: "Layer", last: Value) -> None:
        """Keeps the state that the layer ended that call with."""
        name = self.names.get(id(layer))
        if name is not None:
            self.last[self._key(name)] = last

    def _key(self, name: str) -> str:
        return name if self.calls[name] == 1 else f"{name}:{self.calls[name]}"


def predicted_on(net: "Layer", x: Value, state: Any) -> tuple[Value, Any]:
    """(y, the state after x) of a pass that begins with that state."""
    states = States(net, state)
    y = guards.predicted(net, x, states)
    return y, states.last.get("") if states.alone else states.last


def _travelling() -> States | None:
    """The states of the pass that this is within, if it has some."""
    current = guards.current_pass()
    return current if isinstance(current, States) else None


def states_travel(layer: "Layer") -> bool:
    """Whether the layer is called within `predict(x, state=...)`."""
    states = _travelling() if guards.passes else None
    return states is not None and id(layer) not in states.inner


def refuse_state(layer: "Layer", why: str) -> None:
    """TypeError within `predict(x, state=...)`: for layers that cannot go on where they ended."""
    if states_travel(layer):
        raise TypeError(
            f"{layer!r} takes no part in predict(x, state=...): {why}. Call predict(x) on the whole sequence"
        )


class Stateful:
    """A layer that goes on, with what it kept of the steps before, where its last call ended."""

    has_state = True  # False for an instance that keeps nothing

    def begin_with(self: Any, state: Value) -> Value:
        """The state to begin with: the one that travels, else the one given."""
        states = _travelling() if guards.passes else None
        found = None if states is None else states.begin(self)
        return state if found is None else found

    def end_with(self: Any, last: Value) -> None:
        """Keeps the last state within `predict(x, state=...)`."""
        states = _travelling()
        if states is not None:
            states.end(self, last)


class Recurrence(Stateful):
    """A layer whose last state can be read: `final_state`, after the last forward, without gradient."""

    final_state = OfLastForward("take the state from y, state = net.predict(x, state=state)")

    def end_with(self: Any, last: Value) -> None:
        """Makes it `final_state`; within predict that stays as it was, and the state may travel."""
        self.final_state = last
        super().end_with(last)
