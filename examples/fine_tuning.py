"""A net that PyTorch has trained on the digits 0 to 4 learns 5 to 9 from forty pictures of each.

Names, shapes and layouts are PyTorch's, so a state dict goes over as it is. The first layer is frozen: it keeps what it
learned, and no gradient is computed for it.
"""

import sys

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import digits

try:
    import torch
except ImportError:
    sys.exit("this example needs PyTorch: pip install torch")

data = digits(size=8)
images, labels = data.train_images.reshape(-1, 64).astype("float32") / 16, data.train_labels
low = labels < 5

torch.manual_seed(0)
theirs = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
adam = torch.optim.Adam(theirs.parameters(), lr=0.01)
for _ in range(60):
    adam.zero_grad()
    torch.nn.functional.cross_entropy(theirs(torch.tensor(images[low])), torch.tensor(labels[low])).backward()
    adam.step()

module = Module(Sequential(layers.Linear(64, 64), layers.ReLU(), layers.Linear(64, 10)))
module.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
with torch.no_grad():
    difference = abs(module.predict(images) - theirs(torch.tensor(images)).numpy()).max()
print(f"the same answers as PyTorch's, to {difference:.0e}")
assert difference < 1e-4

module[0].trainable = False
frozen = module.state_dict()["0.weight"]
few = numpy.concatenate([numpy.flatnonzero(labels == digit)[:40] for digit in range(10)])
loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=0.02)
high = data.test_labels >= 5
test = data.test_images.reshape(-1, 64).astype("float32") / 16
before = (module.predict(test[high]).argmax(-1) == data.test_labels[high]).mean()
for _ in range(300):
    loss_func(module(images[few]), labels[few]).backward()
    optimizer.step()

after = (module.predict(test[high]).argmax(-1) == data.test_labels[high]).mean()
print(f"of the digits 5 to 9: {before:.1%} before, {after:.1%} after")
assert before < 0.05 and after > 0.75 and (module.state_dict()["0.weight"] == frozen).all()
