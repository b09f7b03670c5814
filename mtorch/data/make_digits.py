"""Makes `digits.npz` from scikit-learn's copy of the UCI digits: `python -m mtorch.data.make_digits`.

Run once; only the file that it leaves is needed (and neither scikit-learn nor this script is, by users).
"""

import numpy

from mtorch.data.uci_digits import FILE


def make(path: str) -> None:
    """Writes the 1,797 scans (uint8, 0 … 16) and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    numpy.savez_compressed(path, images=data.images.astype(numpy.uint8), labels=data.target.astype(numpy.uint8))


if __name__ == "__main__":
    make(str(FILE))
