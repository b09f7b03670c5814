"""PyTorch's own tables of samples, computed by our layers with the same weights.

`torch.testing._internal` keeps, for PyTorch's tests, constructor arguments and inputs for its modules, and inputs for
its functions. `MODULES[name](module, *inputs)` and `FUNCTIONS[name](*inputs)` say how mtorch computes one sample, as a
`Pair`, or raise `Unsupported` with the reason. `compare` then checks the results and the gradient of every tensor that
has one, with a random cotangent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from mtorch import layers, losses

DOUBLE = {"dtype": "float64"}


class Unsupported(Exception):
    """Why a sample is not one that our layer computes."""


@dataclass
class View:
    """A tensor whose axes our layer wants otherwise: `there` is applied to its array, `back` to its gradient."""

    tensor: Any
    there: Callable[[numpy.ndarray], numpy.ndarray]
    back: Callable[[numpy.ndarray], numpy.ndarray] = lambda grad: grad


@dataclass
class Pair:
    """Our layer or loss, what it takes (a tuple is structure), and its parameters and buffers by name.

    theirs: computes the sample with torch and returns the results in our order, where that is not the plain call.
    there, back: bring our output into torch's axes, and its gradient into ours.
    """

    ours: Any
    value: Any
    state: dict[str, Any] = field(default_factory=dict)
    theirs: Callable[[], Any] | None = None
    there: Callable[[numpy.ndarray], numpy.ndarray] = lambda y: y
    back: Callable[[numpy.ndarray], numpy.ndarray] = lambda grad: grad


# ---------------------------------------------------------------------- the comparison


def leaves(value):
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple | list) else [value]


def mapped(function, value):
    return tuple(mapped(function, part) for part in value) if isinstance(value, tuple | list) else function(value)


def host(leaf):
    """A tensor's array; a View's array in our axes; None and arrays as they are."""
    if isinstance(leaf, View):
        return leaf.there(host(leaf.tensor))
    return leaf.detach().numpy().copy() if isinstance(leaf, torch.Tensor) else leaf


def tensor_of(leaf):
    return leaf.tensor if isinstance(leaf, View) else leaf


def assert_close(got, tensor, what):
    """Within 1e-9 of the largest entry; axes of size 1 may be there or not, since torch takes single samples."""
    got, expected = numpy.asarray(got), host(tensor.to_dense())
    assert [n for n in got.shape if n != 1] == [n for n in expected.shape if n != 1], (what, got.shape, expected.shape)
    if numpy.isnan(expected).any():
        raise Unsupported("torch's answer is NaN")
    bound = 1e-9 * max(1.0, numpy.abs(expected).max(initial=0))
    numpy.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=0, atol=bound, err_msg=what)


def compare(pair, theirs):
    """How many arrays were compared: every output, and the gradient of every tensor that has one."""
    state = {name: tensor for name, tensor in pair.state.items() if tensor is not None}
    inputs = [tensor_of(leaf) for leaf in leaves(pair.value)]
    wanted = [t for t in [*inputs, *state.values()] if isinstance(t, torch.Tensor) and t.is_floating_point()]
    for tensor in wanted:
        if tensor.is_leaf and not any(tensor is state.get(name) for name in ("running_mean", "running_var")):
            tensor.requires_grad_()
    given = mapped(host, pair.value)
    if isinstance(pair.ours, losses.LossFunction):
        return compare_loss(pair.ours, given, leaves(pair.value[0]), pair.theirs or theirs)
    layer = pair.ours
    layer.load_state_dict(layer.state_dict() | {name: host(tensor) for name, tensor in state.items()})
    y = layer(given)
    outs = leaves((pair.theirs or theirs)())
    assert len(outs) == len(leaves(y)), (len(outs), len(leaves(y)))
    for got, out in zip(leaves(y), outs, strict=True):
        assert_close(pair.there(got), out, "output")
    cotangents = [torch.randn(out.shape, dtype=out.dtype) for out in outs]
    remaining = iter(cotangents)
    dx = layer.backward(mapped(lambda got: pair.back(host(next(remaining))).reshape(got.shape), y))
    ours = [
        leaf.back(g) if isinstance(leaf, View) else g for leaf, g in zip(leaves(pair.value), leaves(dx), strict=True)
    ]
    parameters = layer.parameters()
    ours += [parameters[name].grad if name in parameters else None for name in state]
    sought = [
        (t, g) for t, g in zip([*inputs, *state.values()], ours, strict=True) if getattr(t, "requires_grad", None)
    ]
    found = torch.autograd.grad(outs, [t for t, _ in sought], cotangents, allow_unused=True) if sought else ()
    for (tensor, got), expected in zip(sought, found, strict=True):
        assert_close(got, torch.zeros_like(tensor) if expected is None else expected, "gradient")
    for name in state.keys() - parameters.keys():
        assert_close(layer.state_dict()[name], state[name], name)  # running statistics, which torch has moved meanwhile
    return len(outs) + len(sought)


def compare_loss(loss_func, given, predictions, theirs):
    loss, out = loss_func(*given), theirs()
    assert_close(loss.value, out, "loss")
    cotangent = torch.randn(out.shape, dtype=out.dtype)
    found = torch.autograd.grad(out, [tensor_of(leaf) for leaf in predictions], cotangent)
    weights = host(cotangent).reshape(numpy.shape(loss.value))
    for leaf, grad, expected in zip(predictions, leaves(loss.grad), found, strict=True):
        got = grad * weights.reshape(weights.shape + (1,) * (grad.ndim - weights.ndim))
        assert_close(leaf.back(got) if isinstance(leaf, View) else got, expected, "gradient")
    return 1 + len(predictions)


# ---------------------------------------------------------------------- functions


FUNCTIONS: dict[str, Callable[..., Pair]] = {}


def function_of(*names):
    return lambda function: FUNCTIONS.update(dict.fromkeys(names, function)) or function


def batched(x, axes):
    """x with a batch axis; torch takes a single sample without one."""
    return x if x.ndim == axes else View(x, lambda a: a[None])


def spread(given, rank):
    given = tuple(given) if isinstance(given, tuple | list) else (given,)
    return given * rank if len(given) == 1 else given


@function_of("nn.functional.linear")
def linear(x, weight, bias=None):
    if 0 in weight.shape:
        raise Unsupported("a size of 0: refused at construction")
    layer = layers.Linear(*weight.shape[::-1], bias=bias is not None, **DOUBLE)
    return Pair(layer, x, {"weight": weight, "bias": bias})


@function_of("nn.functional.conv1d", "nn.functional.conv2d")
def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    rank = weight.ndim - 2
    padding = padding if isinstance(padding, str) else spread(padding, rank)
    if 0 in (weight.shape[0], weight.shape[1]):
        raise Unsupported("no channels: refused at construction")
    cls, kernel, channels = (layers.Conv1d, layers.Conv2d)[rank - 1], tuple(weight.shape[2:]), weight.shape[1] * groups
    layer = cls(
        channels, weight.shape[0], kernel, spread(stride, rank), padding, spread(dilation, rank), groups,
        bias is not None, padding_mode, **DOUBLE,
    )  # fmt: skip
    return Pair(layer, batched(x, rank + 2), {"weight": weight, "bias": bias})


@function_of("nn.functional.conv_transpose1d", "nn.functional.conv_transpose2d")
def conv_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    rank = weight.ndim - 2
    if any(more >= s for more, s in zip(spread(output_padding, rank), spread(stride, rank), strict=True)):
        raise Unsupported("output_padding of a stride or more, which torch takes where the dilation is larger: refused")
    if 0 in weight.shape:
        raise Unsupported("no channels: refused at construction")
    layer = (layers.ConvTranspose1d, layers.ConvTranspose2d)[rank - 1](
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), spread(stride, rank),
        spread(padding, rank), spread(output_padding, rank), groups, bias is not None, spread(dilation, rank), **DOUBLE,
    )  # fmt: skip
    return Pair(layer, batched(x, rank + 2), {"weight": weight, "bias": bias})


def avg_pool(rank):
    def pair(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        kernel, padding = spread(kernel_size, rank), spread(padding, rank)
        if divisor_override is not None:
            raise Unsupported("divisor_override: ours divides by the size of the window")
        stride = kernel if stride is None or stride == [] or stride == () else spread(stride, rank)
        layer = (layers.AvgPool1d, layers.AvgPool2d)[rank - 1](
            kernel, stride, padding, ceil_mode, count_include_pad, **DOUBLE
        )
        return Pair(layer, batched(x, rank + 2))

    return pair


def max_pool(rank):
    def pair(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        kernel, padding = spread(kernel_size, rank), spread(padding, rank)
        stride = kernel if stride is None or stride == [] or stride == () else spread(stride, rank)
        layer = (layers.MaxPool1d, layers.MaxPool2d)[rank - 1](
            kernel, stride, padding, spread(dilation, rank), ceil_mode=ceil_mode, **DOUBLE
        )
        function = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d)[rank - 1]
        return Pair(
            layer, batched(x, rank + 2), theirs=lambda: function(x, kernel, stride, padding, dilation, ceil_mode)
        )

    return pair


for _rank in (1, 2):
    FUNCTIONS[f"nn.functional.avg_pool{_rank}d"] = avg_pool(_rank)
    FUNCTIONS[f"nn.functional.max_pool{_rank}d"] = max_pool(_rank)


@function_of("nn.functional.adaptive_avg_pool2d")
def adaptive_avg_pool(x, output_size):
    given = spread(output_size, 2)
    size = tuple(n if own is None else own for own, n in zip(given, x.shape[-2:], strict=True))
    return Pair(layers.AdaptiveAvgPool2d(size, **DOUBLE), batched(x, 4))


@function_of("nn.functional.interpolate")
def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None, **options):
    if mode not in ("nearest", "linear", "bilinear") or x.ndim > 4 or any(options.values()):
        raise Unsupported("cubic, area and volume interpolation, antialiasing, recomputed factors")
    return Pair(layers.Upsample(size, scale_factor, mode, align_corners, **DOUBLE), x)


@function_of("nn.functional.upsample_nearest")
def upsample_nearest(x, size=None, scale_factor=None):
    return interpolate(x, size, scale_factor)


@function_of("nn.functional.upsample_bilinear")
def upsample_bilinear(x, size=None, scale_factor=None):
    return interpolate(x, size, scale_factor, "bilinear", True)


@function_of("nn.functional.batch_norm")
def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if x.ndim not in (2, 3, 4):
        raise Unsupported("neither (N, C), (N, C, T) nor (N, C, H, W)")
    if (weight is None) != (bias is None):
        raise Unsupported("a weight without a bias: ours has both or none")
    if momentum is not None and not 0 <= momentum <= 1:
        raise Unsupported("a momentum outside [0, 1]: refused at construction")
    if eps < 0:
        raise Unsupported("a negative eps: refused at construction")
    channels = x.shape[1]
    cls = layers.BatchNorm2d if x.ndim == 4 else layers.BatchNorm1d
    layer = cls(channels, eps, momentum, weight is not None, **DOUBLE).train(training or running_mean is None)
    if layer.training and x.numel() == 0:
        raise Unsupported("a batch of none in training: an error here")
    return Pair(layer, x, {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var})


def norm(cls):
    def pair(x, normalized_shape, weight=None, bias=None, eps=None):
        if eps is not None and eps < 0:
            raise Unsupported("a negative eps: refused at construction")
        if weight is None and bias is not None:
            raise Unsupported("a bias without a weight: ours has none")
        options = {} if cls is layers.RMSNorm else {"bias": bias is not None}
        options |= {} if eps is None else {"eps": eps}
        layer = cls(tuple(normalized_shape), elementwise_affine=weight is not None, **options, **DOUBLE)
        return Pair(layer, x, {"weight": weight, "bias": bias})

    return pair


layer_norm = function_of("nn.functional.layer_norm")(norm(layers.LayerNorm))


@function_of("nn.functional.rms_norm")
def rms_norm(x, normalized_shape, weight=None, eps=None):
    return norm(layers.RMSNorm)(x, normalized_shape, weight, None, eps)


@function_of("nn.functional.group_norm")
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    if eps < 0:
        raise Unsupported("a negative eps: refused at construction")
    if (weight is None) != (bias is None):
        raise Unsupported("a weight without a bias: ours has both or none")
    if 0 in x.shape[1:]:
        raise Unsupported("samples without entries: an error here")
    layer = layers.GroupNorm(num_groups, x.shape[1], eps=eps, affine=weight is not None, **DOUBLE)
    return Pair(layer, x, {"weight": weight, "bias": bias})


@function_of("nn.functional.instance_norm")
def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    if x.ndim not in (3, 4):
        raise Unsupported("neither (N, C, T) nor (N, C, H, W)")
    if (weight is None) != (bias is None):
        raise Unsupported("a weight without a bias: ours has both or none")
    if not 0 <= momentum <= 1 or eps < 0:
        raise Unsupported("a momentum outside [0, 1] or a negative eps: refused at construction")
    cls = (layers.InstanceNorm1d, layers.InstanceNorm2d)[x.ndim - 3]
    layer = cls(x.shape[1], eps, momentum, weight is not None, running_mean is not None, **DOUBLE)
    layer.train(use_input_stats)
    return Pair(layer, x, {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var})


def activation(cls):
    """One of the elementwise layers."""

    def pair(x, *arguments, **options):
        options.pop("inplace", None)
        return Pair(cls(*arguments, **options, **DOUBLE), x)

    return pair


FUNCTIONS |= {
    "nn.functional.relu": activation(layers.ReLU),
    "nn.functional.leaky_relu": activation(layers.LeakyReLU),
    "nn.functional.elu": activation(layers.ELU),
    "nn.functional.gelu": activation(layers.GELU),
    "nn.functional.silu": activation(layers.SiLU),
    "nn.functional.hardtanh": activation(layers.Hardtanh),
    "nn.functional.softplus": activation(layers.Softplus),
    "sigmoid": activation(layers.Sigmoid),
    "tanh": activation(layers.Tanh),
    "abs": activation(layers.Abs),
    "exp": activation(layers.Exp),
    "log": activation(layers.Log),
    "sqrt": activation(layers.Sqrt),
    "square": activation(layers.Square),
    "neg": activation(layers.Negative),
    "sin": activation(layers.Sin),
    "cos": activation(layers.Cos),
}


def along(cls):
    def pair(x, dim, dtype=None, **options):
        if x.ndim == 0 or x.shape[dim] == 0:
            raise Unsupported("nothing along the axis: an error here")
        return Pair(cls(dim, **DOUBLE), x)

    return pair


FUNCTIONS |= {"softmax": along(layers.Softmax), "log_softmax": along(layers.LogSoftmax)}


@function_of("nn.functional.dropout")
def dropout(x, p=0.5, training=True, inplace=False):
    if training and 0 < p < 1:
        raise Unsupported("a random mask of torch's generator: ours comes from Philox")
    layer = layers.Dropout(p, **DOUBLE).train(training)
    return Pair(layer, x, theirs=lambda: torch.nn.functional.dropout(x, p, training))


@function_of("nn.functional.embedding")
def embedding(weight, ids, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    if max_norm is not None or scale_grad_by_freq:
        raise Unsupported("max_norm or scale_grad_by_freq: ours has neither")
    layer = layers.Embedding(*weight.shape, padding_idx, **DOUBLE)
    return Pair(layer, ids, {"weight": weight})


# ---------------------------------------------------------------------- operators


def operator(cls):
    def pair(a, b, alpha=1, rounding_mode=None):
        if alpha != 1:
            raise Unsupported("alpha: a product of its own here")
        if rounding_mode is not None:
            raise Unsupported("a rounded quotient: ours is exact")
        tensors = tuple(t if isinstance(t, torch.Tensor) else torch.tensor(t, dtype=torch.float64) for t in (a, b))
        return Pair(cls(**DOUBLE), tensors)

    return pair


def reduction(cls):
    def pair(x, dim=None, keepdim=False, dtype=None):
        axis = None if dim is None or dim == [] or dim == () else tuple(dim) if isinstance(dim, tuple | list) else dim
        if x.ndim == 0:
            if axis is not None:
                raise Unsupported("an axis of a number: ours has none")
        elif cls is not layers.Sum and x.numel() == 0:
            raise Unsupported("nothing to reduce: an error here")
        return Pair(cls(axis, keepdim, **DOUBLE), x)

    return pair


FUNCTIONS |= {
    "add": operator(layers.Add), "sub": operator(layers.Subtract), "mul": operator(layers.Multiply),
    "div": operator(layers.Divide), "maximum": operator(layers.Maximum), "minimum": operator(layers.Minimum),
    "matmul": operator(layers.MatMul), "mm": operator(layers.MatMul), "bmm": operator(layers.MatMul),
    "pow": operator(layers.Pow), "sum": reduction(layers.Sum), "mean": reduction(layers.Mean),
    "amax": reduction(layers.Max), "amin": reduction(layers.Min),
}  # fmt: skip


@function_of("clamp")
def clamp(x, low=None, high=None):
    """Our bounds are numbers; torch's samples have arrays, so the first entry of each stands for it on both sides."""
    if x.numel() == 0 or any(bound is not None and bound.numel() == 0 for bound in (low, high)):
        raise Unsupported("nothing to clip")
    low, high = (None if bound is None else bound.reshape(-1)[0].item() for bound in (low, high))
    return Pair(layers.Clip(low, high, **DOUBLE), x, theirs=lambda: torch.clamp(x, low, high))


@function_of("where")
def where(a, condition, b):
    theirs = lambda: torch.where(condition, a, b)  # noqa: E731  the table's sample starts with a
    return Pair(layers.Where(**DOUBLE), (condition, a, b), theirs=theirs)


@function_of("gather")
def gather(x, dim, ids, sparse_grad=False):
    if x.ndim == 0 or dim % x.ndim != x.ndim - 1 or x.shape[:-1] != ids.shape[:-1]:
        raise Unsupported("another axis than the last, or fewer rows of ids than of x")
    return Pair(layers.Take(**DOUBLE), (x, ids))


@function_of("nn.functional.prelu")
def prelu(x, weight):
    return Pair(layers.PReLU(max(weight.numel(), 1), **DOUBLE), x, {"weight": View(weight, lambda a: a.reshape(-1))})


@function_of("reciprocal")
def reciprocal(x):
    return Pair(layers.Power(-1, **DOUBLE), x)


@function_of("cat")
def concat(tensors, dim=0):
    if any(t.ndim != tensors[0].ndim for t in tensors):
        raise Unsupported("an empty vector among matrices, which torch leaves out")
    return Pair(layers.Concat(dim, **DOUBLE), tuple(tensors))


@function_of("permute")
def permute(x, axes):
    return Pair(layers.Transpose(tuple(axes), **DOUBLE), x)


@function_of("__getitem__")
def getitem(x, index):
    index = tuple(map(host, index)) if isinstance(index, tuple) else host(index)
    return Pair(layers.Slice(index, **DOUBLE), x)


@function_of("index_select")
def index_select(x, dim, index):
    if x.ndim == 0:
        raise Unsupported("an axis of a number: ours has none")
    return Pair(layers.Slice((slice(None),) * (dim % x.ndim) + (host(index),), **DOUBLE), x)


@function_of("chunk")
def chunk(x, chunks, dim=0):
    if x.shape[dim] % chunks:
        raise Unsupported("parts that differ in size: ours are equal")
    return Pair(layers.Split(chunks, dim, **DOUBLE), x)


@function_of("flatten")
def flatten(x, start_dim=0, end_dim=-1):
    if x.ndim == 0:
        raise Unsupported("no axis: an error here")
    return Pair(layers.Flatten(start_dim, end_dim, **DOUBLE), x)


@function_of("reshape")
def reshape(x, shape):
    """All axes in a new shape: our Reshape leaves the batch axis alone, so all of them are one sample."""
    return Pair(
        layers.Reshape(tuple(shape), **DOUBLE), View(x, lambda a: a[None], lambda g: g[0]), there=lambda y: y[0]
    )


# ---------------------------------------------------------------------- losses


def classes_last(x):
    """(N, C, ...) as (N, ..., C); a single sample (C,) as it is."""
    return View(
        x, lambda a: numpy.moveaxis(a, min(1, a.ndim - 1), -1), lambda g: numpy.moveaxis(g, -1, min(1, g.ndim - 1))
    )


def label_loss(cls):
    def pair(x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean", **options):
        options = {name: value for name, value in options.items() if value}
        ignored = None if ignore_index == -100 else ignore_index
        probabilities = target.is_floating_point()
        if probabilities and ignored is not None:
            raise Unsupported("a label to ignore among class probabilities: refused")
        if weight is not None:
            with torch.no_grad():
                weight.abs_()  # torch draws negative ones too, which ours refuses
        kept = target.numel() if ignored is None or probabilities else int((target != ignored).sum())
        if not kept and reduction == "mean":
            raise Unsupported("nothing to average: an error here, NaN in torch")
        loss_func = cls(
            weight=None if weight is None else host(weight), ignore_index=ignored, reduction=reduction, **options
        )
        return Pair(loss_func, (classes_last(x), classes_last(target) if probabilities else target))

    return pair


FUNCTIONS["nn.functional.cross_entropy"] = label_loss(losses.CrossEntropyLoss)
FUNCTIONS["nn.functional.nll_loss"] = label_loss(losses.NLLLoss)


def plain_loss(cls):
    def pair(
        x, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None, beta=None, **options
    ):
        if weight is not None:
            raise Unsupported("a weight for each element: ours has none")
        if pos_weight is not None:
            with torch.no_grad():
                pos_weight.abs_()  # torch draws negative ones too, which ours refuses
            options["pos_weight"] = host(pos_weight)
        if reduce is False or size_average is False:
            raise Unsupported("the old names of reduction")
        if x.shape != target.shape:
            raise Unsupported("a target that broadcasts: an error here")
        return Pair(cls(reduction=reduction, **options), (x, target))

    return pair


FUNCTIONS |= {
    "nn.functional.mse_loss": plain_loss(losses.MSELoss),
    "nn.functional.l1_loss": plain_loss(losses.L1Loss),
    "nn.functional.huber_loss": plain_loss(losses.HuberLoss),
    "nn.functional.binary_cross_entropy": plain_loss(losses.BCELoss),
    "nn.functional.binary_cross_entropy_with_logits": plain_loss(losses.BCEWithLogitsLoss),
    "nn.functional.kl_div": plain_loss(losses.KLDivLoss),
}


@function_of("nn.functional.triplet_margin_loss")
def triplet_margin(a, p, n, margin=1.0, eps=1e-6, swap=False, reduction="mean", **options):
    if not a.shape == p.shape == n.shape or margin < 0 or not a.ndim:
        raise Unsupported("predictions that broadcast or have no axis, or a negative margin: errors here")
    power = options.pop("p", 2.0)
    loss_func = losses.TripletMarginLoss(margin=margin, p=power, eps=eps, swap=swap, reduction=reduction)
    return Pair(loss_func, ((a, p, n), None))


@function_of("nn.functional.cosine_embedding_loss")
def cosine_embedding(x, y, target, margin=0.0, reduction="mean"):
    if x.shape != y.shape or target.shape != x.shape[:-1] or not set(target.reshape(-1).tolist()) <= {1, -1}:
        raise Unsupported("predictions that broadcast, or targets other than 1 and -1: errors here")
    return Pair(losses.CosineEmbeddingLoss(margin=margin, reduction=reduction), ((x, y), target))


# ---------------------------------------------------------------------- modules, by way of the functions


MODULES: dict[str, Callable[..., Pair]] = {}


def module_of(*names):
    return lambda function: MODULES.update(dict.fromkeys(names, function)) or function


@module_of("Linear")
def module_linear(m, input):
    return linear(input, m.weight, m.bias)


@module_of("Conv1d", "Conv2d")
def module_conv(m, x):
    return conv(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups, m.padding_mode)


@module_of("ConvTranspose1d", "ConvTranspose2d")
def module_conv_transpose(m, x):
    return conv_transpose(x, m.weight, m.bias, m.stride, m.padding, m.output_padding, m.groups, m.dilation)


@module_of("AvgPool1d", "AvgPool2d")
def module_avg_pool(m, x):
    rank = 1 if isinstance(m, torch.nn.AvgPool1d) else 2
    divisor = getattr(m, "divisor_override", None)
    return avg_pool(rank)(x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, divisor)


@module_of("MaxPool1d", "MaxPool2d")
def module_max_pool(m, x):
    rank = 1 if isinstance(m, torch.nn.MaxPool1d) else 2
    return max_pool(rank)(x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)


@module_of("AdaptiveAvgPool2d")
def module_adaptive(m, x):
    return adaptive_avg_pool(x, m.output_size)


@module_of("BatchNorm1d", "BatchNorm2d")
def module_batch_norm(m, x):
    if not m.track_running_stats:
        raise Unsupported("no running statistics: ours always has them")
    return batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, m.training, m.momentum, m.eps)


@module_of("InstanceNorm1d", "InstanceNorm2d")
def module_instance_norm(m, x):
    if x.ndim == (2 if isinstance(m, torch.nn.InstanceNorm1d) else 3):
        raise Unsupported("a sample without a batch axis")
    own = m.training or not m.track_running_stats
    return instance_norm(x, m.running_mean, m.running_var, m.weight, m.bias, own, m.momentum, m.eps)


@module_of("LayerNorm", "RMSNorm")
def module_row_norm(m, x):
    cls = layers.LayerNorm if isinstance(m, torch.nn.LayerNorm) else layers.RMSNorm
    return norm(cls)(x, m.normalized_shape, m.weight, getattr(m, "bias", None), m.eps)


@module_of("GroupNorm")
def module_group_norm(m, x):
    return group_norm(x, m.num_groups, m.weight, m.bias, m.eps)


@module_of("ELU", "LeakyReLU", "GELU", "Softplus", "Hardtanh", "ReLU", "SiLU", "Sigmoid", "Tanh")
def module_activation(m, x):
    names = {
        "ELU": ["alpha"], "LeakyReLU": ["negative_slope"], "GELU": ["approximate"], "Softplus": ["beta", "threshold"],
        "Hardtanh": ["min_val", "max_val"],
    }  # fmt: skip
    name = type(m).__name__
    return activation(getattr(layers, name))(x, **{option: getattr(m, option) for option in names.get(name, [])})


@module_of("PReLU")
def module_prelu(m, x):
    return prelu(x, m.weight)


@module_of("Softmax", "LogSoftmax")
def module_softmax(m, x):
    return along(layers.Softmax if isinstance(m, torch.nn.Softmax) else layers.LogSoftmax)(x, m.dim)


@module_of("Softmax2d")
def module_softmax2d(m, x):
    return along(layers.Softmax)(x, -3)


@module_of("Embedding")
def module_embedding(m, ids):
    return embedding(m.weight, ids, m.padding_idx, m.max_norm)


@module_of("NLLLoss", "CrossEntropyLoss")
def module_label_loss(m, x, target):
    cls, options = losses.NLLLoss, {}
    if isinstance(m, torch.nn.CrossEntropyLoss):
        cls, options = losses.CrossEntropyLoss, {"label_smoothing": m.label_smoothing}
    return label_loss(cls)(x, target, m.weight, ignore_index=m.ignore_index, reduction=m.reduction, **options)


@module_of("L1Loss", "MSELoss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss")
def module_loss(m, x, target):
    options = {"delta": m.delta} if isinstance(m, torch.nn.HuberLoss) else {}
    weights = {name: getattr(m, name, None) for name in ("weight", "pos_weight")}
    return plain_loss(getattr(losses, type(m).__name__))(x, target, reduction=m.reduction, **weights, **options)


@module_of("RNNCell", "GRUCell", "LSTMCell")
def module_cell(m, x, state=None):
    options = {"nonlinearity": m.nonlinearity} if isinstance(m, torch.nn.RNNCell) else {}
    layer = getattr(layers, type(m).__name__)(m.input_size, m.hidden_size, bias=m.bias, **options, **DOUBLE)
    if state is None:
        raise Unsupported("no state: a cell takes (state, x)")

    def theirs():
        out = m(x, state)
        return (out, out[0]) if isinstance(out, tuple) else (out, out)

    value = mapped(lambda t: batched(t, 2), (state, x))
    return Pair(layer, value, dict(m.named_parameters()), theirs)


@module_of("RNN", "GRU", "LSTM")
def module_recurrent(m, x, state=None):
    if not isinstance(x, torch.Tensor):
        raise Unsupported("a packed sequence: ours takes lengths (compared in test_torch_recurrent)")
    if m.proj_size:
        raise Unsupported("a projection of the state: ours has none")
    options = {"nonlinearity": m.nonlinearity} if isinstance(m, torch.nn.RNN) else {}
    layer = getattr(layers, type(m).__name__)(
        m.input_size, m.hidden_size, m.num_layers, bias=m.bias, batch_first=m.batch_first,
        bidirectional=m.bidirectional, return_state=True, **options, **DOUBLE,
    )  # fmt: skip

    def theirs():
        y, end = m(x) if state is None else m(x, state)
        return end, y

    def lifted(t, axis):
        return t if t.ndim == 3 else View(t, lambda a: numpy.expand_dims(a, axis))

    value = lifted(x, 0 if m.batch_first else 1)
    if state is not None:
        value = mapped(lambda t: lifted(t, 1), state), value
    return Pair(layer, value, dict(m.named_parameters()), theirs)


@module_of("MultiheadAttention")
def module_attention(m, query, key, value, key_padding_mask=None, attn_mask=None, need_weights=True, **options):
    if m.bias_k is not None or m.add_zero_attn:
        raise Unsupported("add_bias_kv or add_zero_attn: ours has neither")
    if m.in_proj_weight is None:
        raise Unsupported("keys and values of another size than queries")
    layer = layers.MultiHeadAttention(m.embed_dim, m.num_heads, bias=m.in_proj_bias is not None, **DOUBLE)
    axis = 0 if m.batch_first and query.ndim == 3 else 1

    def lifted(t):
        if t.ndim == 2:
            return View(t, lambda a: a[:, None])
        return View(t, lambda a: a.swapaxes(0, 1), lambda g: g.swapaxes(0, 1)) if axis == 0 else t

    heads, length, size = m.num_heads, query.shape[-2] if axis == 0 else query.shape[0], None
    size = key.shape[-2] if axis == 0 or key.ndim == 2 else key.shape[0]
    n = 1 if query.ndim == 2 else query.shape[axis]
    hidden = numpy.zeros((n, heads, length, size), bool)
    if attn_mask is not None:
        hidden |= host(attn_mask).reshape(-1, heads if attn_mask.ndim == 3 else 1, length, size)
    if key_padding_mask is not None:
        hidden |= host(key_padding_mask).reshape(n, 1, 1, size)
    if hidden.all(axis=-1).any():
        raise Unsupported("a query that may see nothing: NaN in torch, 0 here")

    def theirs():
        return m(query, key, value, key_padding_mask=key_padding_mask, attn_mask=attn_mask, need_weights=False)[0]

    def turn(a):
        return a.swapaxes(0, 1) if axis == 0 else a

    mask = hidden.reshape(n * heads, length, size)
    given = (*map(lifted, (query, key, value)), mask)
    return Pair(layer, given, dict(m.named_parameters()), theirs, turn, turn)
