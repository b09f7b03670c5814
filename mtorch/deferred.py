"""Errors that only a device can find, such as an id out of range: noted without waiting, told at the next host read.

A fault is a truth value that is still being computed. It belongs to the layer, or to the loss function, that noted it,
and it is told once: by the value of a loss that drives the layer's network, by `state_dict`, or by the score of a pass.
Whoever tells a fault forgets it, and the network goes on.
"""

import math
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy

from mtorch.arrays import Array, array_module, as_numpy, device_of

Faults = dict[tuple[str, Any], Array]  # by what is wrong, and by the device that computes whether it is

_noted: WeakKeyDictionary[Any, Faults] = WeakKeyDictionary()  # by owner; a copy of a layer has none


def defer_error(owner: Any, text: str, fault: Array) -> None:
    """Notes that a ValueError with this text is due if `fault`, a truth value on a device, comes true."""
    _add(_noted.setdefault(owner, {}), (text, device_of(fault)), fault)


def raise_deferred(net: Any, more: Faults | None = None) -> None:
    """ValueError for the first fault of that network, or among `more`, that has come true; it waits for the device."""
    for faults in [*_below(net), more or {}]:
        for key in list(faults):
            if faults.pop(key, False):
                raise ValueError(key[0])


class LazyValue:
    """The value of a loss that a device is still computing, and what may be wrong with it.

    value: NaN where the call that made it has found a fault.  marked: NaN also where the network that the loss drives
    has one that nobody was told. What the call has found becomes a fault of the network, if there is one.
    """

    def __init__(self, value: Array, source: Any, backward_func: Any):
        driven: Any = getattr(backward_func, "__self__", None)
        self.net = driven.core() if hasattr(driven, "core") else None
        found = {} if source is None else _noted.pop(source, {})
        self.value = self.marked = _mark_invalid(value, found)
        self.faults = found if self.net is None else {}
        if self.net is not None:
            for (text, _), fault in found.items():
                defer_error(self.net, text, fault)
        for faults in _below(self.net):
            self.marked = _mark_invalid(self.marked, faults)

    def include(self, other: "LazyValue | None") -> None:
        """Takes over what may be wrong with a value that this one was computed from."""
        for key, fault in other.faults.items() if other is not None else ():
            _add(self.faults, key, fault)

    def read(self) -> numpy.ndarray:
        """The value on the host, after one wait; ValueError for a fault, of which each is told once."""
        found = as_numpy(self.marked)
        if (found != found).any():
            raise_deferred(self.net, self.faults)
            found = as_numpy(self.value)
        return found


def _add(faults: Faults, key: tuple[str, Any], fault: Array) -> None:
    faults[key] = fault | faults[key] if key in faults else fault


def _below(net: Any) -> Iterator[Faults]:
    """What each layer of a network has noted."""
    if _noted and net is not None:
        for _, layer in net.walk():
            yield _noted.get(layer, {})


def _mark_invalid(value: Array, faults: Faults) -> Array:
    """The value, or NaN where one of these faults has come true, so that one read tells."""
    for (_, device), fault in faults.items():
        if device == device_of(value):
            xp: Any = array_module(value)
            value = xp.where(fault, math.nan, value)
    return value
