"""The layer protocol: every layer carries its own derivative.

A **value** is an array or a tuple of values. The gradient of a value has the structure, the shapes and the dtype of
the value; `None` stands for a gradient that does not exist (integers, masks) or was not asked for. A list is array
data, a tuple is structure.

| verb | contract |
|---|---|
| `layer(x)` | the call for users: checks that `x` lives on the layer's array module, casts real and integer data once to the layer's dtype (ids, labels, masks and lengths keep their kind), raises TypeError if `x` is not numeric; then `forward`. `layer(a, b)` is `layer((a, b))`. Given an expression or a parameter it returns an expression. |
| `forward(x)` | the computation; containers call this. Returns a value and *remembers* what backward will need. Never writes into `x`. When a call raises, nothing is remembered anywhere below and buffers are unchanged. |
| `backward(output_grad)` | compares structure and shapes with what forward returned (a wrong one is an error that changes nothing), adds the exact gradient of each trainable parameter and returns the gradient of what forward took. Depends only on what forward remembered, never on a mode. Each forward is answered by one backward. Never writes into `output_grad`. |
| `backward_parameters(output_grad)` | as backward, but the input gradient is not wanted: returns `None`. Without a trainable parameter below it computes nothing. |
| `step(lr)` | adds `-lr * direction` to every trainable parameter, where the direction is the one that an optimizer set, else the gradient; then gradients count as zero. |
| `zero_grad()` | discards gradients; the parameters stay as they are. |
| `train()` / `eval()` | set the mode of the whole subtree; forward may read `self.training`. |
| `predict(x)` | an eval-mode call that remembers nothing and changes nothing: modes and a pending backward stay as they were, and any number of threads may predict with one net, also beside one that trains it. `y, state = layer.predict(x, state=state)` goes on where the last call ended. |
| `to(xp=None, dtype=None)` | a converted copy. Layers can be deep-copied and pickled. |
| `parameters()` | `{dotted name: Parameter}`, a shared one once. |
| `state_dict()` / `load_state_dict(d)` | dotted names to host copies of parameters and buffers, a shared one under every path; loading is strict and changes nothing when it fails. |

**To write a layer**, write `forward` and `backward`. In forward call `self.remember(a, b)` with what backward needs.
Begin backward with `g = self.cast_grad(output_grad)`, which checks the gradient, and get back what was remembered,
once, with `a, b = self.recall()`. Hold parameters as attributes (`self.weight = Parameter(...)`) and add to their
gradients with `self.weight.accumulate(...)`. Layers may be attributes too: call them in forward, and their `backward`
in reverse order in backward. Arrays that forward or backward return belong to the caller; values are remembered by
reference, so nobody may write into one between a forward and its backward.

**Axis legend**: N batch, T time, D features in, H hidden, C channels, K classes, V vocabulary; `...` any leading axes.
"""  # noqa: E501

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import guards
from mtorch.arrays import Value
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.guards import EMPTY, Pass, in_predict, passes
from mtorch.operators import Operand
from mtorch.parameter import Buffer, Parameter
from mtorch.states import predicted_on
from mtorch.tree import Tree, home_of


class Layer(Tree):
    """A function of one value with its derivative. See the module's docstring for the protocol.

    xp: the array module (numpy, cupy). dtype: the floating type of parameters and results.
    """

    takes: Any = "floats"  # "ids": integers; "any": integers and masks keep their kind; a tuple of these for a tuple
    array_only = False  # True for layers that take one array: a tuple is a ShapeMismatchError
    moves_data = False  # True for layers that only rearrange entries: the layer after them decides how x is cast
    label = ""  # what a Sequential calls the layer, instead of giving it a number
    buffers_below: tuple[Buffer, ...] = ()
    has_tape = False  # True for containers, whose tape restores buffers after an error
    _outputs: Any = None  # the `Outputs` of the last call that returned a tuple
    parts: int | None = None  # how many entries the tuple has that forward returns; None for an array, or if unknown

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32"):
        self.xp, self.dtype = home_of(type(self).__name__, xp, dtype)
        self._training = True
        self._memory: Any = EMPTY
        self._returned: Any = None  # the shapes and dtypes that backward compares its gradient with

    # ------------------------------------------------------------------ the verbs

    def __call__(self, x: Value, *more: Value) -> Value:
        if more:
            x = (x, *more)
        if not self._fits(x):
            if guards.has_operand(x):
                return Operand.express(self, x)
            x = self.cast_input(x)
        return guards.checked_forward(self, x)

    def forward(self, x: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, output_grad: Value) -> Value:
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def backward_parameters(self, output_grad: Value) -> None:
        if self.trains():
            self.backward(output_grad)
            return
        self.cast_grad(output_grad)
        if self.has_tape or all(layer._memory is EMPTY for _, layer in self.walk()):
            self.recall()  # drops the tape of a container; elsewhere it says that there was no forward
        else:
            self.forget()

    def step(self, lr: float) -> None:
        for item in vars(self).values():
            if isinstance(item, Parameter) or isinstance(item, Layer):
                item.step(lr)

    def zero_grad(self) -> None:
        for parameter in self.parameters().values():
            parameter.zero_grad()

    def predict(self, x: Value, *more: Value, state: Any = EMPTY) -> Any:
        """y, or (y, state) with `state=None` or a state: a call with that state goes on where this one ended.

        A state is a dict from the dotted names of the layers that have one (recurrent ones, causal attention) to what
        each goes on with, as h or (h, c). A net that is one such layer has its state alone. See docs/sampling.md.
        """
        if more:
            x = (x, *more)
        if not self._fits(x):
            x = self.cast_input(x)
        return guards.predicted(self, x, Pass()) if state is EMPTY else predicted_on(self, x, state)

    def cast_input(self, x: Value) -> Value:
        """What a call takes, as arrays on this layer's module: floats in this layer's dtype, and what `takes` says."""
        if x is None:
            raise TypeError(f"{self!r} expected an array, got None")
        return guards.cast(self, x, self.takes)

    def _fits(self, x: Any) -> bool:
        """Whether x is an array as this layer computes with, so that there is nothing to cast."""
        try:
            return x.__class__ is self.xp.ndarray and x.dtype is self.dtype
        except AttributeError:
            if "_memory" not in vars(self):
                text = f"{type(self).__name__}.__init__ must begin with super().__init__()"
                raise AttributeError(text, obj=self) from None
            raise

    # ------------------------------------------------------------------ memory: one slot, which `recall` empties

    def remember(self, value: Any = (), *more: Any) -> None:
        """Keeps what backward will need, by reference; replaces what was there. Within predict it keeps nothing."""
        if not (passes and in_predict()):
            self._memory = (value, *more) if more else value

    def recall(self) -> Any:
        """What `remember` kept: the value itself when it was one, the tuple when there were several."""
        memory = self._memory
        if memory is EMPTY:
            text = "call forward before each backward, and add the losses of one forward: (a + b).backward()"
            raise BackwardError(f"{self!r} has nothing to go back to: {text}")
        self._memory = EMPTY
        return memory

    def returns(self, y: Value) -> Value:
        """Notes the shapes and dtypes that `cast_grad` compares with; returns y."""
        if not (passes and in_predict()):
            self._returned = (y.shape, y.dtype) if y.__class__ is self.xp.ndarray else guards.signature(y)
        return y

    def cast_grad(self, output_grad: Value) -> Value:
        """The output gradient, compared with what forward returned and cast to its dtype."""
        returned = self._returned
        if returned is not None:
            if (
                output_grad.__class__ is not self.xp.ndarray or returned.__class__ is list
                or output_grad.shape != returned[0] or output_grad.dtype is not returned[1]
            ):  # fmt: skip
                output_grad = guards.checked_grad(self, output_grad, returned)
            self._returned = None
        return output_grad

    def forget(self) -> None:
        """Drops every memory in the subtree."""
        for _, layer in self.walk():
            layer._memory, layer._returned = EMPTY, None

    def discard(self) -> None:
        """Drops every memory and gradient in the subtree."""
        self.forget()
        self.zero_grad()

    # ------------------------------------------------------------------ the mode of a pass

    @property
    def training(self) -> bool:
        """The mode of this layer; False within predict."""
        return self._training and not in_predict()

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    @property
    def predicting(self) -> bool:
        """Whether this runs within predict, where a layer keeps nothing."""
        return in_predict()

    # ------------------------------------------------------------------ construction

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        """The known sizes of the output by axis, given those of the input; `{}` when none is known.

        `Sequential` calls it at construction, so that layers that do not fit are found before any data comes.
        """
        return {}

    def check_dim(self, known: dict[int, int], axis: int, size: int | None) -> None:
        """Raises ShapeMismatchError when the size of that axis is known before any data and is not `size`."""
        if size is not None and known.get(axis, size) != size:
            raise ShapeMismatchError(self, f"expected {size} entries on axis {axis}, got {known[axis]}")

    def core(self) -> "Layer":
        """The layer that a container should hold for this one: itself, or a `Module`'s net."""
        return self

    def details(self) -> str:
        """The text between the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.details()})"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple["Layer", Any]]:
        """(layer, inputs) pairs that cover the options of the class; every shared test runs over them.

        An input is a shape, a tuple of shapes, or a function of (xp, rng) that returns the value itself.
        """
        raise NotImplementedError(f"{cls.__name__} needs examples() for its tests")
