"""MNIST: 60,000 and 10,000 handwritten digits of 28 x 28, from a folder, the cache or a mirror.

LeCun, Cortes & Burges, "The MNIST database of handwritten digits", 1998.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy

from mtorch.checks import shown
from mtorch.data.idx import idx_sha256, read_idx, read_up_to
from mtorch.data.uci_digits import DigitData, digits

# SHA-256 of the uncompressed bytes: mirrors differ in how they compress.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
]
LARGEST = 1 << 26  # bytes: none of the files is longer


class MnistMissing(FileNotFoundError):
    """MNIST is not in the cache and cannot be downloaded; the message says why, and what to do."""


def say(line: str) -> None:
    """Prints a line for the user on stderr, apart from a program's output."""
    print(line, file=sys.stderr, flush=True)


def load_digits_data(data: str | os.PathLike = "auto", size: int = 28, say: Callable[[str], None] = say) -> DigitData:
    """The digits that an app's `--data` asks for: name, train and test images (N, 28, 28) uint8, labels (N,) int64.

    "auto": MNIST; if it is not available, the built-in digits, and `say` reports it.  "mnist": MNIST or an error.
    "digits": the built-in ones.  Anything else is a folder with MNIST's files.
    size: 8 gives the built-in digits, if they are used, as their raw scans (N, 8, 8), 0 … 16.
    """
    if not isinstance(data, str | os.PathLike):
        raise TypeError(
            f"load_digits_data expected data to be 'auto', 'mnist', 'digits' or a folder, got {shown(data)}"
        )
    if data == "digits":
        return digits(size)
    if data not in ("auto", "mnist"):
        return mnist(data, say=say)
    try:
        return mnist(say=say)
    except MnistMissing as error:
        if data == "mnist":
            raise
        say(f"MNIST IS NOT HERE: going on with the built-in digits instead, 1,797 scans of 8 x 8.\n  Why: {error}")
        return digits(size)


def mnist(root: str | os.PathLike | None = None, say: Callable[[str], None] = say) -> DigitData:
    """MNIST from the folder `root`, else from the one that MTORCH_DATA names, else from the cache or a mirror.

    The folder holds the four files, gzipped or not, itself or in a folder `mnist`; one that does not, or that holds
    damaged ones, is an error and nothing else is tried. Files in MNIST's format that are not MNIST (by SHA-256) are
    welcome there, under the folder's name. MnistMissing where no mirror can be reached.
    """
    if not isinstance(root, str | os.PathLike | None):
        raise TypeError(f"mnist expected root to be a folder, got {shown(root)}")
    root = os.environ.get("MTORCH_DATA") if root is None else root
    if root:
        return _from_folder(Path(root).expanduser())
    folder = cache_folder()
    return _checked("mnist", {name: _cached(name, folder, say) for name in FILES}, dict.fromkeys(FILES, folder))


def cache_folder() -> Path:
    """Where downloads are kept: MTORCH_CACHE, else mtorch in XDG_CACHE_HOME, else ~/.cache/mtorch; there, `mnist`."""
    own = os.environ.get("MTORCH_CACHE")
    if own:
        return Path(own) / "mnist"
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        caches = Path(given) if os.path.isabs(given) else Path.home() / ".cache"  # a relative one is to be ignored
    except RuntimeError as error:
        raise MnistMissing("there is no home folder to keep MNIST in: set MTORCH_CACHE") from error
    if not caches.is_absolute():
        raise MnistMissing(f"the home folder {shown(str(Path.home()))} is no absolute path: set MTORCH_CACHE")
    return caches / "mtorch" / "mnist"


def _from_folder(root: Path) -> DigitData:
    try:
        found = root.exists()
    except (OSError, ValueError) as error:  # a folder that may not be searched, or no name of one
        raise OSError(f"{shown(str(root))}: {getattr(error, 'strerror', error)}") from error
    if not found:
        raise FileNotFoundError(f"{root}: there is no such folder; expected one with MNIST's files ({_names(FILES)})")
    if not root.is_dir():
        raise NotADirectoryError(f"{root}: expected a folder with MNIST's files ({_names(FILES)}), got a file")
    for folder in (root, root / "mnist"):
        paths = {name: path for name in FILES for path in _existing(name, folder)[:1]}
        if paths:
            break
    else:
        raise FileNotFoundError(f"{root}: expected MNIST's files, here or in its folder mnist ({_names(FILES)})")
    missing = [name for name in FILES if name not in paths]
    if missing:
        raise FileNotFoundError(f"{folder}: of MNIST's files there is no {_names(missing)}")
    arrays = {name: read_idx(path) for name, path in paths.items()}
    genuine = all(idx_sha256(arrays[name]) == sha256 for name, sha256 in FILES.items())
    return _checked("mnist" if genuine else folder.resolve().name, arrays, paths)


def _existing(name: str, folder: Path) -> list[Path]:
    """The file under every name that unpackers give it: `train-images.idx3-ubyte`, also in a folder of that name."""
    names = name, name.replace("-idx", ".idx")
    files = [f"{each}{ending}" for each in names for ending in ("", ".gz")]
    paths = [folder / file for file in files] + [folder / each / file for each in names for file in files]
    return [path for path in paths if path.is_file()]


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) + "; each may end in .gz"


def _cached(name: str, folder: Path, say: Callable[[str], None]) -> numpy.ndarray:
    """A file's array from the cache; from a mirror where it is not there, or not as it was published."""
    kept = "Name another place: MTORCH_CACHE=DIR"
    try:
        paths = _existing(name, folder)
    except OSError as error:  # a folder that may not be searched
        raise MnistMissing(f"the cache {folder} cannot be read ({error.strerror}). {kept}") from error
    for path in paths:
        try:
            return _genuine(name, path)
        except (ValueError, OSError) as error:
            say(f"{error}: fetching it again")
    from mtorch.data.download import DownloadError, download  # costs 30 ms, and few need it

    say(f"fetching MNIST's {name}.gz into {folder}")
    try:
        return download(f"{name}.gz", folder, MIRRORS, lambda part: _genuine(name, part))
    except DownloadError as error:
        raise MnistMissing(f"{error}. With MNIST in a folder, name it: --data DIR, or MTORCH_DATA=DIR") from error
    except OSError as error:
        raise MnistMissing(f"MNIST cannot be kept ({error}). {kept}") from error


def _genuine(name: str, path: Path) -> numpy.ndarray:
    array = read_up_to(path, LARGEST)
    if array.dtype != numpy.uint8 or idx_sha256(array) != FILES[name]:
        raise ValueError(f"{path}: is not MNIST's {name} (its SHA-256 is another)")
    return array


def _checked(name: str, arrays: dict[str, numpy.ndarray], paths: dict[str, Path]) -> DigitData:
    """Images must be (N, 28, 28) bytes and labels (N,) bytes from 0 to 9, as many as images."""
    parts = []
    for images, labels in (list(FILES)[:2], list(FILES)[2:]):
        pictures, marks = arrays[images], arrays[labels]
        if pictures.dtype != numpy.uint8 or pictures.shape[1:] != (28, 28):
            raise ValueError(f"{paths[images]}: expected images (N, 28, 28), got {pictures.dtype} {pictures.shape}")
        if marks.dtype != numpy.uint8 or marks.shape != pictures.shape[:1]:
            raise ValueError(f"{paths[labels]}: expected {len(pictures)} labels, got {marks.dtype} {marks.shape}")
        if not marks.size:
            raise ValueError(f"{paths[labels]}: expected at least one label, got none")
        if marks.max() > 9:
            raise ValueError(f"{paths[labels]}: expected labels from 0 to 9, got {marks.max()}")
        parts += [pictures, marks.astype(numpy.int64)]
    return DigitData(name, *parts)
