"""The best row of a history, and the parameters that it was measured with."""

import math
from collections.abc import Mapping
from typing import Any

from mtorch.layer import Layer
from mtorch.training.log import Row


class Best:
    """The row whose `monitor` is smallest so far, of an accuracy largest; the first test column unless it is given."""

    def __init__(self, monitor: str | None, keeps: bool):
        self.monitor, self.keeps = monitor, keeps
        self.rows = 0  # how many the history had when the best one was its last
        self.state: dict[str, Any] | None = None  # the module's state dict then

    def column(self, row: Row) -> str:
        found = self.monitor or next((name for name in row if name.startswith("test_")), "train_loss")
        if found not in row:
            raise ValueError(f"Trainer: there is no column {found!r} to monitor, but {', '.join(row)}")
        return found

    def note(self, history: list[Row], module: Layer) -> bool:
        """Whether the last row is the best; then it keeps the module's state."""
        column = self.column(history[-1])
        sign = -1 if "accuracy" in column else 1
        best = sign * history[self.rows - 1][column] if self.rows else math.nan
        if best == best and not sign * history[-1][column] < best:
            return False
        self.rows, self.state = len(history), module.state_dict() if self.keeps else None
        return True

    def is_over(self, history: list[Row], patience: int | None) -> bool:
        """Whether that many rows came after the best one."""
        return patience is not None and len(history) - self.rows >= patience and self.rows > 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "state": self.state}

    def load_state_dict(self, state: Mapping[str, Any], history: list[Row], module: Layer) -> None:
        """Takes over `state_dict()`; a ValueError if it does not belong to that history and that module."""
        rows, kept = state.get("rows"), state.get("state")
        if isinstance(kept, dict):
            shapes = {name: value.shape for name, value in module.state_dict().items()}
            if {name: getattr(value, "shape", None) for name, value in kept.items()} != shapes:
                raise ValueError("the parameters of the best row are those of another module")
        if type(rows) is not int or not 0 <= rows <= len(history) or not isinstance(kept, dict | None):
            raise ValueError(f"Trainer: row {rows!r} is not the best of a history of {len(history)} rows")
        self.rows, self.state = rows, kept if self.keeps else None
