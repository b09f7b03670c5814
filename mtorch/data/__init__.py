"""Data: sets and loaders, MNIST and the digits that are always there, sine sequences, sentences."""

from mtorch.data.dataset import ArrayDataset, Dataset
from mtorch.data.file_dataset import FileDataset, standardise
from mtorch.data.idx import read_idx
from mtorch.data.loader import DataLoader
from mtorch.data.mnist_files import load_digits_data, mnist
from mtorch.data.mnist_style import as_mnist
from mtorch.data.sentences import who_acts
from mtorch.data.sequences import noisy_sine, sample_times, sine_cosine
from mtorch.data.uci_digits import DigitData, digits

__all__ = [
    "ArrayDataset", "DataLoader", "Dataset", "DigitData", "FileDataset", "as_mnist", "digits", "load_digits_data",
    "mnist", "noisy_sine", "read_idx", "sample_times", "sine_cosine", "standardise", "who_acts",
]  # fmt: skip
