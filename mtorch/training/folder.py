"""The folder of a run's results: a checkpoint, its metrics and its history, each written completely or not at all."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy

from mtorch.checkpoint import load, read_notes, save, write_atomically
from mtorch.checks import plain
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer

NOTHING = "nothing is kept yet"


class RunFolder:
    """`model.npz`, `metrics.json` and `history.csv` in one folder.

    kept: what this run has saved there, in words.  writes: False where another process of the same run does.
    """

    def __init__(self, path: str | os.PathLike):
        self.path, self.kept, self.writes = Path(path), NOTHING, True

    @property
    def model(self) -> Path:
        return self.path / "model.npz"

    def prepare(self) -> None:
        """Makes the folder. Raises an OSError that names it if it cannot be written to, before any work is done."""
        if not self.writes:
            return
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
        if self.writes:
            save(self.model, module, optimizer, **more)

    def load(self, module: Layer, optimizer: Optimizer | None = None) -> dict[str, Any]:
        """Takes over the checkpoint; returns what was saved with it."""
        return load(self.model, module, optimizer)

    def resume(
        self, module: Layer, optimizer: Optimizer, settings: dict[str, Any], **more: type | Sequence[str]
    ) -> dict[str, Any]:
        """As load, after `check`."""
        self.check(settings, **more)
        return self.load(module, optimizer)

    def check(self, settings: Mapping[str, Any], **more: type | Sequence[str]) -> dict[str, Any]:
        """What was saved with the checkpoint; a ValueError unless these `settings` were, and `more` by name: a type, or
        the columns of a history, `check(settings, loader=dict, history=("epoch", "loss"))`.
        """
        notes, foreign = self.notes(), ValueError(f"{self.model} is not a checkpoint of this app")
        made = notes.get("settings")
        settings = {name: list(x) if isinstance(x, tuple) else x for name, x in settings.items()}  # as a file keeps it
        if not isinstance(made, dict) or made.keys() != settings.keys():
            raise foreign
        other = [f"{key.replace('_', '-')} {plain(made[key], 60)}" for key in settings if made[key] != settings[key]]
        if other:
            raise ValueError(f"{self.model} was made with {', '.join(other)}: ask for that, or name another --out")
        if not all(_fits(notes.get(name), kind) for name, kind in more.items()):
            raise foreign
        return notes

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

    def save_best(self, state: dict[str, Any]) -> None:
        """Writes a state dict as `best.npz`, which `mtorch.load` reads."""
        if self.writes:
            write_atomically(self.path / "best.npz", lambda file: numpy.savez(file, allow_pickle=False, **state))

    def _write(self, name: str, text: str) -> None:
        if self.writes:
            write_atomically(self.path / name, lambda file: file.write(text.encode()))


def _fits(note: Any, kind: type | Sequence[str]) -> bool:
    """Whether it is of that type, or a list of rows that hold a number in each of these columns."""
    if isinstance(kind, type):
        return isinstance(note, kind)
    return isinstance(note, list) and all(
        isinstance(row, dict) and row.keys() == set(kind) and all(isinstance(entry, Real) for entry in row.values())
        for row in note
    )


def check_history(rows: list[Any], key: str) -> None:
    """ValueError unless it is rows of numbers under the same names, each with a higher integer under `key`."""
    columns, last = rows[0].keys() if rows and isinstance(rows[0], dict) else (), -1
    for row in rows:
        if not _fits([row], tuple(columns)) or type(row.get(key)) is not int or row[key] <= last:
            raise ValueError(f"expected a history with rising {key}s and numbers, got the row {row!r:.100}")
        last = row[key]
