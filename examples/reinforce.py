"""A policy learns to balance a pole on a cart from nothing but how long it stood.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992. With the
return R of an action a, the gradient of -R log p(a) with respect to the logits is R (p - onehot(a)): cross-entropy, its
items weighted by R.
"""

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers

LIMIT, DECAY, POLES = 200, 0.99, 16
rng = numpy.random.default_rng(0)


def push(state, right):
    """One fiftieth of a second of the cart-pole of Barto, Sutton & Anderson, 1983."""
    x, v, angle, turn = state  # N of each
    force = numpy.where(right, 10.0, -10.0)
    sin, cos = numpy.sin(angle), numpy.cos(angle)
    pulled = (force + 0.05 * turn**2 * sin) / 1.1
    turning = (9.8 * sin - cos * pulled) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    moving = pulled - 0.05 * turning * cos / 1.1
    return numpy.array([x + 0.02 * v, v + 0.02 * moving, angle + 0.02 * turn, turn + 0.02 * turning])


policy = Module(Sequential(layers.Linear(4, 32, coe=2, rng=0), layers.Tanh(), layers.Linear(32, 2, coe=0.1, rng=1)))
loss_func = CrossEntropyLoss(policy, reduction="none")
optimizer = Adam(policy, lr=0.01)

for round_ in range(60):
    state, standing = rng.uniform(-0.05, 0.05, (4, POLES)), numpy.ones(POLES, bool)
    seen, actions, alive = [], [], []
    for _ in range(LIMIT):
        logits = policy.predict(state.T)
        right = rng.random(POLES) < 1 / (1 + numpy.exp(logits[:, 0] - logits[:, 1]))
        seen.append(state.T), actions.append(right.astype(int)), alive.append(standing)
        state = push(state, right)
        standing = standing & (abs(state[0]) < 2.4) & (abs(state[2]) < 0.21)
        if not standing.any():
            break
    length = sum(alive).mean()
    returns, after = numpy.zeros((len(alive), POLES)), 0.0
    for t in reversed(range(len(alive))):
        returns[t] = after = alive[t] + DECAY * after
    counts = numpy.concatenate(alive)  # only what was done while the pole stood
    gain = returns.ravel()[counts]
    loss = loss_func(policy(numpy.concatenate(seen)[counts]), numpy.concatenate(actions)[counts])
    loss.backward(weights=(gain - gain.mean()) / (gain.std() * len(gain)))
    optimizer.step()
    if round_ % 10 == 0:
        print(f"round {round_}: the poles stood {length:.0f} steps of at most {LIMIT}")

print(f"at the end {length:.0f} steps")
assert length > 150
