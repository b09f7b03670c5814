"""Two versions that were timed in pairs, and what the pairs tell of the ratio."""

import math
import statistics
from dataclasses import dataclass, field

LEAST = 6  # pairs from which on the range below holds the median with 95 % confidence


@dataclass
class Pairs:
    """Seconds of a step then and now, pair by pair."""

    then: list[float] = field(default_factory=list)
    now: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        return [now / then for then, now in zip(self.then, self.now, strict=True)]

    def ratio(self) -> float:
        """The median over the pairs, so not the quotient of two other numbers."""
        return statistics.median(self.ratios())

    def range(self) -> tuple[float, float]:
        """Two of the ratios, between which the median of all that could have been measured lies.

        Each ratio is above that median with probability 1/2, so how many are is binomial.
        """
        found, n = sorted(self.ratios()), len(self.then)
        k, tail = 0, 1 / 2**n  # the chance that at most k of them are above
        while tail + math.comb(n, k + 1) / 2**n <= 0.025:
            k += 1
            tail += math.comb(n, k) / 2**n
        return found[k], found[-1 - k]
