"""One net answers two questions about a digit: which one it is, and how much ink it has.

The losses of both heads add up, and one backward goes through the trunk that they share. Caruana, "Multitask learning",
1997.
"""

import numpy

import mtorch
from mtorch import Adam, CrossEntropyLoss, Module, MSELoss, layers
from mtorch.data import ArrayDataset, DataLoader, digits

data = digits(size=8)
train, test = (images.reshape(-1, 64).astype("float32") / 16 for images in (data.train_images, data.test_images))


class TwoHeads(Module):
    def __init__(self):
        super().__init__()
        nn = layers.on(numpy, rng=0)
        self.trunk, self.digit, self.ink = nn.Linear(64, 48, coe=2), nn.Linear(48, 10), nn.Linear(48, 1)

    def forward(self, x):
        h = mtorch.relu(self.trunk(x))
        return self.digit(h), self.ink(h)


module = TwoHeads()
digit_loss, ink_loss = CrossEntropyLoss(module), MSELoss(module)
optimizer = Adam(module, lr=0.005)
loader = DataLoader(ArrayDataset(train, data.train_labels), batch_size=32, shuffle=True, rng=0)
for epoch in range(30):
    for x, labels in loader:
        which, amount = module(x)
        loss = digit_loss(which, labels) + 300 * ink_loss(amount, x.mean(axis=1, keepdims=True))
        loss.backward()
        optimizer.step()
    if epoch % 10 == 0:
        print(f"epoch {epoch}: {loss:.4f}")

which, amount = module.predict(test)
accuracy = (which.argmax(-1) == data.test_labels).mean()
ink = test.mean(axis=1, keepdims=True)
explained = 1 - ((amount - ink) ** 2).mean() / ink.var()
print(f"{accuracy:.1%} of the test digits, {explained:.1%} of the variance of their ink")
assert accuracy > 0.94 and explained > 0.9
