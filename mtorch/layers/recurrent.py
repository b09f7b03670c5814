"""What RNN, GRU and LSTM share: parameters, layers, directions."""

import math
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value
from mtorch.checks import check_flag, check_number, check_size
from mtorch.initializers import as_generator, uniform
from mtorch.kernels import recurrence
from mtorch.layer import Layer
from mtorch.layers import sequences
from mtorch.math.philox import keep_mask, seed_and_counter
from mtorch.parameter import Parameter


def add_parameters(layer: Layer, rng: Any, gates: int, in_dim: int, out_dim: int, bias: bool, suffix: str = "") -> None:
    """weight_ih (G H, D), weight_hh (G H, H), bias_ih and bias_hh (G H,), uniform within +-1/sqrt(H) as in torch."""
    init = uniform(-1 / math.sqrt(out_dim), 1 / math.sqrt(out_dim))
    rows, bias = gates * out_dim, check_flag(type(layer).__name__, "bias", bias)
    for name, shape in (
        ("weight_ih", (rows, in_dim)), ("weight_hh", (rows, out_dim)), ("bias_ih", (rows,)), ("bias_hh", (rows,)),
    ):  # fmt: skip
        value = init(rng, shape, in_dim, out_dim) if bias or len(shape) == 2 else None
        parameter = None if value is None else Parameter(layer.xp.asarray(value, dtype=layer.dtype))
        setattr(layer, name + suffix, parameter)


class RecurrentLayer(Layer):
    """Layers and directions of one cell: layer l + 1 reads what layer l wrote, a second direction runs from the end.

    A subclass names the kernel of its cell, its gates, the arrays in its state (h; h and c) and the kernel's options.
    """

    takes = ("floats", "floats", "ids")
    kernel: ModuleType
    gates: int
    state_arrays = 1
    options: tuple = ()

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
        return_state: bool = False,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name, rng = type(self).__name__, as_generator(rng, type(self).__name__)
        self.in_dim, self.out_dim = check_size(name, "in_dim", in_dim), check_size(name, "out_dim", out_dim)
        self.num_layers = check_size(name, "num_layers", num_layers)
        self.dropout = check_number(name, "dropout", dropout, least=0, most=1)
        flags = {"batch_first": batch_first, "bidirectional": bidirectional, "return_state": return_state}
        vars(self).update({flag: check_flag(name, flag, value) for flag, value in flags.items()})
        self.parts = 2 if return_state else None
        self.directions, self.multithreaded = 2 if bidirectional else 1, out_dim >= recurrence.WIDE
        self.final_state: Value = None
        ends = ("", "_reverse")[: self.directions]
        self.suffixes = [f"_l{layer}{end}" for layer in range(num_layers) for end in ends]
        for i, suffix in enumerate(self.suffixes):
            size = in_dim if i < self.directions else out_dim * self.directions
            add_parameters(self, rng, self.gates, size, out_dim, bias, suffix)
        self.seed, self.counter = int(rng.integers(2**63)) if self.dropout else 0, 0

    def _weights(self, cell: int) -> list[Parameter | None]:
        """The parameters of cell number layer * directions + direction."""
        suffix = self.suffixes[cell]
        return [getattr(self, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def _cells(self) -> list[range]:
        """The numbers of the cells, layer by layer."""
        return [range(i, i + self.directions) for i in range(0, len(self.suffixes), self.directions)]

    def _stacked(self, state: Value, batch: int) -> tuple[sequences.Parts, bool]:
        return sequences.stacked(self, state, batch, self.state_arrays, len(self.suffixes))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.in_dim)
        return {} if self.return_state else {-1: self.directions * self.out_dim}

    def cast_input(self, x: Value) -> Value:
        if not isinstance(x, tuple):
            return super().cast_input(x)
        state, x_only, lengths = sequences.split(self, x)
        admitted = super().cast_input((state, x_only))
        if lengths is not None:
            lengths = sequences.as_lengths(self, lengths, admitted[1])
        return (*admitted, lengths)[: len(x)]

    def forward(self, x: Value) -> Value:
        xp = self.xp
        state, inner, lengths = sequences.split(self, x)
        inner = sequences.time_major(self, inner)
        steps, batch, _ = inner.shape
        first, flat = self._stacked(state, batch)
        padding = None
        if lengths is not None:
            sequences.check_lengths(self, lengths, steps, batch)
            padding = recurrence.padding_mask(xp, lengths, steps)
            inner = xp.where(padding, 0, inner)  # whatever stands in the padding, it meets no weight
        memories, masks, ends = [], [], []
        for cells in self._cells():
            if memories:
                masks.append(self._mask(inner.shape, len(masks)))
                inner = self._thinned(inner, masks[-1])
            outputs = []
            for i in cells:
                values = tuple(None if p is None else p.value for p in self._weights(i))
                start = tuple(None if part is None else part[i] for part in first)
                options = padding, i > cells[0], *self.options
                y, end, memory = recurrence.forward(self.kernel, xp, inner, start, values, *options)
                outputs.append(y)
                ends.append(end)
                memories.append(memory)
            inner = outputs[0] if len(outputs) == 1 else xp.concatenate(outputs, axis=2)
        self.counter += len(masks) if masks and masks[0] is not None else 0
        self.final_state = sequences.formed([xp.stack(parts) for parts in zip(*ends, strict=True)], flat)
        self.remember(memories, masks, len(x) if isinstance(x, tuple) else 1, state is not None, flat)
        inner = inner.transpose(1, 0, 2) if self.batch_first else inner
        return (arrays.map_value(xp.copy, self.final_state), inner) if self.return_state else inner

    def backward(self, output_grad: Value) -> Value:
        return self._through_time(output_grad, True)

    def backward_parameters(self, output_grad: Value) -> None:
        self._through_time(output_grad, False)

    def _through_time(self, output_grad: Value, input_grad: bool) -> Value:
        xp = self.xp
        memories, masks, parts, state_given, flat = self.recall()
        state_grad, g = output_grad if self.return_state else (None, output_grad)
        g = g.transpose(1, 0, 2) if self.batch_first else g
        last, _ = self._stacked(state_grad, g.shape[1])
        starts = [()] * len(memories)
        for cells in reversed(self._cells()):
            dx = None
            for i in cells:
                weights = self._weights(i)
                values = tuple(None if p is None else p.value for p in weights)
                end = tuple(None if part is None else part[i] for part in last)
                own = g[:, :, (i - cells[0]) * self.out_dim : (i - cells[0] + 1) * self.out_dim]
                wanted = input_grad or i >= self.directions
                d, starts[i], grads = recurrence.backward(self.kernel, xp, memories[i], values, own, end, wanted)
                dx = d if dx is None else dx + d
                for parameter, *contributions in zip(weights, *grads, strict=True):
                    for contribution in contributions if parameter is not None else ():
                        parameter.accumulate(contribution)
            g = self._thinned(dx, masks.pop()) if masks else dx
        if not input_grad:
            return None
        dx = g.transpose(1, 0, 2) if self.batch_first else g
        dstate = sequences.formed([xp.stack(each) for each in zip(*starts, strict=True)], flat) if state_given else None
        return dx if parts == 1 else (dstate, dx, None)[:parts]

    # ------------------------------------------------------------------ dropout between layers

    def _mask(self, shape: tuple[int, ...], number: int) -> Array | None:
        if not (self.training and self.dropout):
            return None
        return keep_mask(self.xp, shape, self.dropout, self.seed, self.counter + number)

    def _thinned(self, x: Array, mask: Array | None) -> Array:
        return x if mask is None else x * mask * (1 / (1 - self.dropout) if self.dropout < 1 else 0.0)

    def random_state(self) -> dict[str, int]:
        return {"seed": self.seed, "counter": self.counter} if self.dropout else {}

    def set_random_state(self, state: dict[str, int]) -> None:
        if self.dropout:
            self.seed, self.counter = seed_and_counter(state)

    # ------------------------------------------------------------------ the rest of the protocol

    def infer(self, x: Value) -> Value:
        before = self.final_state
        try:
            return super().infer(x)
        finally:
            self.final_state = before

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        super()._adopt(xp, dtype)
        self.final_state = None

    def details(self) -> str:
        text = f"{self.in_dim} -> {self.out_dim}"
        options = {"num_layers": (self.num_layers, 1), "bias": (self.bias_ih_l0 is not None, True)}
        for name, plain in (("batch_first", False), ("dropout", 0), ("bidirectional", False), ("return_state", False)):
            options[name] = getattr(self, name), plain
        return text + "".join(f", {name}={value}" for name, (value, plain) in options.items() if value != plain)
