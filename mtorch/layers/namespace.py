"""`nn = layers.on(cupy, dtype="float32", rng=0)`: the layers with array module, dtype and generator bound."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy

from mtorch.initializers import as_generator
from mtorch.layer import Layer, home_of


class Namespace:
    """The classes of `mtorch.layers` as constructors that share `xp`, `dtype` and one generator."""

    def __init__(self, xp: ModuleType, dtype: Any, rng: Any):
        xp, dtype = home_of("on", xp, dtype)
        self._bound = {"xp": xp, "dtype": dtype, "rng": rng if rng is None else as_generator(rng, "on")}

    def __getattr__(self, name: str) -> Callable[..., Layer]:
        from mtorch import layers

        found = getattr(layers, name, None)
        if not (isinstance(found, type) and issubclass(found, Layer)):
            raise AttributeError(f"mtorch.layers has no layer {name!r}")
        return partial(found, **self._bound)

    def __dir__(self) -> list[str]:
        from mtorch import layers

        return list(layers.__all__)


def on(xp: ModuleType = numpy, *, dtype: Any = "float32", rng: Any = None) -> Namespace:
    """A namespace of layer constructors on `xp`: `nn.Linear(3, 2)` is `Linear(3, 2, xp=xp, dtype=dtype, rng=rng)`.

    An int as `rng` makes one Generator that all constructors draw from in turn.
    """
    return Namespace(xp, dtype, rng)
