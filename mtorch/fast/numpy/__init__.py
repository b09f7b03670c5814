"""Bodies for NumPy: each of these modules registers what it replaces."""
