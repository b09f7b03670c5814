"""What a net is made of, as a table."""

from mtorch.checks import shown
from mtorch.layer import Layer


def count_parameters(layer: Layer, trainable_only: bool = False) -> int:
    """The number of parameter entries; a shared parameter counts once."""
    return sum(p.value.size for p in layer.parameters().values() if p.trainable or not trainable_only)


def summary(layer: Layer) -> str:
    """One line for each layer with its own parameters or without children: name, layer, parameters; then the total."""
    if not isinstance(layer, Layer):
        raise TypeError(f"summary expected a module or layer, got {shown(layer)}")
    rows = []
    seen: set[int] = set()
    for prefix, below in layer.walk():
        own = {name: p for name, p in below.parameters().items() if "." not in name and id(p) not in seen}
        if own or next(iter(below.children()), None) is None:
            rows.append((prefix.rstrip(".") or "-", repr(below), sum(p.value.size for p in own.values())))
            seen |= {id(p) for p in own.values()}
    widths = [max(len(str(row[i])) for row in [*rows, ("name", "layer", "parameters")]) for i in range(2)]
    lines = [f"{name:<{widths[0]}}  {text:<{widths[1]}}  {count:>10,}" for name, text, count in rows]
    head = f"{'name':<{widths[0]}}  {'layer':<{widths[1]}}  {'parameters':>10}"
    frozen = count_parameters(layer) - count_parameters(layer, trainable_only=True)
    total = f"{count_parameters(layer):,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
    return "\n".join([head, "-" * len(head), *lines, "-" * len(head), total])
