"""What training scripts share: the loop over batches, scores, the folder of a run's results, command lines."""

from mtorch.training.command_line import Parser, folder_name, number, run, written
from mtorch.training.environment import environment
from mtorch.training.folder import RunFolder
from mtorch.training.loop import Score, evaluate, train_epoch
from mtorch.training.progress import progress

__all__ = [
    "Parser", "RunFolder", "Score", "environment", "evaluate", "folder_name", "number", "progress", "run",
    "train_epoch", "written",
]  # fmt: skip
