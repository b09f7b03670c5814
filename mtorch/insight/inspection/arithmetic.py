"""One entry of a layer's output, and one of each gradient, as sentences with their numbers."""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy

from mtorch import layers
from mtorch.layer import Layer
from mtorch.layers.activation import Activation
from mtorch.layers.conv import Conv
from mtorch.layers.elementwise import Elementwise
from mtorch.layers.pooling import AvgPool, MaxPool
from mtorch.layers.recurrent import Cell, RecurrentLayer

if TYPE_CHECKING:
    from mtorch.insight.inspection.records import Record, Sample

TERMS = 3  # of a long sum that are written out
SIGNS: dict[Any, str] = {layers.Add: "+", layers.Subtract: "−", layers.Multiply: "·", layers.Divide: "/"}


def worked(record: "Record") -> tuple[list[str], list[str]]:
    """Sentences with numbers of the first sample: one entry of the output, and one of each gradient."""
    layer, s = record.layer, record.sample
    if not s.y or not s.y[0].size or any(not part.size for part in s.x):
        return [], []
    if layer.moves_data:
        return _moved(s)
    with numpy.errstate(all="ignore"):
        try:
            forward, backward = _rule(layer)(layer, s)
        except (LookupError, TypeError, ValueError, ArithmeticError):  # no sample as the rule expects one
            forward, backward = [], []
        return forward or _first_entries("x", s.x, "y", s.y), backward or _first_entries(
            "g", s.grad, "dx", s.input_grad
        )


def _rule(layer: Layer) -> Any:
    """The function that writes the sentences for that layer."""
    return next((rule for kinds, rule in _RULES if isinstance(layer, kinds)), lambda layer, s: ([], []))


def _first_entries(name: str, values: Any, then: str, results: Any) -> list[str]:
    """Some entries of values and results, from the row with the largest: for layers that have no rule."""
    if not values or not results or not values[-1].size or not results[-1].size:
        return []
    value, result = values[-1], results[-1]
    row = numpy.unravel_index(int(numpy.nan_to_num(abs(value)).argmax()), value.shape)[:-1] if value.ndim else ()
    places = [row, row if value.shape[:-1] == result.shape[:-1] else ()]
    texts = []
    for each, array, place in zip((name, then), (value, result), places, strict=True):
        entries = [_total(v) for v in array[tuple(place)].reshape(-1)[:4]]
        at = _at(each, tuple(int(i) for i in place))
        texts.append(f"{at} = {', '.join(entries)}{', …' * (array[tuple(place)].size > 4)}")
    return ["  gives  ".join(texts)]


def _moved(s: "Sample") -> tuple[list[str], list[str]]:
    moved = "Nothing is computed: the same entries, in their places."
    return [moved], [moved.replace("entries", "gradients")] if s.input_grad else []


def digits(value: float) -> str:
    """Three digits, as a factor: a negative one in brackets."""
    text = f"{float(value) + 0:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"({text})" if text.startswith("−") else text


def _place(s: "Sample") -> tuple[int, ...]:
    """The entry of the output with the largest gradient, else with the largest value."""
    best = s.grad[0] if s.grad and s.grad[0].shape == s.y[0].shape and s.grad[0].any() else s.y[0]
    return tuple(int(i) for i in numpy.unravel_index(numpy.nanargmax(abs(best)) if best.any() else 0, best.shape))


def _at(name: str, place: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def _total(value: float) -> str:
    return digits(value).strip("()")


def _sum(pairs: list[tuple[float, float]], more: float | None = None) -> str:
    """a·b + c·d + ..., the largest products written out."""
    ordered = sorted(pairs, key=lambda pair: -abs(pair[0] * pair[1]))
    shown = TERMS if len(ordered) > TERMS + 1 else len(ordered)
    parts, rest = [f"{digits(a)}·{digits(b)}" for a, b in ordered[:shown]], ordered[shown:]
    if rest:
        total = _total(sum(a * b for a, b in rest))
        parts.append(f"{f'({total})' if total[0] == '−' else total} from {len(rest)} more")
    return " + ".join([*parts, *([] if more is None else [digits(more)])])


def _linear(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    values = {name: value for name, value, _ in s.parameters}
    weight, bias = values["weight"], values.get("bias")
    *row, h = _place(s)
    x, y = s.x[0][tuple(row)], s.y[0]
    b = None if bias is None else bias[h]
    left = f"{_at('y', (*row, h))} = Σ_d {_at('x', (*row, 'd'))}·W[{h}, d]{'' if b is None else f' + b[{h}]'}"
    pairs = list(zip(x, weight[h], strict=True))
    forward = [f"{left} = {_sum(pairs, b)} = {_total(y[(*row, h)])}"]
    if not s.grad:
        return forward, []
    g = s.grad[0][tuple(row)]
    d = int(abs(x).argmax())
    backward = [f"dW[{h}, {d}] gets {_at('g', (*row, h))}·{_at('x', (*row, d))} = {digits(g[h])}·{digits(x[d])}"]
    backward[0] += f" = {_total(g[h] * x[d])} from {'this row' if row else 'this sample'}"
    if s.input_grad:
        total = _total(s.input_grad[0][(*row, d)])
        pairs = list(zip(g, weight[:, d], strict=True))
        backward.append(f"{_at('dx', (*row, d))} = Σ_h {_at('g', (*row, 'h'))}·W[h, {d}] = {_sum(pairs)} = {total}")
    return forward, backward


def _window(layer: Any, image: numpy.ndarray, spot: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
    """(tap, entry of the image) for every tap of the window at that place of the output that is within the image."""
    window, found = layer.window, []
    for tap in numpy.ndindex(window.kernel):
        geometry = zip(spot, window.stride, window.padding, tap, window.dilation, strict=True)
        u, v = (place * stride - padding + t * apart for place, stride, padding, t, apart in geometry)
        if 0 <= u < image.shape[-2] and 0 <= v < image.shape[-1]:
            found.append((tap, (u, v)))
    return found


def _as_image(layer: Any, x: numpy.ndarray, place: tuple[int, ...]) -> tuple[numpy.ndarray, tuple[int, ...]]:
    """A sample (C, H, W), a sequence as one of height 1, and the place in it."""
    flat = (1,) * (2 - layer.rank)
    return x.reshape(x.shape[0], *flat, *x.shape[1:]), (0,) * (2 - layer.rank) + place[1:]


def _conv(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    if layer.sides:
        return [], []
    values = {name: value for name, value, _ in s.parameters}
    place = _place(s)
    image, spot = _as_image(layer, s.x[0], place)
    weight = values["weight"].reshape(len(values["weight"]), -1, *layer.window.kernel)
    o, inputs = place[0], weight.shape[1]
    first = o // (len(weight) // layer.groups) * inputs
    terms = [
        (float(image[first + c][entry]), float(weight[(o, c, *tap)]), (c, *tap[2 - layer.rank :]))
        for tap, entry in _window(layer, image, spot)
        for c in range(inputs)
    ]
    b = values["bias"][o] if "bias" in values else None
    text = f"{_at('y', place)} = Σ x·W{'' if b is None else ' + b'} over its window"
    forward = [f"{text} = {_sum([term[:2] for term in terms], b)} = {_total(s.y[0][place])}"]
    if not s.grad or not terms:
        return forward, []
    g, (x, _, entry) = s.grad[0][place], max(terms, key=lambda term: abs(term[0]))
    text = f"{_at('dW', (o, *entry))} gets {_at('g', place)}·x = {digits(g)}·{digits(x)} = {_total(g * x)}"
    return forward, [f"{text} from this place, one of {prod(s.y[0].shape[1:])}"]


def _pool(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    place = _place(s)
    image, spot = _as_image(layer, s.x[0], place)
    seen = [(float(image[place[0]][entry]), entry) for _, entry in _window(layer, image, spot)]
    name = "max" if isinstance(layer, MaxPool) else "mean"
    numbers = ", ".join([_total(x) for x, _ in seen[:9]] + ["…"] * (len(seen) > 9))
    forward = [f"{_at('y', place)} = {name}({numbers}) = {_total(s.y[0][place])}"]
    if not s.grad or not seen:
        return forward, []
    g, count = s.grad[0][place], prod(layer.window.kernel)
    if name == "mean":
        if len(seen) < count:
            return forward, []
        return forward, [f"each of them gets {_at('g', place)} / {count} = {_total(g)} / {count} = {_total(g / count)}"]
    _, entry = max(seen, key=lambda pair: pair[0])
    at = _at("dx", (place[0], *entry[2 - layer.rank :]))
    return forward, [f"{at}, the largest, gets {_at('g', place)} = {_total(g)}; the others get nothing"]


def _elementwise(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    if s.x[0].shape != s.y[0].shape:
        return [], []
    place, name = _place(s), type(layer).__name__
    x, y = s.x[0][place], s.y[0][place]
    if isinstance(layer, layers.Softmax | layers.LogSoftmax):
        behind = layer.axis if layer.axis < 0 else layer.axis - s.x[0].ndim - 1  # the batch axis, before it, is gone
        axis = range(s.x[0].ndim)[behind]
        line = numpy.moveaxis(s.x[0], axis, -1)[place[:axis] + place[axis + 1 :]]
        z, total = x - line.max(), numpy.exp(line - line.max()).sum()
        if isinstance(layer, layers.Softmax):
            text = f"exp({_total(z)}) / {digits(total)}"
        else:
            text = f"{_total(z)} − log {digits(total)}"
        return [f"{_at('y', place)} = {text} = {_total(y)}, the maximum {_total(line.max())} taken out first"], []
    forward = [f"{_at('y', place)} = {name}({_total(x)}) = {_total(y)}"]
    if not s.grad or not s.input_grad:
        return forward, []
    g, dx = s.grad[0][place], s.input_grad[0][place]
    slope = _total(dx / g) if g else "slope"
    return forward, [f"{_at('dx', place)} = {_at('g', place)}·dy/dx = {digits(g)}·{slope} = {_total(dx)}"]


def _dropout(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    x, y = s.x[0].reshape(-1), s.y[0].reshape(-1)
    if not layer.training or not layer.p:
        return ["y = x: nothing is dropped " + ("with p = 0." if layer.training else "in eval mode.")], ["dx = g"]
    kept = numpy.flatnonzero((y != 0) & (x != 0))[:1]
    gone = numpy.flatnonzero((y == 0) & (x != 0))[:1]
    scale = f"{1 / (1 - layer.p):.3g}" if layer.p < 1 else "0"
    lines = [f"entry {i} stays: y = {digits(x[i])}·{scale} = {_total(y[i])}" for i in kept]
    lines += [f"entry {i} is dropped: y = {digits(x[i])}·0 = 0" for i in gone]
    back = []
    if s.grad and s.input_grad:
        g, dx = s.grad[0].reshape(-1), s.input_grad[0].reshape(-1)
        back = [f"entry {i} stays: dx = {digits(g[i])}·{scale} = {_total(dx[i])}" for i in kept]
        back += [f"entry {i} was dropped: dx = {digits(g[i])}·0 = 0" for i in gone]
    return lines, back


def _operator(layer: Layer, s: "Sample") -> tuple[list[str], list[str]]:
    place, sign = _place(s), SIGNS[type(layer)]
    try:
        a, b = (numpy.broadcast_to(part, s.y[0].shape)[place] for part in s.x)
    except ValueError:  # samples of fewer axes, or one input that is both
        return [], []
    return [f"{_at('y', place)} = {digits(a)} {sign} {digits(b)} = {_total(s.y[0][place])}"], []


def _layer_norm(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    values = {name: value for name, value, _ in s.parameters}
    place, axes = _place(s), tuple(range(-len(layer.shape), 0))
    x, lead = s.x[0], _place(s)[: s.x[0].ndim - len(axes)]
    row, rest = x[lead], place[len(lead) :]
    mean, std = row.mean(), numpy.sqrt(row.var() + layer.eps)
    w, b = values["weight"][rest] if "weight" in values else 1.0, values["bias"][rest] if "bias" in values else 0.0
    text = f"{digits(w)}·({_total(row[rest])} − {digits(mean)}) / {digits(std)} + {digits(b)}"
    return [f"{_at('y', place)} = w·(x − mean) / std + b = {text} = {_total(s.y[0][place])}"], []


def _embedding(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    place, ids = _place(s), s.x[0]
    number = int(ids[place[:-1]])
    forward = [f"{_at('y', place)} = {_at('W', (number, place[-1]))} = {_total(s.y[0][place])}: the id is {number}"]
    return forward, [f"row {number} of dW gets the gradient of this place"] if s.grad else []


def _attention(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    if s.attention is None:
        return [], []
    query = _place(s)[0]
    row = s.attention[0, query]
    best = numpy.argsort(-row)[:TERMS]
    seen = ", ".join(f"{_total(row[key])} on key {key}" for key in best)
    return [f"head 0, query {query}: P = {seen}, {_total(row.sum() - row[best].sum())} on the others"], []


def _recurrent(layer: Any, s: "Sample") -> tuple[list[str], list[str]]:
    """The last step of the last unit: its gates, from x_t and the h before it."""
    cell = isinstance(layer, Cell)
    plain = cell or (layer.num_layers == layer.directions == 1 and not layer.return_state and len(s.y) == 1)
    if not plain or (not cell and (len(s.x) > 1 or len(s.y[0]) < 2)):
        return [], []
    values = {name.removesuffix("_l0"): value for name, value, _ in s.parameters}
    x, h = (s.x[-1], s.x[0]) if cell else (s.x[0][-1], s.y[0][-2])
    after = s.y[-1] if cell else s.y[0][-1]
    u = int(abs(after).argmax())
    a = values["weight_ih"] @ x + values.get("bias_ih", 0)
    b = values["weight_hh"] @ h + values.get("bias_hh", 0)
    gates = layer.gates
    a, b = a.reshape(gates, -1)[:, u], b.reshape(gates, -1)[:, u]
    result, t = _total(after[u]), "" if cell else f" (t = {len(s.y[0]) - 1})"
    if gates == 1:
        kind = getattr(layer, "nonlinearity", "tanh")
        return [f"unit {u}{t}: h' = {kind}({_total(a[0])} + {digits(b[0])}) = {result}"], []
    if gates == 3:
        r, z = 1 / (1 + numpy.exp(-(a[:2] + b[:2])))
        n = numpy.tanh(a[2] + r * b[2])
        text = f"h' = (1 − z) n + z h = {digits(1 - z)}·{digits(n)} + {digits(z)}·{digits(h[u])} = {result}"
        return [f"unit {u}{t}: r = {_total(r)}, z = {_total(z)}, n = {_total(n)};  {text}"], []
    i, f, o = 1 / (1 + numpy.exp(-(a + b)[[0, 1, 3]]))
    g = numpy.tanh(a[2] + b[2])
    names = ", ".join(f"{name} = {_total(v)}" for name, v in (("i", i), ("f", f), ("g", g), ("o", o)))
    return [f"unit {u}{t}: {names};  h' = o tanh(c') = {digits(o)}·{digits(after[u] / o)} = {result}"], []


_RULES: tuple[tuple[Any, Any], ...] = (
    (Activation | Elementwise, _elementwise),
    (layers.Linear, _linear),
    (Conv, _conv),
    (MaxPool | AvgPool, _pool),
    (layers.Dropout, _dropout),
    (tuple(SIGNS), _operator),
    (layers.LayerNorm, _layer_norm),
    (layers.Embedding, _embedding),
    (layers.MultiHeadAttention, _attention),
    (Cell | RecurrentLayer, _recurrent),
)
