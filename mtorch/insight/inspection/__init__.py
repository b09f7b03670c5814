"""One forward and one backward, and what happened at every layer: `mtorch.inspect`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy

from mtorch import guards
from mtorch.arrays import Value
from mtorch.insight.inspection.batch import BatchAxes, Ends
from mtorch.insight.inspection.records import Record, record_of
from mtorch.insight.inspection.records import Sample as Sample
from mtorch.insight.observation import Observation
from mtorch.layer import Layer
from mtorch.losses.base import Loss, LossFunction
from mtorch.losses.sums import placed


class Inspection(Sequence[Record]):
    """The records of one forward and backward, in the order of the forward.

    `print(found)` shows them as tables, `found.plot()` as a figure, `found.html(path)` writes a page on which the
    pass is followed step by step. `found[0]` and `found["0"]`, by name, are records; `found.loss` is the loss' value.
    """

    def __init__(self, records: Sequence[Record], title: str, loss: float, loss_name: str, ends: Ends):
        self.records = tuple(records)
        self.title, self.loss, self.loss_name, self.ends = title, loss, loss_name, ends

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int | str) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            found = [record for record in self.records if record.name == index]
            if not found:
                raise KeyError(f"no layer {index!r}, only {', '.join(repr(record.name) for record in self.records)}")
            return found[0]
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __str__(self) -> str:
        from mtorch.insight.inspection.table import table

        return table(self)

    def __repr__(self) -> str:
        layers = f"{len(self)} layer{'s' * (len(self) != 1)}"
        return f"Inspection({self.title}, {layers}, loss={self.loss:.4g})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def plot(self) -> Any:
        """A matplotlib figure: outputs, dead and saturated shares, and the norms of the gradients, layer by layer."""
        from mtorch.insight.inspection.plot import figure

        return figure(self)

    def html(self, path: str | Path) -> Path:
        """Writes the page, one file without anything from outside, and returns its path."""
        from mtorch.insight.inspection.page import page

        path = Path(path)
        path.write_text(page(self), encoding="utf-8")
        return path


def inspect(module: Layer, x: Value, target: Any, loss: Any) -> Inspection:
    """Runs one forward and one backward on a batch and tells what happened at every layer that is no container.

    loss: a loss function, `CrossEntropyLoss()` or `CrossEntropyLoss(module)`, its class, or any function of
        (prediction, target) that returns a `Loss`.

    The pass runs on a copy of the module, in the mode that the module is in. So the module keeps its gradients,
    buffers, memories and random states, also when a layer raises. Backward goes all the way to x, also where training
    would stop at the first layer with parameters. A `DataParallel` runs in this process alone. Layers that the forward
    does not reach have no record.
    """
    if not isinstance(module, Layer):
        raise TypeError(f"inspect expected a module or layer, got {module!r}")
    function = _loss_function(loss)
    observation = Observation(module)
    copy = observation.copy
    y = copy(x)
    if guards.has_operand(y):
        raise TypeError(f"inspect expected arrays, got {x!r}")
    result, grad = _loss_and_grad(function, y, target, module, copy)
    copy.core().backward(grad)
    axes = BatchAxes(module, copy.cast_input(x))
    with numpy.errstate(all="ignore"):  # the norm of what is infinite is
        records = [record_of(watched, axes) for watched in observation]
    return Inspection(
        records,
        type(module).__name__,
        float(numpy.sum(result.value)),
        result._name,
        axes.ends(copy.cast_input(x), y, target, grad),
    )


def _loss_function(loss: Any) -> Any:
    if isinstance(loss, type) and issubclass(loss, LossFunction):
        return loss()
    if not callable(loss) or isinstance(loss, Layer | type):
        raise TypeError(f"inspect expected a loss function such as CrossEntropyLoss(), got {loss!r}")
    return loss


def _loss_and_grad(function: Any, y: Value, target: Any, module: Layer, copy: Layer) -> tuple[Loss, Value]:
    """The loss, and its gradient in the structure of y.

    A loss of several outputs finds them by identity among those of the module's last call, so y stands there meanwhile.
    """
    net, own = copy.core(), vars(module.core())
    names = ("_outputs", "_returned") if isinstance(y, tuple) else ()
    before: dict[str, Any] = {name: own[name] for name in names if name in own}
    own.update((name, getattr(net, name)) for name in names)
    try:
        result = function(y, target)
        if not isinstance(result, Loss):
            raise TypeError(f"inspect expected {function!r} to return a Loss, got {result!r}")
        if result.grad is None:
            raise ValueError(f"inspect: the terms of {result!r} have no common gradient; make each loss of the module")
        return result, placed(result, result.grad, net) if names else result.grad
    finally:
        own.update(before)
        for name in {*names} - {*before}:
            del own[name]
