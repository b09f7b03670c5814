"""How often something is done: after so many seconds, steps or epochs."""

import math
from dataclasses import dataclass

from mtorch.checks import check_number, check_size


@dataclass(frozen=True)
class Every:
    """Every(seconds=30), Every(steps=200) or Every(epochs=5). Every(seconds=0) is after each step."""

    seconds: float | None = None
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("seconds", "steps", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise TypeError(f"Every expected one of seconds, steps and epochs, got {', '.join(given) or 'none'}")
        if self.seconds is not None:
            check_number("Every", "seconds", self.seconds, least=0)
        else:
            check_size("Every", given[0], getattr(self, given[0]))

    @classmethod
    def of(cls, value: "Every | float") -> "Every":
        """The value itself; a number counts seconds."""
        return value if isinstance(value, Every) else cls(seconds=value)

    def due(self, seconds: float, steps: int, epochs: int) -> bool:
        """Whether so much has gone by since the last time."""
        passed = ((seconds, self.seconds), (steps, self.steps), (epochs, self.epochs))
        return any(now >= (math.inf if wanted is None else wanted) for now, wanted in passed)
