"""Keywords that a constructor does not take."""

import inspect
from typing import Any, Self

# What PyTorch calls our arguments.
WORDS = {
    "in_features": "in_dim", "out_features": "out_dim", "input_size": "in_dim", "hidden_size": "out_dim",
    "dim": "axis", "keepdim": "keepdims", "device": "xp", "size_average": "reduction", "reduce": "reduction",
}  # fmt: skip


# What PyTorch calls our functions and classes.
NAMES = {
    "cat": "concat", "gather": "take", "manual_seed": "seed", "permute": "transpose", "no_grad": "Layer.predict",
    "nn": "layers", "clamp": "clip", "SmoothL1Loss": "HuberLoss", "pow": "power", "mul": "multiply", "div": "divide",
}  # fmt: skip


class Keywords:
    """The base of classes that answer an unknown keyword in their own name.

    `Linear(in_features=3)` raises a TypeError, "Linear has no in_features: it is in_dim". Constructors that take
    `**options` answer for themselves.
    """

    def __new__(cls, /, *args: Any, **options: Any) -> Self:
        code = getattr(cls.__init__, "__code__", None)
        if options and code is not None and not code.co_flags & inspect.CO_VARKEYWORDS:
            known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            unknown = [_answer(name, known) for name in options if name not in known]
            if unknown:
                raise TypeError(f"{cls.__name__} has {', '.join(unknown)}")
        return super().__new__(cls)


def _answer(name: str, known: tuple[str, ...]) -> str:
    word = WORDS.get(name)
    return f"no {name}: " + (f"it is {word}" if word in known else f"it takes {', '.join(known) or 'no keywords'}")
