"""What RNN, GRU and LSTM share: a cell, the cell over time, and layers and directions of it.

The equations of a cell are two functions in its own file, which the cell and the layer over time both call:

    step(xp, a, state, weight_hh, bias_hh) -> the next state, what step_backward needs
    step_backward(xp, memory, state_grad, weight_hh) -> (da, ds) or (dz,), the gradient of the state

with a = W_ih x + b_ih (N, G H) for G gates, s = W_hh h + b_hh, z = a + s, and a state that is a tuple of arrays (N, H),
h first.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value, shape_value
from mtorch.checks import check_flag, check_memory, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.initializers import as_generator, uniform
from mtorch.layer import Layer
from mtorch.layers import sequences
from mtorch.math.philox import keep_mask, seed_and_counter
from mtorch.parameter import Parameter
from mtorch.states import Recurrence, refuse_state

State = tuple[Array, ...]
Weights = tuple[Array, ...]  # weight_ih, weight_hh, bias_ih, bias_hh; without biases None stands for them
Wanted = tuple[bool, ...]  # of which of these the gradient is wanted
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# ---------------------------------------------------------------------- one layer in one direction


def over_time(
    step: Callable, xp: ModuleType, x: Array, state: State, weights: Weights, padding: Array | None, reverse: bool
) -> tuple[Array, State, Any]:
    """h of every step (T, N, H), the last state, and what `back_over_time` needs.

    x is (T, N, D); padding is (T, N, 1) or None, True where a step lies beyond the end of its sequence: there the state
    stays as it is and the output is 0. With reverse the steps run from the last to the first.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    steps, batch, _ = x.shape
    a = affine(rows(x), weight_ih, bias_ih).reshape(steps, batch, len(weight_ih))  # of all steps in one product
    order = range(steps)[::-1] if reverse else range(steps)
    h_before, h_after, memories = [state[0]] * steps, [state[0]] * steps, [None] * steps
    for t in order:
        h_before[t] = state[0]
        new, memories[t] = step(xp, a[t], state, weight_hh, bias_hh)
        state = new if padding is None else keep(xp, padding[t], state, new)
        h_after[t] = state[0]
    y = xp.stack(h_after)
    y = y if padding is None else xp.where(padding, 0, y)
    return y, state, (x, h_before, memories, padding, order)


def back_over_time(
    step_backward: Callable,
    xp: ModuleType,
    memory: Any,
    weights: Weights,
    y_grad: Array,
    state_grad: State,
    input_grad: bool,
    wanted: Wanted,
) -> tuple[Array | None, State, tuple]:
    """The gradients of x (None unless wanted), of the first state, and of the weights that are wanted."""
    x, h_before, memories, padding, order = memory
    dy = y_grad if padding is None else xp.where(padding, 0, y_grad)
    dz: list[Any] = [None] * len(x)
    for t in reversed(order):
        state_grad = (state_grad[0] + dy[t], *state_grad[1:])  # h_t went into y_t and into the step after it
        dz[t], before = step_backward(xp, memories[t], state_grad, weights[1])
        if padding is not None:
            dz[t] = tuple(xp.where(padding[t], 0, d) for d in dz[t])
            before = keep(xp, padding[t], state_grad, before)
        state_grad = before
    da, ds = both(rows(xp.stack(each)) for each in zip(*dz, strict=True))
    grads = weight_grads(xp, rows(x), rows(xp.stack(h_before)), da, ds, wanted)
    return da.dot(weights[0]).reshape(x.shape) if input_grad else None, state_grad, grads


def keep(xp: ModuleType, padding: Array, old: State, new: State) -> State:
    """`old` for the sequences that have ended, `new` for the others."""
    return tuple(xp.where(padding, before, after) for before, after in zip(old, new, strict=True))


def both(dz: Iterable[Array]) -> tuple[Array, Array]:
    """(da, ds) from (da, ds), or from (dz,) where they are the same."""
    first, *second = dz
    return first, *(second or [first])


def weight_grads(xp: ModuleType, x: Array, h: Array, da: Array, ds: Array, wanted: Wanted) -> tuple[Array | None, ...]:
    """The gradients of the weights from rows of x, h and the gradients of a = W_ih x + b_ih, s = W_hh h + b_hh."""
    ones = arrays.ones(xp, len(da), da.dtype, arrays.device_of(da))  # ones.dot(d) is the sum of the rows of d
    factors = (da.T, x), (ds.T, h), (ones, da), (ones, ds)
    return tuple(a.dot(b) if each else None for each, (a, b) in zip(wanted, factors, strict=True))


def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """weight x + bias for every row of x (N, D)."""
    y = x.dot(weight.T)
    return y if bias is None else y + bias


def gates(xp: ModuleType, z: Array, count: int) -> Array:
    """(N, count H) as (count, N, H)."""
    return xp.ascontiguousarray(z.reshape(len(z), count, z.shape[1] // count).swapaxes(0, 1))


def rows(x: Array) -> Array:
    """(T, N, D) as (T N, D)."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


# ---------------------------------------------------------------------- parameters


def add_parameters(layer: Layer, rng: Any, gates: int, in_dim: int, out_dim: int, bias: bool, suffix: str = "") -> None:
    """weight_ih (G H, D), weight_hh (G H, H), bias_ih and bias_hh (G H,), uniform within +-1/sqrt(H) as in torch."""
    init = uniform(-1 / math.sqrt(out_dim), 1 / math.sqrt(out_dim))
    size, bias = gates * out_dim, check_flag(type(layer).__name__, "bias", bias)
    for name, shape in zip(NAMES, ((size, in_dim), (size, out_dim), (size,), (size,)), strict=True):
        value = init(rng, shape, in_dim, out_dim) if bias or len(shape) == 2 else None
        parameter = None if value is None else Parameter(layer.xp.asarray(value, dtype=layer.dtype))
        setattr(layer, name + suffix, parameter)


def parameters_of(layer: Layer, suffix: str = "") -> tuple[list[Parameter | None], Any]:
    """What `add_parameters` added, and the values."""
    parameters = [getattr(layer, name + suffix) for name in NAMES]
    return parameters, tuple(None if parameter is None else parameter.value for parameter in parameters)


def wanted_of(parameters: list[Parameter | None]) -> Wanted:
    """Which of them are there and trainable."""
    return tuple(parameter is not None and parameter.trainable for parameter in parameters)


def accumulate(parameters: list[Parameter | None], grads: tuple[Array | None, ...]) -> None:
    """Adds to every parameter its gradient."""
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter is not None and grad is not None:
            parameter.accumulate(grad)


# ---------------------------------------------------------------------- the cell


class Cell(Layer):
    """(state, x) -> (state, y): one step of a recurrence. `Recurrent(cell)` runs it over time.

    Parameters weight_ih (G H, D), weight_hh (G H, H), bias_ih and bias_hh (G H,), as torch names and draws them.
    """

    gates: int
    state_arrays = 1
    parts = 2
    bias_ih: Parameter | None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        bias: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.in_dim = in_dim = check_size(name, "in_dim", in_dim)
        self.out_dim = out_dim = check_size(name, "out_dim", out_dim)
        check_memory(name, self.gates * out_dim * (in_dim + out_dim), in_dim=in_dim, out_dim=out_dim)
        add_parameters(self, as_generator(rng, name), self.gates, self.in_dim, self.out_dim, bias)

    def initial_state(self, n: int) -> Value:
        """Zeros for n sequences: h, or (h, c)."""
        n = check_size(type(self).__name__, "n", n, least=0)
        check_memory(type(self).__name__, n * self.out_dim, n=n, out_dim=self.out_dim)
        return sequences.formed([self.xp.zeros((n, self.out_dim), self.dtype) for _ in range(self.state_arrays)])

    def one_step(self, value: Value, step: Callable) -> Value:
        """The forward of a cell with that step."""
        state, x = self._checked(value)
        state = state if isinstance(state, tuple) else (state,)
        weight_ih, weight_hh, bias_ih, bias_hh = parameters_of(self)[1]
        new, memory = step(self.xp, affine(x, weight_ih, bias_ih), state, weight_hh, bias_hh)
        self.remember(x, state[0], memory)
        return sequences.formed(new), new[0].copy()

    def one_step_back(self, output_grad: Value, step_backward: Callable) -> Value:
        """The backward of a cell: h' goes out twice, as state and as output, so its gradients add up."""
        dstate, dy = self.cast_grad(output_grad)
        x, h, memory = self.recall()
        dh, *others = dstate if isinstance(dstate, tuple) else (dstate,)
        parameters, weights = parameters_of(self)
        dz, before = step_backward(self.xp, memory, (dh + dy, *others), weights[1])
        da, ds = both(dz)
        accumulate(parameters, weight_grads(self.xp, x, h, da, ds, wanted_of(parameters)))
        return sequences.formed(before), da.dot(weights[0])

    def _checked(self, value: Value) -> tuple[Value, Array]:
        """(state, x); raises unless the shapes fit."""
        x = value[1] if isinstance(value, tuple) and len(value) == 2 else None
        n = x.shape[0] if isinstance(x, self.xp.ndarray) and x.ndim == 2 else 0
        state = (n, self.out_dim) if self.state_arrays == 1 else ((n, self.out_dim),) * self.state_arrays
        if shape_value(value) != (state, (n, self.in_dim)):
            s = f"(N, {self.out_dim})"
            s = s if self.state_arrays == 1 else f"({s}, {s})"
            got = shape_value(value)
            raise ShapeMismatchError(self, f"expected (state, x) of shapes ({s}, (N, {self.in_dim})), got {got}")
        return value

    def details(self) -> str:
        return f"{self.in_dim} -> {self.out_dim}" + ("" if self.bias_ih is not None else ", bias=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        for bias in (True, False):
            state = (3, 4) if cls.state_arrays == 1 else ((3, 4), (3, 4))
            yield cls(2, 4, bias=bias, xp=xp, dtype=dtype, rng=rng), (state, (3, 2))


# ---------------------------------------------------------------------- layers and directions


class RecurrentLayer(Recurrence, Layer):
    """Layers and directions of one cell: layer l + 1 reads what layer l wrote, a second direction runs from the end.

    A subclass names the gates of its cell and the arrays in its state (h; h and c), and runs its steps.
    """

    gates: int
    state_arrays = 1
    bias_ih_l0: Parameter | None
    takes = ("floats", "floats", "ids")

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
        self.in_dim = in_dim = check_size(name, "in_dim", in_dim)
        self.out_dim = out_dim = check_size(name, "out_dim", out_dim)
        self.num_layers = num_layers = check_size(name, "num_layers", num_layers)
        given = {"in_dim": in_dim, "out_dim": out_dim, "num_layers": num_layers}
        check_memory(name, self.gates * out_dim * (in_dim + out_dim) * num_layers, **given)
        self.dropout = check_number(name, "dropout", dropout, least=0, most=1)
        self.batch_first = check_flag(name, "batch_first", batch_first)
        self.bidirectional = check_flag(name, "bidirectional", bidirectional)
        self.return_state = check_flag(name, "return_state", return_state)
        self.parts = 2 if return_state else None
        self.directions = 2 if bidirectional else 1
        self.final_state = None
        ends = ("", "_reverse")[: self.directions]
        self.suffixes = [f"_l{layer}{end}" for layer in range(num_layers) for end in ends]
        for i, suffix in enumerate(self.suffixes):
            size = in_dim if i < self.directions else out_dim * self.directions
            add_parameters(self, rng, self.gates, size, out_dim, bias, suffix)
        self.seed, self.counter = int(rng.integers(2**63)) if self.dropout else 0, 0

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.in_dim)
        return {} if self.return_state else {-1: self.directions * self.out_dim}

    def cast_input(self, x: Value) -> Value:
        if not isinstance(x, tuple):
            return super().cast_input(x)
        state, x_only, lengths = sequences.split(self, x)
        cast = super().cast_input((state, x_only))
        if lengths is not None:
            lengths = sequences.as_lengths(self, lengths, cast[1])
        return (*cast, lengths)[: len(x)]

    def through_layers(self, x: Value, over_time: Callable) -> tuple[Value, Any]:
        """What forward returns and remembers. `over_time(xp, x, state, weights, padding, reverse)` runs one layer in
        one direction.
        """
        xp = self.xp
        state, inner, lengths = sequences.split(self, x)
        if self.bidirectional:
            refuse_state(self, "one direction reads the sequence from its end")
        state = self.begin_with(state)
        inner = sequences.time_major(self, inner)
        steps, batch, _ = inner.shape
        first, flat = sequences.stacked(self, state, batch)
        padding = None
        if lengths is not None:
            sequences.check_lengths(self, lengths, steps, batch)
            padding = (xp.arange(steps)[:, None] >= lengths)[:, :, None]
            inner = xp.where(padding, 0, inner)  # whatever stands in the padding, no weight is multiplied with it
        memories: list[Any] = []
        masks: list[Array | None] = []
        ends: list[State] = []
        for cells in self._cells():
            if memories:
                masks.append(self._mask(inner.shape, len(masks)))
                inner = self._dropped_out(inner, masks[-1])
            outputs = []
            for i in cells:
                start, weights = tuple(part[i] for part in first), parameters_of(self, self.suffixes[i])[1]
                y, end, memory = over_time(xp, inner, start, weights, padding, i > cells[0])
                outputs.append(y)
                ends.append(end)
                memories.append(memory)
            inner = outputs[0] if len(outputs) == 1 else xp.concatenate(outputs, axis=2)
        self.counter += len(masks) if masks and masks[0] is not None else 0
        last = sequences.formed([xp.stack(parts) for parts in zip(*ends, strict=True)], flat)
        self.end_with(last)
        inner = inner.transpose(1, 0, 2) if self.batch_first else inner
        y = (arrays.map_value(xp.copy, last), inner) if self.return_state else inner
        return y, (memories, masks, len(x) if isinstance(x, tuple) else 1, state is not None, flat)

    def back_through_layers(self, memory: Any, output_grad: Value, back_over_time: Callable, input_grad: bool) -> Value:
        """What backward returns; `back_over_time(xp, memory, weights, y_grad, state_grad, input_grad, wanted)`
        answers the `over_time` of forward. Without `input_grad` it ends at the first layer that has anything trainable.
        """
        xp = self.xp
        memories, masks, parts, state_given, flat = memory
        wanted = [wanted_of(parameters_of(self, suffix)[0]) for suffix in self.suffixes]
        if not (input_grad or any(map(any, wanted))):
            return None
        state_grad, g = output_grad if self.return_state else (None, output_grad)
        g = g.transpose(1, 0, 2) if self.batch_first else g
        last, _ = sequences.stacked(self, state_grad, g.shape[1])
        starts: list[State] = [()] * len(memories)
        for cells in reversed(self._cells()):
            dx, below = None, input_grad or any(map(any, wanted[: cells[0]]))
            for i in cells:
                if not (below or any(wanted[i])):
                    continue
                parameters, weights = parameters_of(self, self.suffixes[i])
                dy = g[:, :, (i - cells[0]) * self.out_dim : (i - cells[0] + 1) * self.out_dim]
                dlast = tuple(part[i] for part in last)
                d, starts[i], grads = back_over_time(xp, memories[i], weights, dy, dlast, below, wanted[i])
                accumulate(parameters, grads)
                dx = d if dx is None else dx + d
            if not below:
                return None
            g = self._dropped_out(dx, masks[cells[0] // self.directions - 1]) if cells[0] else dx
        dx = g.transpose(1, 0, 2) if self.batch_first else g
        dstate = sequences.formed([xp.stack(each) for each in zip(*starts, strict=True)], flat) if state_given else None
        return dx if parts == 1 else (dstate, dx, None)[:parts]

    def _cells(self) -> list[range]:
        """The numbers layer * directions + direction, layer by layer."""
        return [range(i, i + self.directions) for i in range(0, len(self.suffixes), self.directions)]

    # ------------------------------------------------------------------ dropout between layers

    def _mask(self, shape: tuple[int, ...], number: int) -> Array | None:
        if not (self.training and self.dropout):
            return None
        return keep_mask(self.xp, shape, self.dropout, self.seed, self.counter + number)

    def _dropped_out(self, x: Array, mask: Array | None) -> Array:
        return x if mask is None else x * mask * (1 / (1 - self.dropout) if self.dropout < 1 else 0.0)

    def random_state(self) -> dict[str, int]:
        return {"seed": self.seed, "counter": self.counter} if self.dropout else {}

    def set_random_state(self, state: dict[str, int]) -> None:
        if self.dropout:
            self.seed, self.counter = seed_and_counter(state)

    # ------------------------------------------------------------------ the rest of the protocol

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        super()._adopt(xp, dtype)
        self.final_state = None

    def details(self) -> str:
        text = f"{self.in_dim} -> {self.out_dim}"
        options = {"num_layers": (self.num_layers, 1), "bias": (self.bias_ih_l0 is not None, True)}
        for name, plain in (("batch_first", False), ("dropout", 0), ("bidirectional", False), ("return_state", False)):
            options[name] = getattr(self, name), plain
        return text + "".join(f", {name}={value}" for name, (value, plain) in options.items() if value != plain)
