"""Writes the names and keywords of the installed CuPy: `python tools/make_cupy_api.py [FILE ...]`.

CuPy imports without a GPU or a driver, so this runs anywhere. Each name of `cupy` and of the submodules below is
listed with "ufunc", or with the names of its arguments, or with null where it is no callable or shows no signature;
then come the attributes of `cupy.ndarray`. The strict array module (`mtorch.testing.strict`) refuses what is not in
the table. Without arguments it writes the one that the package ships.
"""

import inspect
import json
import sys
import warnings
from pathlib import Path

SUBMODULES = ("fft", "lib.stride_tricks", "linalg", "random")


def describe(item: object, ufunc: type) -> str | list[str] | None:
    if isinstance(item, ufunc):
        return "ufunc"
    if inspect.ismodule(item) or not callable(item):
        return None
    try:
        return [name for name in inspect.signature(item).parameters if name != "self"]
    except (TypeError, ValueError):
        return None


def table() -> dict[str, object]:
    import cupy
    import cupy.lib.stride_tricks  # not imported by `import cupy`

    names: dict[str, object] = {}
    for path in ("", *SUBMODULES):
        module, prefix = cupy, f"{path}." if path else ""
        for part in path.split(".") if path else ():
            module = getattr(module, part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # aliases that CuPy is about to remove
            found = {prefix + name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
        names |= {name: describe(item, cupy.ufunc) for name, item in found.items()}
    attributes = [name for name in dir(cupy.ndarray) if not name.startswith("__")]
    return {"cupy": cupy.__version__, "names": dict(sorted(names.items())), "ndarray": attributes}


def main(paths: list[str]) -> None:
    found = table()
    file = f"cupy_api_{'.'.join(found['cupy'].split('.')[:2])}.json"
    here = Path(__file__).resolve().parent
    for path in paths or [here.parent / "mtorch" / "testing" / file]:
        Path(path).write_text(json.dumps(found, indent=0))
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
