"""What training scripts share: the loop over batches, the score of a data set, and the folder a run leaves behind."""

from mtorch.training.folder import RunFolder
from mtorch.training.loop import Score, evaluate, train_epoch
from mtorch.training.progress import progress

__all__ = ["RunFolder", "Score", "evaluate", "progress", "train_epoch"]
