"""Training stops when the validation loss no longer falls, keeps the best weights, and goes on where it was stopped.

The run is cut in the middle of an epoch: a second part goes on from the checkpoint, and arrives at the same bits as a
run without a cut.
"""

import tempfile
from pathlib import Path

from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.training import Trainer

data = digits(size=8)
x, t = data.train_images.reshape(-1, 64).astype("float32") / 16, data.train_labels
test = data.test_images.reshape(-1, 64).astype("float32") / 16
few, validation = ArrayDataset(x[:300], t[:300]), ArrayDataset(x[300:600], t[300:600])


def trainer(out):
    """The same run each time: patience counts epochs without a better validation loss."""
    module = Module(Sequential(layers.Linear(64, 64, coe=2, rng=0), layers.ReLU(), layers.Linear(64, 10, rng=1)))
    loader = DataLoader(few, batch_size=20, shuffle=True, rng=0)
    parts = module, CrossEntropyLoss(module), Adam(module, lr=0.01), loader, DataLoader(validation, batch_size=300)
    return Trainer(*parts, out=out, patience=5)


with tempfile.TemporaryDirectory() as folder:
    whole, cut = Path(folder, "whole"), Path(folder, "cut")
    run = trainer(whole)
    run.fit(epochs=200)
    trainer(cut).fit(steps=99)  # 15 make an epoch
    again = trainer(cut)
    assert again.resume()
    again.fit(epochs=200)
    assert (run.module.to_vector() == again.module.to_vector()).all() and run.history == again.history
    names = sorted(path.name for path in cut.iterdir())

best = again.restore_best()
accuracy = (again.module.predict(test).argmax(-1) == data.test_labels).mean()
print(f"the best was epoch {best['epoch']} with a loss of {best['test_loss']:.4f}; in the folder: {', '.join(names)}")
print(f"{accuracy:.1%} of the test digits after 300 training digits")
assert best["epoch"] < len(again.history) < 200 and accuracy > 0.85
