"""The dense net in scikit-learn: one `partial_fit` of an MLPClassifier a step.

It has softmax with cross-entropy, so no digit net (sigmoid with squared error). Its shuffling, penalty and momentum are
turned off; what it cannot turn off it does as well: it checks its input and sums the squares of all weights.
"""

from itertools import pairwise

from .common import fill, labels, normal


def mlp(widths, batch, lr, optimizer="SGD"):
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        widths[1:-1],
        solver=optimizer.lower(),
        learning_rate_init=lr,
        batch_size=batch,
        alpha=0,
        momentum=0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    x, y, classes = normal(batch, widths[0]), labels(batch), list(range(widths[-1]))

    net.partial_fit(x, y, classes=classes)  # makes weights, which then get the values that all sides begin with
    for i, (a, b) in enumerate(pairwise(widths)):
        weight, bias = fill({f"{2 * i}.weight": (b, a), f"{2 * i}.bias": (b,)}).values()
        net.coefs_[i][...], net.intercepts_[i][...] = weight.T, bias
    del net._optimizer  # it has seen a gradient; the next call makes another

    def step():
        net.partial_fit(x, y)
        return net.loss_

    return step
