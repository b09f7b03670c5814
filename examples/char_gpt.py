"""A small GPT learns a verse letter by letter, and then writes it.

Radford et al., "Improving Language Understanding by Generative Pre-Training", 2018; the blocks normalise before they
compute, as in GPT-2. All tensors are time-major: (T, N, E).
"""

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, Residual, Sequential, layers
from mtorch.optim.schedules import CosineAnnealingLR

VERSE = """The slope looks back along the chain,
each layer hands its share below;
what forward kept comes home again
and tells the weights which way to go.
"""
WINDOW, BATCH, SIZE, HEADS, STEPS = 32, 16, 48, 4, 200
letters = sorted(set(VERSE))
ids = numpy.array([letters.index(letter) for letter in VERSE])
rng = numpy.random.default_rng(0)
nn = layers.on(numpy, rng=0)


def block():
    attend = Sequential(nn.LayerNorm(SIZE), nn.MultiHeadAttention(SIZE, HEADS, causal=True))
    compute = Sequential(nn.LayerNorm(SIZE), nn.Linear(SIZE, 4 * SIZE), nn.GELU(), nn.Linear(4 * SIZE, SIZE))
    return [Residual(attend), Residual(compute)]


module = Module(
    Sequential(
        nn.Embedding(len(letters), SIZE),
        nn.PositionalEmbedding(WINDOW, SIZE),
        *block(),
        *block(),
        nn.LayerNorm(SIZE),
        nn.Linear(SIZE, len(letters)),
    )
)
loss_func = CrossEntropyLoss(module)
optimizer = Adam(module, lr=CosineAnnealingLR(3e-3, STEPS), clip_norm=1.0)

for step in range(STEPS):
    starts = rng.integers(0, len(ids) - WINDOW, BATCH)
    window = ids[starts + numpy.arange(WINDOW + 1)[:, None]]  # (T + 1, N)
    loss = loss_func(module(window[:-1]), window[1:])
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step}: {loss.value:.3f} nats a letter")

written = list(ids[:WINDOW])
while len(written) < len(ids):
    logits = module.predict(numpy.array(written[-WINDOW:])[:, None])[-1, 0]
    written.append(int(logits.argmax()))
text = "".join(letters[i] for i in written)
print(text, f"{len(text)} letters, all right" if text == VERSE else "", sep="")
assert loss.value < 0.2 and text == VERSE
