"""An LSTM reads a long text in chunks, and then writes sentences of its kind.

Truncated backpropagation through time: the state goes on from chunk to chunk, the gradient does not (Williams & Peng,
1990). To write, one letter at a time is drawn and given back, with the state that `predict` returned.
"""

import itertools

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, layers

SUBJECTS, VERBS = ("the cat", "a dog", "the old owl", "one fox"), ("sees", "hears", "follows", "knows")
SENTENCES = [f"{a} {verb} {b}." for a, verb, b in itertools.product(SUBJECTS, VERBS, SUBJECTS)]
STREAMS, CHUNK, SIZE = 16, 24, 64
rng = numpy.random.default_rng(0)
text = " ".join(SENTENCES[i] for i in rng.integers(0, len(SENTENCES), 1500))
letters = sorted(set(text))
ids = numpy.array([letters.index(letter) for letter in text])


class Writer(Module):
    def __init__(self):
        super().__init__()
        self.embed = layers.Embedding(len(letters), 16, rng=0)
        self.lstm = layers.LSTM(16, SIZE, rng=1)
        self.out = layers.Linear(SIZE, len(letters), rng=2)

    def forward(self, h, c, x):
        return self.out(self.lstm(((h, c), self.embed(x))))


module = Writer()
loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=5e-3, clip_norm=1.0)
steps = (len(ids) - 1) // STREAMS
streams = ids[: STREAMS * steps].reshape(STREAMS, steps).T  # (T, N): each column is a part of the text
following = ids[1 : STREAMS * steps + 1].reshape(STREAMS, steps).T
zeros = numpy.zeros((STREAMS, SIZE), "float32")
for epoch in range(4):
    state = zeros, zeros
    for t in range(0, steps - CHUNK, CHUNK):
        loss = loss_func(module(*state, streams[t : t + CHUNK]), following[t : t + CHUNK])
        loss.backward()
        optimizer.step()
        state = module.lstm.final_state
    print(f"epoch {epoch}: {loss.value:.3f} nats a letter")


def write(start, length):
    written, state = start, None
    x = numpy.array([letters.index(letter) for letter in start])[:, None]  # (T, 1)
    for _ in range(length):
        # The state takes the place of both zeros, from the second call on.
        scores, state = module.predict(zeros[:1], zeros[:1], x, state=state)
        p = numpy.exp(2 * scores[-1, 0].astype("float64"))  # at temperature 1/2
        x = rng.choice(len(letters), size=(1, 1), p=p / p.sum())
        written += letters[x.item()]
    return written


found = write("the ", 600)
complete = [f"{sentence.strip()}." for sentence in found.split(".")[:-1]]
right = sum(sentence in SENTENCES for sentence in complete)
print("\n".join(complete[:4]))
print(f"{right} of {len(complete)} sentences could stand in the text")
assert right >= 0.9 * len(complete)
