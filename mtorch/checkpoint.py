"""Saving and loading: a checkpoint is data. Loading never imports, calls or unpickles anything.

A file holds the state dict under its own names, so any reader of `.npz` or `.safetensors` can use it, and one entry
more, `__mtorch__`: a JSON text with the optimizer's state, the random layers' state and what the user added. Arrays in
there stand as entries of their own, named `__mtorch__.0`, `__mtorch__.1`, ... The text begins with the number of the
format. Format 1 had other names and numbers for what optimizers keep; they are converted (see `optim/state.py`).

A file is written beside its target and moved over it when it is whole and on the disk, so that a kill, a full disk or
a second writer never leaves half a checkpoint.
"""

import contextlib
import errno
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy

from mtorch import arrays
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer

if TYPE_CHECKING:
    import zipfile

RESERVED = "__mtorch__"
FORMAT = 2
_serial = itertools.count()


def save(path: str | os.PathLike, module: Layer, optimizer: Optimizer | None = None, **more: Any) -> None:
    """Writes parameters, buffers and random state of `module`, the state of `optimizer`, and `more`, atomically.

    path: `.safetensors` (needs that package) or, with any other suffix, the `.npz` format.
    more: numbers, strings, arrays, and dicts and lists of these; `load` returns them.
    """
    path = _path("save", path)
    _check("save", module, optimizer)
    entries = dict(module.state_dict())
    notes = {
        "format": FORMAT,
        "numpy": numpy.__version__,
        "dtype": module.dtype.name,
        "random": {prefix: state for prefix, layer in module.walk() if (state := layer.random_state())},
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "more": more,
    }
    text = json.dumps(_without_arrays(notes, entries, path.name))
    if path.suffix == ".safetensors":
        data = _as_safetensors(path, {name: numpy.asarray(a, order="C") for name, a in entries.items()}, text)
        write_atomically(path, lambda file: file.write(data))
    else:
        entries[RESERVED] = numpy.frombuffer(text.encode(), dtype=numpy.uint8)
        write_atomically(path, lambda file: numpy.savez(file, allow_pickle=False, **entries))


def load(path: str | os.PathLike, module: Layer, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Takes over what `save` wrote (or a plain file of arrays) and returns the `more` of it.

    Raises OSError when there is no such file, ValueError that names the file when it is damaged, no checkpoint, or
    does not fit `module` and `optimizer`; nothing is changed then.
    """
    path = _path("load", path)
    _check("load", module, optimizer)
    with open(path, "rb") as file:
        text, entries = (_read_safetensors if path.suffix == ".safetensors" else _read_npz)(path, file)
    notes = _notes(path, text, entries)
    if optimizer is not None and notes["optimizer"] is None:
        raise ValueError(f"{path.name}: it holds no optimizer state")
    before, optimizer_before = module.state_dict(), {} if optimizer is None else optimizer.state_dict()
    draws = [(prefix, layer, layer.random_state()) for prefix, layer in module.walk()]
    try:
        module.load_state_dict(entries)
        if optimizer is not None:
            optimizer.load_state_dict(notes["optimizer"])
        for prefix, layer, state in draws:
            layer.set_random_state(_random_state_of(prefix, notes["random"], state))
    except BaseException as error:
        module.load_state_dict(before)
        if optimizer is not None:
            optimizer.load_state_dict(optimizer_before)
        for _, layer, state in draws:
            layer.set_random_state(state)
        if isinstance(error, ValueError | TypeError):
            raise ValueError(f"{path.name}: {error}") from error
        raise
    return notes["more"]


def _random_state_of(prefix: str, states: dict[str, Any], default: dict[str, int]) -> Any:
    """The random state of that layer; files of version 0.1.0 call the dropout of attention `thin`."""
    if prefix not in states and prefix.endswith("dropout."):
        prefix = prefix.removesuffix("dropout.") + "thin."
    return states.get(prefix, default)


def read_notes(path: str | os.PathLike) -> dict[str, Any]:
    """The `more` of a checkpoint by itself, for a script that must know what to build before it can `load`."""
    path = _path("read_notes", path)
    with open(path, "rb") as file:
        text, entries = (_read_safetensors if path.suffix == ".safetensors" else _read_npz)(path, file)
    return _notes(path, text, entries)["more"]


# ---------------------------------------------------------------------- whole files or none


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then puts it in the place of `path`.

    A link stays: what it points to is written. What is no file (a folder, a device, a pipe) is an OSError.
    """
    asked, path = path, Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {Path(asked).name or asked}: it is a folder")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {Path(asked).name}: it is no regular file")
    _sweep(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.{next(_serial)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(part, path.stat().st_mode & 0o7777)
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename == str(part):
            error.filename = str(asked)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sweep(path: Path) -> None:
    """Removes what killed writers of this file left behind."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        pid = part.name.split(".")[-3]
        if pid.isdigit() and not _alive(int(pid)):
            part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# ---------------------------------------------------------------------- the two formats


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file provokes into one ValueError that names it."""
    import zipfile
    import zlib

    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # what comes of an offset that is no place in the file
            raise
        raise ValueError(f"{path.name} is damaged or no checkpoint: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path.name} is damaged or no checkpoint: {error}") from error


def _read_npz(path: Path, file: BinaryIO) -> tuple[str | None, dict[str, numpy.ndarray]]:
    import zipfile  # here and above, because it would be half the time of importing mtorch

    with _naming(path), zipfile.ZipFile(file) as archive:
        entries = {}
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise ValueError(f"it holds {info.filename!r}, which is no array")
            entries[info.filename.removesuffix(".npy")] = _read_member(archive, info)
        text = entries.pop(RESERVED, None)
        return (None if text is None else text.tobytes().decode()), entries


def _read_member(archive: "zipfile.ZipFile", info: "zipfile.ZipInfo") -> numpy.ndarray:
    """One array; its header is held against the member's size before anything is allocated."""
    with archive.open(info) as member:
        version = numpy.lib.format.read_magic(member)
        read_header = {(1, 0): numpy.lib.format.read_array_header_1_0, (2, 0): numpy.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{info.filename} has the unknown format version {version}")
        try:
            shape, fortran, dtype = read_header[version](member)
        except Exception as error:  # numpy lets through what Python's tokenizer raises
            raise ValueError(f"{info.filename} has a damaged header: {error}") from error
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        count = 1
        for n in shape:
            count *= n
        if count * dtype.itemsize != info.file_size - member.tell() or info.file_size > 2000 * (info.compress_size + 1):
            raise ValueError(f"{info.filename} announces {shape} {dtype}, which is not what it holds")
        data = member.read()
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"{info.filename} ends early")
    return numpy.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _read_safetensors(path: Path, file: BinaryIO) -> tuple[str | None, dict[str, numpy.ndarray]]:
    library = _safetensors()
    data = file.read()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.load(io.BytesIO(data[8 : 8 + size]))
        brief = [name for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "BF16"]
        if brief:  # NumPy has no bfloat16, which is the upper half of a float32: read as uint16
            text = json.dumps(header | {name: header[name] | {"dtype": "U16"} for name in brief}).encode()
            data = len(text).to_bytes(8, "little") + text + data[8 + size :]
        entries = library.load(data)
        for name in brief:
            entries[name] = (entries[name].astype("uint32") << 16).view("float32")
    except Exception as error:  # the library raises its own class, numpy's and Rust's panics
        raise ValueError(f"{path.name} is damaged or no checkpoint: {error}") from error
    return header.get("__metadata__", {}).get(RESERVED), entries


def _notes(path: Path, text: str | None, entries: dict[str, numpy.ndarray]) -> dict[str, Any]:
    """What stands beside the state dict, whose entries are left; a plain file of arrays has nothing there."""
    notes: dict[str, Any] = {"random": {}, "optimizer": None, "more": {}}
    if text is None:
        return notes
    with _naming(path):
        found = _with_arrays(json.loads(text), entries)
        if not isinstance(found, dict):
            raise ValueError("its notes are no dict")
        if not isinstance(found.get("format", FORMAT), int) or found.get("format", FORMAT) > FORMAT:
            raise ValueError(f"it has format {found['format']!r}, this version of mtorch reads up to {FORMAT}")
        notes |= found
        for name in ("random", "more"):
            if not isinstance(notes[name], dict):
                raise ValueError(f"its notes have {name} = {notes[name]!r}, expected a dict")
    return notes


def _as_safetensors(path: Path, entries: dict[str, numpy.ndarray], text: str) -> bytes:
    library = _safetensors()
    try:
        return library.save(entries, {RESERVED: text})
    except Exception as error:  # the library's own class, for dtypes it does not know
        raise TypeError(f"{path.name} cannot hold this, a name that ends in .npz could: {error}") from error


def _path(verb: str, path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{verb} expected a path, got {shown(path)}")
    return Path(path)


def _check(verb: str, module: Any, optimizer: Any) -> None:
    if not isinstance(module, Layer):
        raise TypeError(f"{verb} expected a module or layer after the path, got {shown(module)}")
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"{verb} expected an optimizer after the module, got {shown(optimizer)}")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("files ending in .safetensors need: pip install '.[safetensors]'") from None
    return safetensors.numpy


# ---------------------------------------------------------------------- arrays inside the notes


def _without_arrays(item: Any, entries: dict[str, numpy.ndarray], name: str) -> Any:
    """`item` ready for JSON; its arrays move to `entries`."""
    if isinstance(item, dict):
        if RESERVED in item or len(set(map(str, item))) < len(item):
            raise ValueError(f"{name} cannot hold a dict with the key {RESERVED!r}, or with keys of one text: {item!r}")
        return {str(key): _without_arrays(value, entries, name) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_without_arrays(value, entries, name) for value in item]
    if isinstance(item, numpy.generic):
        item = item.item() if item.dtype.itemsize <= 8 else numpy.asarray(item)
    if item is None or isinstance(item, bool | int | float | str):
        return item
    if not arrays.is_array(item, name) or item.dtype.hasobject:
        raise TypeError(f"{name} can hold numbers, strings and arrays, got {type(item).__name__}")
    key = f"{RESERVED}.{sum(entry.startswith(RESERVED) for entry in entries)}"
    entries[key] = arrays.as_numpy(item)
    return {RESERVED: key}


def _with_arrays(item: Any, entries: dict[str, numpy.ndarray]) -> Any:
    if isinstance(item, dict):
        if item.keys() == {RESERVED}:
            if not isinstance(item[RESERVED], str) or item[RESERVED] not in entries:
                raise ValueError(f"it lacks the array {item[RESERVED]!r}")
            return entries.pop(item[RESERVED])
        return {key: _with_arrays(value, entries) for key, value in item.items()}
    return [_with_arrays(value, entries) for value in item] if isinstance(item, list) else item
