"""A net writes a word backwards: an encoder reads it, a decoder writes and attends to what was read.

Bahdanau, Cho & Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", 2014. In training the
decoder reads the right letters, moved by one; later its own, one a call, with the state that `predict` returned.
"""

import numpy

from mtorch import Adam, CrossEntropyLoss, Module, Sequential, concat, layers
from mtorch.optim.schedules import CosineAnnealingLR

ALPHABET, LONGEST, SIZE, BATCH, STEPS = 10, 8, 64, 32, 800
BEGIN, END = ALPHABET, ALPHABET + 1  # letters are 0 ... 9
rng = numpy.random.default_rng(0)
nn = layers.on(numpy, rng=0)


class Decoder(Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gru = nn.Embedding(ALPHABET + 2, 16), nn.GRU(16, SIZE)
        self.attention, self.out = nn.MultiHeadAttention(SIZE, 1), nn.Linear(2 * SIZE, ALPHABET + 2)

    def forward(self, first, memory, written):
        h = self.gru((first, self.embed(written)))
        return self.out(concat((h, self.attention((h, memory, memory))), axis=-1))


class Translator(Module):
    def __init__(self):
        super().__init__()
        self.encoder = Sequential(nn.Embedding(ALPHABET + 2, 16), nn.GRU(16, SIZE, return_state=True))
        self.decoder = Decoder()

    def forward(self, word, written):
        first, memory = self.encoder(word)  # the last state, and h of every step
        return self.decoder(first, memory, written)


def words(n):
    """n words (T, n) of one random length, and what to write: the same backwards, then END."""
    word = rng.integers(0, ALPHABET, (rng.integers(2, LONGEST + 1), n))
    return word, numpy.concatenate((word[::-1], numpy.full((1, n), END)))


def translate(word):
    """Letter by letter, each the most probable, until all have ended."""
    first, memory = module.encoder.predict(word)
    letter, state, found = numpy.full((1, word.shape[1]), BEGIN), None, []
    while len(found) <= len(word):
        scores, state = module.decoder.predict(first, memory, letter, state=state)
        letter = scores.argmax(axis=-1)
        found.append(letter[0])
    return numpy.array(found)


module = Translator()
loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=CosineAnnealingLR(5e-3, STEPS))
for step in range(STEPS):
    word, target = words(BATCH)
    written = numpy.concatenate((numpy.full((1, BATCH), BEGIN), target[:-1]))
    loss = loss_func(module(word, written), target)
    loss.backward()
    optimizer.step()
    if step % 200 == 0:
        print(f"step {step}: {loss.value:.3f} nats a letter")

tests = [words(50) for _ in range(10)]
right = numpy.mean([(translate(word) == target).all(axis=0).mean() for word, target in tests])
word, _ = words(1)
print("".join("abcdefghij"[i] for i in word[:, 0]), "->", "".join("abcdefghij|."[i] for i in translate(word)[:, 0]))
print(f"{right:.1%} of the words are right in every letter")
assert right > 0.95
