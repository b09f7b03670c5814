"""What training scripts share: the Trainer, one epoch by hand, scores, the folder of a run, command lines."""

from mtorch.training.command_line import Parser, folder_name, going_on, number, run, run_process, written
from mtorch.training.environment import environment
from mtorch.training.every import Every
from mtorch.training.folder import RunFolder
from mtorch.training.loop import Score, evaluate, significant, train_epoch
from mtorch.training.nonfinite import NonFiniteError
from mtorch.training.progress import progress
from mtorch.training.stops import Stopped
from mtorch.training.trainer import Trainer

__all__ = [
    "Every", "NonFiniteError", "Parser", "RunFolder", "Score", "Stopped", "Trainer", "environment", "evaluate",
    "folder_name", "going_on", "number", "progress", "run", "run_process", "significant", "train_epoch",
    "written",
]  # fmt: skip
