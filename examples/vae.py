"""A variational autoencoder: digits are drawn from a few normal numbers.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2013. With z = m + exp(s / 2) e and e normal, the loss is the cross
entropy of the drawn digit and the divergence of N(m, exp(s)) from N(0, 1), (m^2 + exp(s) - 1 - s) / 2 for each number.
"""

import numpy

import mtorch
from mtorch import Adam, BCEWithLogitsLoss, LossFunction, Module, Sequential, layers
from mtorch.data import digits

SIZE, CODE, BATCH, STEPS = 64, 6, 64, 2500
data = digits(size=8)
train, test = (images.reshape(-1, SIZE).astype("float32") / 16 for images in (data.train_images, data.test_images))
rng = numpy.random.default_rng(0)
nn = layers.on(numpy, rng=0)


class Divergence(LossFunction):
    """KL(N(m, exp(s)) || N(0, 1)) of a prediction (N, 2 CODE), which is m beside s; the target is not used."""

    def terms(self, xp, prediction, target):
        m, s = prediction[:, :CODE], prediction[:, CODE:]
        loss = 0.5 * (m * m + xp.exp(s) - 1 - s)
        return loss, xp.concatenate((m, 0.5 * (xp.exp(s) - 1)), axis=1)


class Autoencoder(Module):
    def __init__(self):
        super().__init__()
        self.encode = Sequential(nn.Linear(SIZE, 64, coe=2), nn.ReLU(), nn.Linear(64, 2 * CODE))
        self.decode = Sequential(nn.Linear(CODE, 64, coe=2), nn.ReLU(), nn.Linear(64, SIZE))

    def forward(self, x, e):
        code = self.encode(x)
        m, s = code[:, :CODE], code[:, CODE:]
        return self.decode(m + mtorch.exp(0.5 * s) * e), code


module = Autoencoder()
drawing, divergence = BCEWithLogitsLoss(module, reduction="sum"), Divergence(module, reduction="sum")
optimizer = Adam(module, lr=3e-3)


def losses(x, answer):
    logits, code = answer
    return drawing(logits, x), divergence(code, numpy.zeros_like(code))


for step in range(STEPS):
    x = train[rng.integers(0, len(train), BATCH)]
    a, b = losses(x, module(x, rng.standard_normal((BATCH, CODE)).astype("float32")))
    ((a + b) / BATCH).backward()
    optimizer.step()
    if step % 500 == 0:
        print(f"step {step}: {a.value / BATCH:.2f} nats of ink, {b.value / BATCH:.2f} of code")

a, b = losses(test, module.predict(test, rng.standard_normal((len(test), CODE)).astype("float32")))
bound = (a.value + b.value) / len(test)
mean = train.mean(axis=0).clip(1e-3, 1 - 1e-3)
plain = -(test * numpy.log(mean) + (1 - test) * numpy.log(1 - mean)).sum() / len(test)
print(f"{bound:.2f} nats a test digit; {plain:.2f} where every pixel is drawn by itself")
drawn = module.decode.predict(rng.standard_normal((6, CODE)).astype("float32")).reshape(6, 8, 8)
for rows in drawn.swapaxes(0, 1):
    print("  ".join("".join(" .:*#"[int(4.99 / (1 + numpy.exp(-v)))] * 2 for v in row) for row in rows))
assert bound < plain - 2 and b.value / len(test) > 2
