"""Mathematics that layers share: erf, random bits, sliding windows."""
