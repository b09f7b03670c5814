"""Training stops when the validation loss no longer falls, keeps the best weights, and goes on where it was stopped.

The run is cut in the middle: a second part loads module, optimizer and loader from the checkpoint, and arrives at the
same bits as a run without a cut.
"""

import tempfile
from pathlib import Path

import mtorch
from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits

PATIENCE = 5
data = digits(size=8)
x, t = data.train_images.reshape(-1, 64).astype("float32") / 16, data.train_labels
test = data.test_images.reshape(-1, 64).astype("float32") / 16
few, val_x, val_t = ArrayDataset(x[:300], t[:300]), x[300:600], t[300:600]


def run(path, epochs, resume=False):
    """Trains up to that epoch, or until PATIENCE epochs went by without a better validation loss."""
    chain = layers.Linear(64, 64, coe=2, rng=0), layers.ReLU(), layers.Linear(64, 10, rng=1)
    module = Module(Sequential(chain))
    optimizer, loader = Adam(module, lr=0.01), DataLoader(few, batch_size=20, shuffle=True, rng=0)
    loss_func, first, best, best_epoch = CrossEntropyLoss(module), 0, float("inf"), -1
    if resume:
        notes = mtorch.load(path / "last.npz", module, optimizer)
        loader.load_state_dict(notes["loader"])
        first, best, best_epoch = notes["epoch"], notes["best"], notes["best_epoch"]
    for epoch in range(first, epochs):
        for batch, labels in loader:
            loss_func(module(batch), labels).backward()
            optimizer.step()
        loss = loss_func(module.predict(val_x), val_t).value
        if loss < best:
            best, best_epoch = loss, epoch
            mtorch.save(path / "best.npz", module)
        state = {"epoch": epoch + 1, "best": best, "best_epoch": best_epoch, "loader": loader.state_dict()}
        mtorch.save(path / "last.npz", module, optimizer, **state)
        if epoch - best_epoch >= PATIENCE:
            print(f"stopped after epoch {epoch}: the best was epoch {best_epoch} with a loss of {best:.4f}")
            break
    mtorch.load(path / "best.npz", module)
    return module, epoch


with tempfile.TemporaryDirectory() as folder:
    whole, cut = Path(folder, "whole"), Path(folder, "cut")
    whole.mkdir(), cut.mkdir()
    module, epoch = run(whole, 200)
    run(cut, 7)
    again, _ = run(cut, 200, resume=True)
    assert (module.to_vector() == again.to_vector()).all(), "a resumed run differs"

accuracy = (module.predict(test).argmax(-1) == data.test_labels).mean()
print(f"{accuracy:.1%} of the test digits after 300 training digits")
assert epoch < 199 and accuracy > 0.85
