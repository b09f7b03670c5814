"""Downloads a file from the first of several mirrors that has all of it; gives up within seconds without a network."""

import http.client
import os
import queue
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mtorch.checks import plain

T = TypeVar("T")

ANSWER = 3.0  # seconds that a mirror has to answer, and to go on when it has begun
PATIENCE = 8.0  # seconds of fruitless waiting, all mirrors together
RATE = 20_000  # bytes a second that a mirror must deliver in the long run
MAX_BYTES = 1 << 25  # no file here is longer
PIECE = 1 << 16
STALE = 3600.0  # seconds after which a .part file belongs to nobody


class NotKept(OSError):
    """The file cannot be written here, whatever a mirror delivers."""


class DownloadError(OSError):
    """No mirror delivered the file; the text says what each of them did."""


def download(name: str, folder: Path, mirrors: Sequence[str], accept: Callable[[Path], T]) -> T:
    """Puts `name` from a mirror into `folder` and returns `accept(path)`.

    mirrors: addresses of folders, tried in turn.  accept: reads the new file; it raises ValueError for a wrong one,
    and the next mirror is tried. The file has a name of its own that ends in .part until it was accepted, then it is
    renamed, so that a broken download never looks like a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    patience = PATIENCE
    failures: dict[str, list[str]] = {}
    for mirror in mirrors:
        if patience <= 0:
            break
        begin = time.monotonic()
        received = [0]
        descriptor, part = tempfile.mkstemp(prefix=f"{name}.", suffix=".part", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _copy(mirror + name, file, folder / name, min(ANSWER, patience), received)
            found = accept(Path(part))
            with _keeping(folder / name):
                os.chmod(part, 0o644)
                os.replace(part, folder / name)
            return found
        except NotKept:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error.reason if type(error) is urllib.error.URLError else error) or type(error).__name__
            reason = plain(reason.replace(part, name))
            failures.setdefault(reason, []).append(urlsplit(mirror).netloc)
            if received[0] < PIECE:
                patience -= time.monotonic() - begin
        finally:
            Path(part).unlink(missing_ok=True)
    reasons = [f"{', '.join(hosts)}: {reason}" for reason, hosts in failures.items()]
    raise DownloadError(f"no mirror delivered {name} ({'; '.join(reasons) or 'there is none'})")


def _copy(url: str, file: Any, path: Path, seconds: float, received: list[int]) -> None:
    """Writes what `url` delivers into `file`, which is to become `path`, and counts it in received[0]; with a progress
    bar on a terminal.
    """
    begin = time.monotonic()
    request = urllib.request.Request(url, headers={"User-Agent": "mtorch"})
    response = _within(seconds, lambda: urllib.request.urlopen(request, timeout=seconds))
    length = response.headers.get("Content-Length") or ""
    with (
        response,
        _bar(url.rpartition("/")[2], int(length) if length.isdecimal() and len(length) < 12 else None) as count,
    ):
        while piece := response.read1(PIECE):
            with _keeping(path):
                file.write(piece)
                file.flush()
            count(len(piece))
            received[0] += len(piece)
            if received[0] > MAX_BYTES:
                raise ValueError(f"sends more than {MAX_BYTES:,} bytes")
            if time.monotonic() - begin > seconds + received[0] / RATE:
                raise TimeoutError("is too slow")


@contextmanager
def _keeping(path: Path) -> Iterator[None]:
    """Errors inside are of the disk, not of a mirror."""
    try:
        yield
    except OSError as error:
        raise NotKept(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], Any]]:
    """A function that counts bytes, with a progress bar on a terminal where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    with tqdm(desc=title, total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """`function()`, or a TimeoutError: a socket's timeout does not cover the look-up of the host's name."""
    answer: queue.SimpleQueue = queue.SimpleQueue()
    late = threading.Event()

    def run() -> None:
        try:
            result = function()
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answer.put((None, error))
        else:
            answer.put((result, None))
            if late.is_set():
                result.close()

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:  # a browser starts no threads
        return function()
    try:
        result, error = answer.get(timeout=seconds + 0.1)
    except queue.Empty:
        late.set()
        raise TimeoutError("does not answer") from None
    if error is not None:
        raise error
    return result


def _sweep(folder: Path) -> None:
    for part in folder.glob("*.part"):
        try:
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
        except OSError:  # another process was faster
            continue
