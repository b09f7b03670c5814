"""What does a net look at, and how little must change until it errs? Both are the gradient of the input.

Simonyan, Vedaldi & Zisserman, "Deep inside convolutional networks", 2013; Goodfellow, Shlens & Szegedy, "Explaining and
harnessing adversarial examples" (the fast gradient sign method), 2014.
"""

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits

data = digits(size=8)
train, test = (images.reshape(-1, 64).astype("float32") / 16 for images in (data.train_images, data.test_images))
net = Sequential(layers.Linear(64, 64, coe=2, rng=0), layers.ReLU(), layers.Linear(64, 10, rng=1))
module = Module(net, input_grad=True)  # backward returns the gradient of the input
loss_func = CrossEntropyLoss(module)
optimizer = Adam(module, lr=0.003)
loader = DataLoader(ArrayDataset(train, data.train_labels), batch_size=32, shuffle=True, rng=0)
for _ in range(30):
    for x, labels in loader:
        loss_func(module(x), labels).backward()
        optimizer.step()


def accuracy(x):
    return (module.predict(x).argmax(-1) == data.test_labels).mean()


loss = loss_func(module(test), data.test_labels)
gradient = loss.backward()
module.zero_grad()  # nothing is trained here

size = 0.1
attacked = numpy.clip(test + size * numpy.sign(gradient), 0, 1)
noise = numpy.random.default_rng(0).choice([-size, size], test.shape).astype("float32")
noisy = numpy.clip(test + noise, 0, 1)
clean, under_noise, under_attack = accuracy(test), accuracy(noisy), accuracy(attacked)
print(f"clean {clean:.1%}, noise of {size}: {under_noise:.1%}, the same size along the gradient: {under_attack:.1%}")
assert clean > 0.93 and under_noise > clean - 0.05 and under_attack < clean - 0.3

saliency = abs(gradient).reshape(-1, 8, 8)
saliency /= saliency.max(axis=(1, 2), keepdims=True)
print("where a change of the first test digit, a", data.test_labels[0], "matters most:")
for inks, weights in zip(test[0].reshape(8, 8), saliency[0], strict=True):
    print("  ", "".join(" .:*#"[int(ink * 4)] * 2 for ink in inks), "".join(" .:*#"[int(w * 4)] * 2 for w in weights))
