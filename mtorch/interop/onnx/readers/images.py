"""Convolution, pooling and resizing."""

import math
from typing import Any

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.reader import Known, Live, Reader, Shape, Unsupported, names
from mtorch.interop.onnx.readers.shapes import padded

Pads = tuple[tuple[int, int], ...]
MOST = 2**20  # of a stride, a padding, a dilation


def geometry(node: Operation, x: Any, kernel: tuple[int, ...], transposed: bool = False) -> tuple[tuple, tuple, Pads]:
    """(strides, dilations, (before, behind) for each axis)."""
    rank = len(kernel)
    if rank not in (1, 2):
        raise Unsupported(f"{rank} dimensions: ours has one and two")
    strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
    pads = node.ints("pads", (0,) * 2 * rank)
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise OnnxError(f"{node} expected strides, dilations and pads for {rank} axes")
    if min(*strides, *dilations, *kernel) < 1 or min(pads) < 0 or max(*strides, *dilations, *kernel, *pads) > MOST:
        raise OnnxError(f"{node} has strides {strides}, dilations {dilations}, pads {pads} and a kernel of {kernel}")
    auto = node.option("auto_pad", str, "NOTSET")
    if auto in ("NOTSET", "VALID", ""):
        return strides, dilations, tuple(zip(pads[:rank], pads[rank:], strict=True))
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise OnnxError(f"{node} expected a known auto_pad")
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if transposed:
        total = [max(k - s, 0) for k, s in zip(spread, strides, strict=True)]
    elif max(strides) == 1:
        total = [k - 1 for k in spread]
    elif x.shape is None or None in x.shape[2:]:
        raise Unsupported("auto_pad with a stride, for an image whose size is not known")
    else:
        rows = zip(x.shape[2:], strides, spread, strict=True)
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in rows]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    sides = (small, large) if auto == "SAME_UPPER" else (large, small)
    return strides, dilations, tuple(zip(*sides, strict=True))


def out_shape(x: Any, channels: int | None, kernel: tuple, strides: tuple, dilations: tuple, pads: Pads) -> Shape:
    if x.shape is None:
        return (None,) * (len(kernel) + 2)
    sizes = [
        None if n is None else (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, d, p in zip(x.shape[2:], kernel, strides, dilations, pads, strict=False)
    ]
    return (x.shape[0], x.shape[1] if channels is None else channels, *sizes)


def weights(r: Reader, node: Operation) -> tuple[Known, Known | None]:
    weight, bias = r.needs(node, 1), r.value(node, 2)
    if not isinstance(weight, Known) or not isinstance(bias, Known | None):
        raise Unsupported("its weight or bias is known at run time only")
    if weight.rank < 3 or 0 in weight.shape or weight.shape[2:] != node.ints("kernel_shape", weight.shape[2:]):
        raise OnnxError(f"{node} expected a weight for its kernel, got shape {weight.shape}")
    return weight, bias


def convolution(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    weight, bias = weights(r, node)
    kernel, groups = weight.shape[2:], node.option("group", int, 1)
    strides, dilations, pads = geometry(node, x, kernel)
    shape = out_shape(x, len(weight.array), kernel, strides, dilations, pads)
    total = tuple(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    padding: Any = tuple(before for before, _ in pads)
    if any(before != behind for before, behind in pads):
        if max(strides) == 1 and pads == tuple((t // 2, t - t // 2) for t in total):
            padding = "same"
        else:
            x, padding = padded(r, x, ((0, 0), (0, 0), *pads)), 0
    cls = (layers.Conv1d, layers.Conv2d)[len(kernel) - 1]

    def make() -> Any:
        sizes = weight.shape[1] * groups, len(weight.array), kernel, strides, padding, dilations, groups
        return r.hold(cls(*sizes, bias is not None, dtype=r.dtype, rng=0), weight=weight, bias=bias)

    key = ("Conv", *names(weight, bias), strides, padding, dilations, groups)
    return r.add(r.cached(key, make), x, shape=shape)


def transposed(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    weight, bias = weights(r, node)
    kernel, groups = weight.shape[2:], node.option("group", int, 1)
    strides, dilations, pads = geometry(node, x, kernel, transposed=True)
    more, wanted = node.ints("output_padding"), node.ints("output_shape")
    if wanted is not None:
        if x.shape is None or None in x.shape[2:] or len(wanted) != len(kernel):
            raise Unsupported("an output_shape for an image whose size is not known")
        whole = zip(x.shape[2:], kernel, strides, dilations, wanted, strict=True)
        spare = [(n - 1) * s + d * (k - 1) + 1 - m for n, k, s, d, m in whole]
        if "pads" not in node.attributes:
            pads = tuple((max(t, 0) // 2,) * 2 for t in spare)
        more = tuple(sum(p) - t for p, t in zip(pads, spare, strict=True))
    more = (0,) * len(kernel) if more is None else more
    if any(before != behind for before, behind in pads):
        raise Unsupported("padding that differs between the two sides")
    if any(not 0 <= n < s for n, s in zip(more, strides, strict=True)):
        raise Unsupported("an output that no output_padding below the stride gives")
    padding = tuple(before for before, _ in pads)
    cls = (layers.ConvTranspose1d, layers.ConvTranspose2d)[len(kernel) - 1]

    def make() -> Any:
        sizes = len(weight.array), weight.shape[1] * groups, kernel, strides, padding, more, groups
        return r.hold(cls(*sizes, bias is not None, dilations, dtype=r.dtype, rng=0), weight=weight, bias=bias)

    key = ("ConvTranspose", *names(weight, bias), strides, padding, dilations, groups, more)
    shape = (None if x.shape is None else x.shape[0], weight.shape[1] * groups, *[None] * len(kernel))
    return r.add(r.cached(key, make), x, shape=shape)


def pool(kind: str) -> Any:
    """The reader of MaxPool or AveragePool."""

    def read(r: Reader, node: Operation) -> Any:
        x, kernel = r.needs(node, 0), node.ints("kernel_shape")
        if not kernel:
            raise OnnxError(f"{node} expected a kernel_shape")
        if any(r.uses[name] for name in node.outputs[1:]):
            raise Unsupported("where each maximum stands is read")
        strides, dilations, pads = geometry(node, x, kernel)
        own: dict[str, Any] = {"ceil_mode": bool(node.option("ceil_mode", int, 0))}
        counts_pad = bool(node.option("count_include_pad", int, 0))
        if kind == "Max":
            own["dilation"] = dilations
        elif max(dilations) > 1:
            raise Unsupported("an average over a dilated window: ours, as torch's, has none")
        else:
            own["count_include_pad"] = counts_pad
        shape = None if own["ceil_mode"] else out_shape(x, None, kernel, strides, dilations, pads)
        shape = (None,) * (len(kernel) + 2) if shape is None else shape
        uneven = any(a != b or 2 * a > k for (a, b), k in zip(pads, kernel, strict=True))
        if uneven:
            if kind == "Avg" and (not counts_pad or own["ceil_mode"]):
                raise Unsupported(
                    "padding that does not count and differs between the sides, or is over half the kernel"
                )
            x = padded(r, x, ((0, 0), (0, 0), *pads), value=0.0 if kind == "Avg" else -math.inf)
        padding = 0 if uneven else tuple(before for before, _ in pads)
        layer = getattr(layers, f"{kind}Pool{len(kernel)}d")(kernel, strides, padding, dtype=r.dtype, **own)
        return (r.add(layer, x, shape=shape), *[None] * (len(node.outputs) - 1))

    return read


def global_pool(cls: Any) -> Any:
    def read(r: Reader, node: Operation) -> Live:
        x, rank = r.needs(node, 0), r.rank(node)
        shape = None if x.shape is None else (*x.shape[:2], *[1] * (rank - 2))
        if cls is layers.Mean and rank == 4:
            return r.add(layers.AdaptiveAvgPool2d(1, dtype=r.dtype), x, shape=shape)
        return r.add(cls(tuple(range(2, rank)), keepdims=True, dtype=r.dtype), x, shape=shape)

    return read


def resize(r: Reader, node: Operation) -> Live:
    """An Upsample of images or sequences, which counts positions in torch's two ways."""
    x = r.needs(node, 0)
    first = 1 if r.opset < 11 else 2
    scales, sizes = r.known(node, first), r.numbers(node, 3)
    if scales is not None and not scales.size:
        scales = None
    mode = node.option("mode", str, "nearest")
    grid = node.option("coordinate_transformation_mode", str, "asymmetric" if r.opset < 11 else "half_pixel")
    given: Any = sizes if scales is None else tuple(scales.reshape(-1).astype(float).tolist()[:8])
    if given is None:
        raise OnnxError(f"{node} expected scales or sizes")
    if mode == "cubic" or node.option("antialias", int, 0):
        raise Unsupported("cubic interpolation or antialiasing")
    if node.option("keep_aspect_ratio_policy", str, "stretch") != "stretch":
        raise Unsupported("a size that keeps the aspect ratio: ours is given")
    given = _of_the_image(r, node, x, given, scales is not None)
    known = x.shape is not None and None not in x.shape[2:]
    ratios = given
    if scales is None:
        if not known:
            raise Unsupported("a size, for an image whose own size is not known")
        ratios = tuple(n / m for n, m in zip(given, x.shape[2:], strict=True))
    options = _upsample_options(node, mode, grid, ratios, known, x)
    if min(given) <= 0 or max(given) > MOST:
        raise OnnxError(f"{node} expected scales or sizes above 0, got {given}")
    if scales is None:
        out = given
    else:
        out = tuple(int(n * s) for n, s in zip(x.shape[2:], given, strict=True)) if known else (None,) * len(given)
    shape = (*(x.shape[:2] if x.shape is not None else (None, None)), *out)
    return r.add(
        layers.Upsample(**({"size": given} if scales is None else {"scale_factor": given}), **options, dtype=r.dtype),
        x, shape=shape,
    )  # fmt: skip


def _of_the_image(r: Reader, node: Operation, x: Any, given: tuple[Any, ...], are_scales: bool) -> tuple[Any, ...]:
    """The sizes or scales of the axes behind samples and channels."""
    axes = node.ints("axes")
    rank = x.rank if x.rank is not None else len(given) if axes is None else None
    if rank not in (3, 4):
        raise Unsupported("neither a sequence nor an image")
    if axes is None:
        if len(given) != rank or (are_scales and given[:2] != (1.0, 1.0)):
            raise Unsupported("samples or channels that are resized")
        return given[2:]
    axes = tuple(r.axis(node, axis, rank) for axis in axes)
    if set(axes) != set(range(2, rank)) or len(given) != len(axes):
        raise Unsupported("other axes than those of the image")
    return tuple(given[axes.index(axis)] for axis in range(2, rank))


def _upsample_options(node: Operation, mode: str, grid: str, ratios: tuple, known: bool, x: Any) -> dict[str, Any]:
    """The options of Upsample."""
    if mode == "nearest":
        nearest = node.option("nearest_mode", str, "round_prefer_floor")
        whole = all(ratio == int(ratio) for ratio in ratios) and nearest in ("round_prefer_floor", "floor")
        if grid == "align_corners" or not (whole or (grid == "asymmetric" and nearest == "floor")):
            raise Unsupported("a nearest entry that is rounded in another way: ours, as torch's, is floor(i r)")
        return {"mode": "nearest"}
    if grid not in ("half_pixel", "align_corners"):
        raise Unsupported("other positions than torch's two")
    if grid == "align_corners" and any(ratio != int(ratio) for ratio in ratios):
        if not known or any(n * ratio != int(n * ratio) for n, ratio in zip(x.shape[2:], ratios, strict=True)):
            raise Unsupported("corners of an output of a broken size: ours has a whole one")
    return {"mode": "linear" if len(ratios) == 1 else "bilinear", "align_corners": grid == "align_corners"}


READERS: dict[str, Any] = {
    "Conv": convolution,
    "ConvTranspose": transposed,
    "MaxPool": pool("Max"),
    "AveragePool": pool("Avg"),
    "GlobalAveragePool": global_pool(layers.Mean),
    "GlobalMaxPool": global_pool(layers.Max),
    "Resize": resize,
}
