"""What a forward changes beside its memory: buffers, and how far every generator has drawn."""

from collections.abc import Sequence

import numpy

from mtorch.layer import Layer


class BeforeStep:
    """Notes the state before a step, and goes back to it when the step was broken off before the parameters moved."""

    def __init__(self, module: Layer, generators: Sequence[numpy.random.Generator]):
        self.module, self.generators = module, generators
        self.buffers = list(module.buffers().values())
        self.random = list({id(layer): layer for _, layer in module.walk() if layer.random_state()}.values())

    def note(self) -> None:
        self.values = [buffer.value for buffer in self.buffers]  # a forward replaces them and never writes into them
        self.draws = [layer.random_state() for layer in self.random]
        self.states = [rng.bit_generator.state for rng in self.generators]

    def restore(self) -> None:
        """Memories and gradients are dropped as well."""
        self.module.discard()
        for buffer, value in zip(self.buffers, self.values, strict=True):
            buffer.value = value
        for layer, state in zip(self.random, self.draws, strict=True):
            layer.set_random_state(state)
        for rng, kept in zip(self.generators, self.states, strict=True):
            rng.bit_generator.state = kept
