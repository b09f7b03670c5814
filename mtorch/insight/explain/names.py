"""The names that can be explained, by family. README, the catalogue and `python -m mtorch explain` share them."""

import difflib
import inspect
import re

import mtorch
from mtorch import layers, losses, optim
from mtorch.layer import Layer
from mtorch.losses.base import Loss, LossFunction
from mtorch.optim.base import Optimizer
from mtorch.optim.schedules import Schedule

CONTAINERS = "Sequential Residual Fork Parallel Graph Module Recurrent Bidirectional DataParallel".split()
BASES: tuple[type, ...] = (Layer, LossFunction, Optimizer, Schedule)


def families() -> dict[str, dict[str, type]]:
    """Class by name, by family: the headings of `mtorch/layers/__init__.py`, then containers, losses, optimizers."""
    found: dict[str, dict[str, type]] = {}
    for part in inspect.getsource(layers).split("\n# ")[1:]:
        heading, _, lines = part.partition("\n")
        if heading != "Other names":
            found[heading] = {name: getattr(layers, name) for name in re.findall(r"(\w+) as \w+", lines)}
    found["Containers"] = {name: getattr(mtorch, name) for name in CONTAINERS}
    final = {name: getattr(losses, name) for name in losses.__all__}
    found["Losses"] = {name: cls for name, cls in final.items() if cls not in (Loss, LossFunction)}
    rules = {name: getattr(optim, name) for name in ("SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW")}
    rules |= {name: cls for name, cls in vars(optim).items() if isinstance(cls, type) and cls is not Optimizer}
    found["Optimizers"] = rules
    found["Schedules"] = {
        name: cls
        for name, cls in vars(optim.schedules).items()
        if isinstance(cls, type) and issubclass(cls, Schedule) and cls is not Schedule
    }
    return found


def subclasses(cls: type) -> list[type]:
    """The classes of the package below this one, in the order in which they were defined."""
    found: dict[type, None] = {}
    below: list[type] = cls.__subclasses__()
    for sub in below:
        if sub.__module__.startswith("mtorch."):
            found |= dict.fromkeys([sub, *subclasses(sub)])
    return list(found)


def every_name() -> dict[str, type]:
    """All that can be explained: the families, other names of the same classes, and the classes that they extend."""
    found = {name: cls for family in families().values() for name, cls in family.items()}
    found |= {cls.__name__: cls for base in BASES for cls in [base, *subclasses(base)] if cls.__name__ not in found}
    found |= {name: cls for name, cls in vars(layers).items() if isinstance(cls, type) and issubclass(cls, Layer)}
    found["Loss"] = Loss
    return {name: cls for name, cls in found.items() if not name.startswith("_")}


def find(name: str) -> type:
    """The class of that name, in upper or lower case; LookupError with the nearest names for any other."""
    known = every_name()
    last = name.removeprefix("mtorch.").rpartition(".")[2]
    if last in known:
        return known[last]
    folded = {other.casefold(): other for other in known}
    plain = last.casefold().replace("_", "").replace("-", "")
    if plain in folded:
        return known[folded[plain]]
    near = difflib.get_close_matches(plain, folded, n=4, cutoff=0.5)
    near += [other for other in folded if len(plain) > 2 and plain in other and other not in near][: 4 - len(near)]
    hint = f": did you mean {', '.join(folded[other] for other in near)}?" if near else ""
    hint = hint or "; python -m mtorch explain lists them all"
    raise LookupError(f"mtorch has no layer, loss, optimizer or schedule named {name!r}{hint}")


def example_of(cls: type) -> type:
    """The class itself, or for one that others extend the first of those: it has the example that its page shows."""
    if cls is Loss:
        return losses.MSELoss
    below: dict[str, type] = {
        each.__name__: each for each in subclasses(cls) if not subclasses(each) and not each.__name__.startswith("_")
    }
    return next((below[name] for name in FIRST if name in below), next(iter(below.values()), cls))


FIRST = ("Tanh", "Sequential", "MSELoss", "SGD", "StepLR")  # shown for Layer, Container, LossFunction, ...
