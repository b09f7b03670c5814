"""A net learns which pictures are alike, and then recognises a digit by three pictures of each.

Three pictures go through one and the same net: two of one digit, one of another. The loss asks the first two to lie
closer together than the first and the third. Schroff, Kalenichenko & Philbin, "FaceNet", 2015.
"""

import numpy

from mtorch import Adam, Module, Sequential, TripletMarginLoss, layers
from mtorch.data import digits

BATCH, STEPS = 64, 600
data = digits(size=8)
images, test = (x.reshape(-1, 64).astype("float32") / 16 for x in (data.train_images, data.test_images))
labels = data.train_labels
places = [numpy.flatnonzero(labels == digit) for digit in range(10)]
rng = numpy.random.default_rng(0)


class Triplets(Module):
    def __init__(self):
        super().__init__()
        nn = layers.on(numpy, rng=0)
        self.net = Sequential(nn.Linear(64, 64, coe=2), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, anchor, positive, negative):
        return self.net(anchor), self.net(positive), self.net(negative)


def triplets(n):
    pairs = [rng.choice(10, 2, replace=False) for _ in range(n)]
    picked = [(*rng.choice(places[same], 2, replace=False), rng.choice(places[other])) for same, other in pairs]
    return images[numpy.array(picked).T]


module = Triplets()
loss_func, optimizer = TripletMarginLoss(module), Adam(module, lr=0.003)
for step in range(STEPS):
    loss = loss_func(module(*triplets(BATCH)))
    loss.backward()
    optimizer.step()
    if step % 150 == 0:
        print(f"step {step}: {loss:.3f}")


def accuracy(embed):
    """How many test digits lie nearest to the mean of three pictures of their own digit."""
    centres = numpy.array([embed(images[place[:3]]).mean(axis=0) for place in places])
    distances = numpy.linalg.norm(embed(test)[:, None] - centres, axis=-1)
    return (distances.argmin(axis=1) == data.test_labels).mean()


pixels, learned = accuracy(lambda x: x), accuracy(module.net.predict)
print(f"of the test digits {learned:.1%}; by the distance of their pixels {pixels:.1%}")
assert loss.value < 0.1 and learned > pixels + 0.1 and learned > 0.9
