"""Saving and loading: a checkpoint is data. Loading never imports, calls or unpickles anything.

A file holds the state dict under its own names, so any reader of `.npz` or `.safetensors` can use it, and one entry
more, `__mtorch__`: a JSON text with the optimizer's state, the random layers' state and what the user added. Arrays in
there stand as entries of their own, named `__mtorch__.0`, `__mtorch__.1`, ... The text begins with the number of the
format. Format 1 had other names and numbers for what optimizers keep; they are converted (see `optim/state.py`).

A file may come from anywhere. What it announces is held against what the module and the optimizer need before any of
it is unpacked, so that `load` allocates once what they hold, the notes, and little more; what does not fit is refused.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from mtorch.checkpoint.array_file import RESERVED, ArrayFile, naming, regular_file
from mtorch.checkpoint.atomic import write_atomically as write_atomically
from mtorch.checkpoint.notes import FORMAT, ArrayName, Notes, array_names, decode, encode, with_arrays
from mtorch.checkpoint.npz import NpzFile
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer
from mtorch.optim.schedules import Schedule


def save(path: str | os.PathLike, module: Layer, optimizer: Optimizer | None = None, **more: Any) -> None:
    """Writes parameters, buffers and random state of `module`, the state of `optimizer`, and `more`, atomically.

    path: `.safetensors` or, with any other suffix, the `.npz` format.
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
    text = encode(notes, entries, path.name)
    if path.suffix == ".safetensors":
        from mtorch.checkpoint import safetensors

        parts = safetensors.content(path.name, entries, text)
        write_atomically(path, lambda file: file.writelines(parts))
    else:
        if sum(len(name.encode()) + 100 for name in entries) > _longest_table(module):
            raise ValueError(f"{path.name} cannot hold {len(entries)} arrays: put some of those in `more` together")
        entries[RESERVED] = numpy.frombuffer(text.encode(), dtype=numpy.uint8)
        write_atomically(path, lambda file: numpy.savez(file, allow_pickle=False, **entries))


def load(path: str | os.PathLike, module: Layer, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Takes over what `save` wrote (or a plain file of arrays) and returns the `more` of it.

    Raises OSError when there is no such file, ValueError that names the file when it is damaged, no checkpoint, or
    does not fit `module` and `optimizer`; nothing is changed then.
    """
    path = _path("load", path)
    _check("load", module, optimizer)
    own = module._state()
    with _opened(path, _longest_table(module)) as file:
        with naming(path):
            notes = _notes(file)
            shapes = {name: file.header(name).shape for name in file.names if name in own}
            shapes |= dict.fromkeys(sorted(file.names - own.keys() - notes.names), ())
        with naming(path, ""):
            if optimizer is not None and notes.optimizer is None:
                raise ValueError("it holds no optimizer state")
            module._compare_state(shapes)
            state = None if optimizer is None else _state_of(optimizer, notes.optimizer, file)
        with naming(path):
            more, state = _with_arrays([notes.more, state], notes, file)
            for name in own:
                if file.header(name).dtype.kind not in "fiub":
                    raise ValueError(f"{name} has dtype {file.header(name).dtype}")
            entries = {name: file.read(name, item.value.dtype) for name, item in own.items()}
    with naming(path, ""):
        _take_over(module, entries, notes.random, optimizer, state)
    return more


def read_notes(path: str | os.PathLike) -> dict[str, Any]:
    """The `more` of a checkpoint by itself, for a script that must know what to build before it can `load`."""
    path = _path("read_notes", path)
    with _opened(path) as file, naming(path):
        notes = _notes(file)
        return _with_arrays(notes.more, notes, file)


def _longest_table(module: Layer) -> int:
    """How many bytes the table of contents of an archive for that module may have, its optimizer's and 10,000 more."""
    return 2**20 + 2048 * len(module._state())


@contextlib.contextmanager
def _opened(path: Path, longest_table: int | None = None) -> Iterator[ArrayFile]:
    """The file in its format.  longest_table: of an archive, in bytes; half of it, where nothing is said."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        with naming(path):
            if path.suffix == ".safetensors":
                from mtorch.checkpoint.safetensors import SafetensorsFile

                found: ArrayFile = SafetensorsFile(file, size)
            else:
                found = NpzFile(file, size, min(size // 2, longest_table or size))
        yield found


def _notes(file: ArrayFile) -> Notes:
    """What stands beside the state dict."""
    notes = decode(file.notes(), file.size)
    for name in notes.names:
        if not name.startswith(RESERVED) or name not in file.names:
            raise ValueError(f"it lacks the array {name!r}")
    return notes


def _with_arrays(item: Any, notes: Notes, file: ArrayFile) -> Any:
    """That part of the notes with its arrays."""
    size = sum(map(file.bytes_of, array_names(item)))
    if size > notes.memory:
        raise ValueError(f"its notes hold arrays of {size} bytes, which is too much for a file of {file.size}")
    return with_arrays(item, file.read)


def _state_of(optimizer: Optimizer, state: Any, file: ArrayFile) -> Any:
    """The state dict of the optimizer with its arrays; one of a parameter has its shape, and is read in its dtype."""
    named, wrong = optimizer.named, []
    left = dict.fromkeys(named, len(optimizer.slots))
    for key, item in state.items() if isinstance(state, dict) else ():
        path = key.rpartition(".")[0]
        if isinstance(item, ArrayName) and left.get(path):
            left[path] -= 1
            header, value = file.header(item.name), named[path].value
            if header.shape != value.shape or header.dtype.kind not in "fiub":
                wrong.append(f"{key} has shape {header.shape} and dtype {header.dtype}, expected shape {value.shape}")
            elif not wrong:
                state[key] = file.read(item.name, value.dtype)
    if wrong:
        raise ValueError(f"{type(optimizer).__name__} cannot load this state: {', '.join(wrong)}")
    return state


def _take_over(
    module: Layer, entries: dict[str, Any], random: dict[str, Any], optimizer: Optimizer | None, state: Any
) -> None:
    """Puts everything in its place, or nothing. The module comes last: what it gets was compared with it."""
    draws = [(prefix, layer, layer.random_state()) for prefix, layer in module.walk()]
    before = {} if optimizer is None else dict(vars(optimizer))

    def restore() -> None:
        for _, layer, own in draws:
            layer.set_random_state(own)
        if optimizer is not None:
            vars(optimizer).update(before)

    try:
        for prefix, layer, own in draws:
            layer.set_random_state(_random_state_of(prefix, random, own))
        if optimizer is not None:
            optimizer.load_state_dict(state)
            if isinstance(optimizer.lr, Schedule):
                optimizer.rate  # noqa: B018  a step count for which the schedule has no rate is refused here
    except BaseException:
        restore()
        raise
    try:
        module.load_state_dict(entries)
    except Exception:
        restore()
        raise
    except BaseException:  # Ctrl-C: all of it
        module.load_state_dict(entries)
        raise


def _random_state_of(prefix: str, states: dict[str, Any], default: dict[str, int]) -> Any:
    """The random state of that layer; files of version 0.1.0 call the dropout of attention `thin`."""
    if prefix not in states and prefix.endswith("dropout."):
        prefix = prefix.removesuffix("dropout.") + "thin."
    return states.get(prefix, default)


def _path(verb: str, path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{verb} expected a path, got {shown(path)}")
    return Path(path)


def _check(verb: str, module: Any, optimizer: Any) -> None:
    if not isinstance(module, Layer):
        raise TypeError(f"{verb} expected a module or layer after the path, got {shown(module)}")
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"{verb} expected an optimizer after the module, got {shown(optimizer)}")
