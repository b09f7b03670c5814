"""The folder of a run's results: a checkpoint, its metrics and its history, each written completely or not at all."""

import csv
import io
import json
import os
import tempfile
from numbers import Real
from pathlib import Path
from typing import Any

from mtorch.checkpoint import load, read_notes, save, write_atomically
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer


class RunFolder:
    """`model.npz`, `metrics.json` and `history.csv` in one folder."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def model(self) -> Path:
        return self.path / "model.npz"

    def prepare(self) -> None:
        """Makes the folder. Raises an OSError that names it if it cannot be written to, before any work is done."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except FileExistsError:
            raise NotADirectoryError(f"{self.path} is a file; a run needs a folder to write to") from None
        except OSError as error:
            raise type(error)(f"cannot write to the folder {self.path}: {error.strerror}") from None

    def save(self, module: Layer, optimizer: Optimizer | None = None, **more: Any) -> None:
        """Writes the checkpoint."""
        save(self.model, module, optimizer, **more)

    def load(self, module: Layer, optimizer: Optimizer | None = None) -> dict[str, Any]:
        """Takes over the checkpoint; returns what was saved with it."""
        return load(self.model, module, optimizer)

    def resume(
        self, module: Layer, optimizer: Optimizer, settings: dict[str, Any], **more: type | tuple[str, ...]
    ) -> dict[str, Any]:
        """As load; a ValueError unless it was saved with these `settings`, and with `more` by name: a type, or the
        columns of a history, `resume(module, optimizer, settings, loader=dict, history=("epoch", "loss"))`.
        """
        notes, foreign = self.notes(), ValueError(f"{self.model} is not a checkpoint of this app")
        made = notes.get("settings")
        if not isinstance(made, dict) or made.keys() != settings.keys():
            raise foreign
        other = [f"{key.replace('_', '-')} {made[key]}" for key in settings if made[key] != settings[key]]
        if other:
            raise ValueError(f"{self.model} was made with {', '.join(other)}: ask for that, or name another --out")
        if not all(_fits(notes.get(name), kind) for name, kind in more.items()):
            raise foreign
        return self.load(module, optimizer)

    def notes(self) -> dict[str, Any]:
        """What was saved with the checkpoint, before there is a module to load it into."""
        return read_notes(self.model)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        self._write("metrics.json", json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        return json.loads((self.path / "metrics.json").read_text())

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """One row an epoch (or a logged step), its columns named in the first line."""
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self._write("history.csv", text.getvalue())

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda file: file.write(text.encode()))


def _fits(note: Any, kind: type | tuple[str, ...]) -> bool:
    """Whether it is of that type, or a list of rows that hold a number in each of these columns."""
    if isinstance(kind, type):
        return isinstance(note, kind)
    rows = note if isinstance(note, list) else [None]
    return all(
        isinstance(row, dict) and row.keys() == set(kind) and all(isinstance(entry, Real) for entry in row.values())
        for row in rows
    )
