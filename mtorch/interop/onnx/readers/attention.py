"""Attention without projections."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import OnnxReshape
from mtorch.interop.onnx.reader import Known, Reader, Unsupported
from mtorch.interop.onnx.readers.elementwise import of_two, scaled
from mtorch.interop.onnx.readers.norms import of_two_matrices
from mtorch.layers.attention import forbidden


def attention(r: Reader, node: Operation) -> Any:
    """softmax(scale q k^T + mask) v for each head, written out in products and a softmax."""
    mask, lengths = r.value(node, 3), r.value(node, 6)
    if len(node.outputs) > 3 and node.outputs[3]:
        raise Unsupported("its scores are read")
    flat = r.rank(node) == 3
    query, key, value, past = _inputs(r, node, flat)
    present = [] if past is None else [key, value]
    n, heads, length, depth = query.shape
    size = key.shape[2]
    if key.shape[1] != heads:
        if heads % key.shape[1]:
            raise OnnxError(f"{node} expected heads that the heads of keys divide")
        key, value = (_repeated(r, x, heads // x.shape[1]) for x in (key, value))
    turned = r.add(layers.Transpose((0, 1, 3, 2), dtype=r.dtype), key, shape=(n, heads, key.shape[3], size))
    scores = of_two_matrices(r, scaled(r, query, node.option("scale", float, depth**-0.5)), turned)
    cap = node.option("softcap", float, 0.0)
    if cap:
        scores = scaled(r, r.add(layers.Tanh(dtype=r.dtype), scaled(r, scores, 1 / cap), shape=scores.shape), cap)
    blocked = _blocked(r, node, lengths, length, size, past or 0)
    if blocked.any():
        r.budget(blocked.size, r.dtype.itemsize)
        scores = of_two(r, layers.Add, scores, _constant(numpy.where(blocked, forbidden(r.dtype), 0), r))
    if mask is not None:
        scores = _masked(r, scores, mask, size)
    if mask is None and not blocked.any():
        p = r.add(layers.Softmax(dtype=r.dtype), scores, shape=scores.shape)
    else:
        p = _masked_softmax(r, scores)
    y = of_two_matrices(r, p, value)
    if flat:
        y = r.add(layers.Transpose((0, 2, 1, 3), dtype=r.dtype), y)
        y = r.add(OnnxReshape((0, 0, -1), dtype=r.dtype), y, shape=(n, length, heads * value.shape[3]))
    return (y, *present, *[None] * (len(node.outputs) - 1 - len(present)))


def _inputs(r: Reader, node: Operation, flat: bool) -> tuple[Any, Any, Any, int | None]:
    """Queries, keys and values (N, heads, T, d), and how many steps of the last two were known before (None: none)."""
    query, key, value = (r.needs(node, i) for i in range(3))
    if flat:
        heads, kv_heads = node.option("q_num_heads", int, 0), node.option("kv_num_heads", int, 0)
        if min(heads, kv_heads) < 1:
            raise OnnxError(f"{node} expected q_num_heads and kv_num_heads")
        query, key, value = (_split(r, x, n) for x, n in ((query, heads), (key, kv_heads), (value, kv_heads)))
    past, past_key, past_value = None, r.value(node, 4), r.value(node, 5)
    if past_key is not None and past_value is not None:
        if past_key.shape is None or past_key.shape[2] is None:
            raise Unsupported("the number of steps before is not known")
        past = past_key.shape[2]
        key, value = (_behind(r, *pair) for pair in ((past_key, key), (past_value, value)))
    if any(x.shape is None or x.rank != 4 or None in x.shape for x in (query, key, value)):
        raise Unsupported("the sizes of its inputs are not known")
    return query, key, value, past


def _constant(array: Any, r: Reader) -> Known:
    return Known(numpy.asarray(array, r.dtype))


def _split(r: Reader, x: Any, heads: int) -> Any:
    """(N, T, heads d) as (N, heads, T, d)."""
    shape = None
    if x.shape is not None:
        n, steps, width = x.shape
        shape = (n, heads, steps, None if width is None else width // heads)
    parts = r.add(OnnxReshape((0, 0, heads, -1), dtype=r.dtype), x)
    return r.add(layers.Transpose((0, 2, 1, 3), dtype=r.dtype), parts, shape=shape)


def _behind(r: Reader, past: Any, x: Any) -> Any:
    steps = None if x.shape is None or x.shape[2] is None else past.shape[2] + x.shape[2]
    shape = None if x.shape is None else (*x.shape[:2], steps, x.shape[3])
    return r.add(layers.Concat(2, dtype=r.dtype), past, x, shape=shape)


def _repeated(r: Reader, x: Any, times: int) -> Any:
    """Each head `times` times: several heads of queries share one of keys."""
    r.budget(x.shape[1] * times, 8)
    ids = numpy.repeat(numpy.arange(x.shape[1]), times)
    shape = (x.shape[0], len(ids), *x.shape[2:])
    return r.add(layers.Slice((slice(None), ids), dtype=r.dtype), x, shape=shape)


def _masked(r: Reader, scores: Any, mask: Any, size: int) -> Any:
    if mask.shape is not None and mask.shape[-1] != size:
        raise Unsupported("a mask shorter than the keys")
    is_bool = mask.array.dtype.kind == "b" if isinstance(mask, Known) else mask.kind == "b"
    if is_bool:  # True is "may see"
        low = numpy.asarray(forbidden(r.dtype), r.dtype)
        return r.add(layers.Where(dtype=r.dtype), mask, scores, low, shape=scores.shape)
    return of_two(r, layers.Add, scores, mask)


def _masked_softmax(r: Reader, scores: Any) -> Any:
    """A query that may see no key has a row of 0: its exponentials are 0, and so is their sum, which else is >= 1."""
    shape = None if scores.shape is None else (*scores.shape[:-1], 1)
    half = _constant(forbidden(r.dtype) / 2, r)
    top = of_two(r, layers.Maximum, r.add(layers.Max(-1, True, dtype=r.dtype), scores, shape=shape), half)
    difference = of_two(r, layers.Subtract, scores, top)
    e = r.add(layers.Exp(dtype=r.dtype), difference, shape=scores.shape)
    total = r.add(layers.Sum(-1, True, dtype=r.dtype), e, shape=shape)
    return of_two(r, layers.Divide, e, of_two(r, layers.Maximum, total, _constant(1.0, r)))


def _blocked(r: Reader, node: Operation, lengths: Any, length: int, size: int, past: int) -> numpy.ndarray:
    """Which keys a query may not see, whatever the mask says: (N or 1, 1, L, S)."""
    before = numpy.full((1, 1, 1, 1), past)
    r.budget(length * size, 8)
    blocked = numpy.zeros((1, 1, length, size), bool)
    if lengths is not None:
        if not isinstance(lengths, Known) or lengths.rank != 1:
            raise Unsupported("lengths that are known at run time only")
        r.budget(length * size * lengths.array.size, 8)
        ends = lengths.array.reshape(-1, 1, 1, 1)
        blocked = blocked | (numpy.arange(size) >= ends)
        before = ends - length
    distance = numpy.arange(length)[:, None] + before - numpy.arange(size)  # how far a key lies before its query
    if node.option("is_causal", int, 0):
        blocked = blocked | (distance < 0)
    for name, sign in (("left_window_size", 1), ("right_window_size", -1)):
        width = node.option(name, int, -1)
        if width >= 0:
            blocked = blocked | (sign * distance > width)
    return blocked


READERS: dict[str, Any] = {"Attention": attention}
