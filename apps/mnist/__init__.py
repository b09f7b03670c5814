"""The handwritten-digit recogniser: `python -m apps.mnist`."""
