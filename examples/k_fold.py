"""How good is a net that sees few digits? Five-fold cross-validation, with an average of the weights in each fold.

Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992: the running average of the parameters
errs less than the parameters themselves.
"""

import numpy

from mtorch import SGD, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits

FOLDS, DECAY = 5, 0.98
data = digits(size=8)
images = numpy.concatenate((data.train_images, data.test_images)).reshape(-1, 64).astype("float32") / 16
labels = numpy.concatenate((data.train_labels, data.test_labels))
fold = numpy.random.default_rng(0).permutation(len(labels)) % FOLDS


def trained(x, t, seed):
    module = Module(Sequential(layers.Linear(64, 32, coe=2, rng=seed), layers.ReLU(), layers.Linear(32, 10, rng=seed)))
    loss_func, optimizer = CrossEntropyLoss(module), SGD(module, lr=0.5)
    average = module.to_vector()
    loader = DataLoader(ArrayDataset(x, t), batch_size=16, shuffle=True, rng=seed)
    for _ in range(15):
        for batch, target in loader:
            loss_func(module(batch), target).backward()
            optimizer.step()
            average += (1 - DECAY) * (module.to_vector() - average)
    return module, average


def accuracy(module, x, t):
    return (module.predict(x).argmax(-1) == t).mean()


last, averaged = [], []
for k in range(FOLDS):
    module, average = trained(images[fold != k], labels[fold != k], seed=k)
    last.append(accuracy(module, images[fold == k], labels[fold == k]))
    module.from_vector(average)
    averaged.append(accuracy(module, images[fold == k], labels[fold == k]))
    print(f"fold {k}: {last[-1]:.1%}, with averaged weights {averaged[-1]:.1%}")

print(f"mean {numpy.mean(last):.1%} +- {numpy.std(last):.1%}, averaged {numpy.mean(averaged):.1%}")
assert numpy.mean(averaged) > 0.95 and numpy.mean(averaged) >= numpy.mean(last) - 0.005
