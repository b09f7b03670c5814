"""A generator learns points on a noisy circle from a discriminator that tells its points from real ones.

Goodfellow et al., "Generative Adversarial Nets", 2014. Each net is trained through the other's verdict: the gradient of
the discriminator's input is the generator's output gradient.
"""

import numpy

from mtorch import Adam, BCEWithLogitsLoss, Module, Sequential, layers

RADIUS, NOISE, BATCH, STEPS = 2.0, 0.1, 128, 1500
rng = numpy.random.default_rng(0)


def real_points(n):
    angle = rng.uniform(0, 2 * numpy.pi, n)
    circle = RADIUS * numpy.stack((numpy.cos(angle), numpy.sin(angle)), axis=1)
    return (circle + NOISE * rng.standard_normal((n, 2))).astype("float32")


def net(sizes, seed):
    chain = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        chain += [layers.Linear(a, b, coe=2, rng=seed + i), layers.LeakyReLU(negative_slope=0.2)]
    return Sequential(chain[:-1])


generator = Module(net((4, 64, 64, 2), seed=0))
discriminator = Module(net((2, 64, 64, 1), seed=10), input_grad=True)
verdict = BCEWithLogitsLoss()
moves = [Adam(each, lr=1e-3, betas=(0.5, 0.999)) for each in (generator, discriminator)]
true, false = numpy.ones((BATCH, 1), "float32"), numpy.zeros((BATCH, 1), "float32")

for step in range(STEPS):
    fake = generator(rng.standard_normal((BATCH, 4)).astype("float32"))
    for points, label in ((real_points(BATCH), true), (fake, false)):
        loss = verdict(discriminator(points), label)
        discriminator.backward(loss.grad)
    moves[1].step()

    loss = verdict(discriminator(fake), true)  # the generator wants its points to be taken for real ones
    generator.backward(discriminator.backward(loss.grad))
    discriminator.zero_grad()
    moves[0].step()
    if step % 300 == 0:
        print(f"step {step}: generator's loss {loss.value:.3f}")

points = generator.predict(rng.standard_normal((2000, 4)).astype("float32"))
radius = numpy.hypot(*points.T)
sectors = numpy.histogram(numpy.arctan2(points[:, 1], points[:, 0]), bins=8, range=(-numpy.pi, numpy.pi))[0] / 2000
print(f"radius {radius.mean():.2f} +- {radius.std():.2f}, rarest of eight directions {sectors.min():.1%}")
assert abs(radius.mean() - RADIUS) < 0.2 and radius.std() < 0.35 and sectors.min() > 0.04
