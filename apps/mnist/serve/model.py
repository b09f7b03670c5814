"""A net that reads drawings, shows what goes on in it, and is taught by whoever draws.

What a click of "teach" changes is a `State`, and a state that was shown never changes again: a lesson trains a copy,
which takes its place when it is ready. So a reader is never met by half a lesson, and undo goes back to the same bits.
"""

import copy
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy

from apps.mnist.recipes import RECIPES, make_loss
from apps.mnist.serve.pad import scan_of
from apps.mnist.train import probabilities
from mtorch import SGD, BCELoss, Module, layers

DEPTH = 50  # so many lessons can be taken back
STEPS = 60  # a lesson ends when the net is sure, or after so many steps
SURE = 0.7
RATE = 0.05
STORED = 120  # digits that the net learnt before, in each batch of a lesson
COPIES, MORE = 8, 15  # of the digit that is taught, each moved a little; as many again after so many steps
REMEMBERED = 8  # earlier lessons that a lesson repeats

Digits = tuple[numpy.ndarray, numpy.ndarray]  # images (N, H, W) and labels (N,)


@dataclass(frozen=True)
class State:
    """A net in eval mode, the optimizer and the random numbers that a lesson goes on with, and the last lessons."""

    module: Module
    optimizer: Any
    rng: numpy.random.Generator
    lessons: tuple[tuple[numpy.ndarray, int], ...] = ()
    looking: threading.Lock = field(default_factory=threading.Lock)  # a forward with its backward

    def copied(self) -> "State":
        with self.looking:  # between a forward and its backward the net remembers one
            module, optimizer, rng = copy.deepcopy((self.module, self.optimizer, self.rng))
        return State(module, optimizer, rng, self.lessons)


class Model:
    """A model on the page.

    module: the trained net, which belongs to the model from now on.  settings: its model, loss and side.
    """

    def __init__(self, module: Module, settings: dict[str, Any], **about: Any):
        self.name, self.loss, self.side = settings["model"], settings["loss"], settings["side"]
        self.recipe, self.about = RECIPES[self.name], about
        module.eval()
        self.parameters = sum(p.value.size for p in module.parameters().values())
        optimizer = SGD(module, lr=RATE, clip_norm=1.0)
        self.states = (State(module, optimizer, numpy.random.default_rng(0)),)
        self.teaching = threading.Lock()

    @property
    def state(self) -> State:
        return self.states[-1]

    @property
    def depth(self) -> int:
        """How many lessons can be taken back."""
        return len(self.states) - 1

    def seen(self, image: numpy.ndarray) -> numpy.ndarray:
        """What this net sees of an image (28, 28): the image itself, or a scan (8, 8)."""
        return image if self.side == image.shape[-1] else scan_of(image)

    def inputs(self, images: numpy.ndarray) -> numpy.ndarray:
        return self.recipe.inputs(images)

    def answer(self, image: numpy.ndarray) -> numpy.ndarray:
        """How likely each digit is, (10,). Any number of threads may ask, also during a lesson."""
        return self._answer(self.state, image)

    def _answer(self, state: State, image: numpy.ndarray) -> numpy.ndarray:
        return probabilities(state.module, self.inputs(self.seen(image)[None]), self.loss)[0]

    # ------------------------------------------------------------------ inside

    def inside(self, image: numpy.ndarray) -> dict[str, Any]:
        """`seen`, the answer, `gradient`: which pixels speak for (above 0) and against the guess, and `layers`: what
        the first two layers with parameters make of the image.

        The gradient is that of the guess's score less the mean of the others', by the backward of each layer in turn.
        """
        state, seen = self.state, self.seen(image)
        net, x = state.module.core(), self.inputs(seen[None])
        answer = probabilities(state.module, x, self.loss)[0]
        chain = list(net)
        if isinstance(chain[-1], layers.Sigmoid):  # where it is flat nothing would be left of the gradient
            chain.pop()
        with state.looking:
            y, outputs = x, []
            for layer in chain:
                y = layer(y)
                outputs.append(y)
            gradient = numpy.full_like(y, -1 / (y.shape[-1] - 1))
            gradient[0, answer.argmax()] = 1
            for layer in reversed(chain):
                gradient = layer.backward(gradient)
            net.zero_grad()
        shown = [part for layer, y in zip(chain, outputs, strict=True) if (part := responses(layer, y, self.side))]
        return {
            "seen": seen,
            "answer": answer,
            "gradient": gradient.reshape(seen.shape),
            "layers": shown[: max(1, min(2, len(shown) - 1))],  # the last one gives the answer
        }

    # ------------------------------------------------------------------ lessons

    def teach(self, image: numpy.ndarray, digit: int, stored: Digits) -> dict[str, Any]:
        """A few steps of SGD on the image, moved about, among `stored` digits that it learnt before and past lessons.

        It ends as soon as the net is sure of this image and right about the last lessons.
        """
        with self.teaching:
            new = self.state.copied()
            others = (lesson for lesson in new.lessons if not numpy.array_equal(lesson[0], image))
            lessons = (*others, (image, digit))[-REMEMBERED:]
            before = float(self._answer(new, image)[digit])
            loss_func, steps = self._loss_of_lessons(new.module), 0
            with numpy.errstate(over="ignore", invalid="ignore"):
                while steps < STEPS and not self._knows(new, lessons, steps):
                    x, labels = self._batch(new.rng, lessons, stored, COPIES * (1 + steps // MORE))
                    new.module.train()
                    loss_func(new.module(x), labels).backward()
                    new.optimizer.step()
                    new.module.eval()
                    steps += 1
            after = float(self._answer(new, image)[digit])
            if not numpy.isfinite(after):
                raise ValueError("the lesson came to no finite numbers: nothing was changed")
            self.states = (*self.states[-DEPTH:], State(new.module, new.optimizer, new.rng, lessons))
            return {"steps": steps, "before": before, "after": after, "undo": self.depth}

    def _loss_of_lessons(self, module: Module) -> Any:
        """The loss that the net was trained with; cross-entropy of each output where a square loss would be flat."""
        if self.loss != "square":
            return make_loss(self.loss, module)
        cross_entropy, targets = BCELoss(module), numpy.eye(10, dtype=numpy.float32)
        return lambda prediction, labels: cross_entropy(prediction, targets[labels])

    def _knows(self, state: State, lessons: Any, steps: int) -> bool:
        """Whether it is sure of the last lesson, and right about those before unless they are too hard to reconcile."""
        if not self._answer(state, lessons[-1][0])[lessons[-1][1]] > SURE:
            return False
        past = lessons[:-1] if steps < STEPS // 2 else ()
        return all(self._answer(state, image)[digit] > 0.5 for image, digit in past)

    def _batch(self, rng: numpy.random.Generator, lessons: Any, stored: Digits, copies: int) -> Digits:
        picked = rng.integers(len(stored[1]), size=STORED)
        (taught, digit), past = lessons[-1], lessons[:-1]
        moved = [numpy.roll(taught, shift, (0, 1)) for shift in rng.integers(-1, 2, (copies - 1, 2))]
        images = [self.seen(each)[None] for each in (taught, *moved, *(image for image, _ in past))]
        labels = [digit] * copies + [label for _, label in past]
        return (
            self.inputs(numpy.concatenate([stored[0][picked], *images])),
            numpy.concatenate([stored[1][picked], labels]),
        )

    def undo(self) -> dict[str, Any]:
        """Goes back to before the last lesson. LookupError if there is none."""
        with self.teaching:
            if not self.depth:
                raise LookupError("there is no lesson to take back")
            self.states = self.states[:-1]
            return {"undo": self.depth}


def responses(layer: Any, y: numpy.ndarray, side: int) -> dict[str, Any] | None:
    """What a layer with parameters answered to one image, as pictures (count, H, W) with a text; None for others.

    A linear layer that sees the pixels shows its weights, each picture with the answer of its unit.
    """
    if not layer.parameters():
        return None
    name = type(layer).__name__
    y = y.squeeze()
    weight = getattr(layer, "weight", None)
    if isinstance(layer, layers.Linear) and weight.value.shape[1] == side * side and y.ndim == 1:
        pictures = weight.value.reshape(-1, side, side)
        return {"kind": "weights", "name": name, "pictures": pictures[:64], "answers": y[:64]}
    if y.ndim == 3:
        return {"kind": "maps", "name": name, "pictures": y[:64]}
    if y.ndim == 2:
        return {"kind": "rows", "name": name, "pictures": y[None]}
    return {"kind": "units", "name": name, "pictures": y.reshape(1, 1, -1)}
