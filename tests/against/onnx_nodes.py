"""The node tests that come with ONNX, computed by our layers.

ONNX describes each operator by one-node models with inputs and the outputs they must give. `CASES[operator](case)`
computes such a case with mtorch and returns its outputs in order (None for one that our layer has no counterpart of),
or raises `Unsupported` with the reason. Data moves between the two conventions here: ONNX's gate orders, class axis 1,
attributes for options. Integers are cast by the call of a layer that computes in float64.
"""

import importlib
from types import SimpleNamespace

import numpy

from mtorch import Graph, Input, Sequential, layers, losses

PACKAGE = "onnx.backend.test.case.node"
FILES = (
    "abs add attention averagepool batch_normalization clip concat conv convtranspose div dropout elu exp flatten "
    "gather gatherelements gathernd gelu gemm globalaveragepool globalmaxpool groupnormalization gru identity "
    "instance_normalization layernormalization leakyrelu log logsoftmax lstm matmul max maxpool mean min mul neg "
    "negativeloglikelihoodloss pow reciprocal reduce_log_sum reduce_log_sum_exp reducel1 reducel2 reducemax reducemean "
    "reducemin reducesum reducesumsquare relu reshape rmsnormalization rnn sigmoid slice softmax "
    "softmax_cross_entropy_loss softplus split sqrt squeeze sub sum swish tanh transpose unsqueeze"
).split()


class Unsupported(Exception):
    """Why a case of an operator that we have is not one that our layer computes."""


def load():
    """{operator: its cases}; a case has name, inputs (None where one is left out), outputs, attributes, dtype."""
    helper = importlib.import_module("onnx").helper
    base = importlib.import_module(PACKAGE)
    with numpy.errstate(all="ignore"):  # a case is computed when its module is imported, empty sets included
        for file in FILES:
            importlib.import_module(f"{PACKAGE}.{file}")
    found = {}
    for test in base._NodeTestCases:
        node = test.model.graph.node[0]
        if "_expanded" in test.name:  # the same case written in other operators
            continue
        (inputs, outputs), *_ = test.data_sets
        given, wanted = iter(inputs), iter(outputs)
        case = SimpleNamespace(
            name=test.name.removeprefix("test_"),
            inputs=[next(given) if name else None for name in node.input],
            outputs=[next(wanted) if name else None for name in node.output],
            attributes={a.name: helper.get_attribute_value(a) for a in node.attribute},
        )
        floats = [x for x in case.inputs if isinstance(x, numpy.ndarray) and x.dtype.kind == "f"]
        case.dtype = floats[0].dtype.name if floats else "float64"
        found.setdefault(node.op_type, []).append(case)
    return {operator: found[operator] for operator in sorted(found) if operator in CASES}


def compare(case, outputs):
    """How many outputs were compared; AssertionError where one differs."""
    compared = 0
    for got, expected in zip(outputs, case.outputs, strict=False):
        if got is None or expected is None:
            continue
        assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
        floating = expected.dtype.kind == "f"
        assert not floating or got.dtype == expected.dtype, f"{got.dtype}, expected {expected.dtype}"
        got, expected = got.astype("float64"), expected.astype("float64")
        scale = numpy.abs(expected).max(initial=0)
        numpy.testing.assert_allclose(got, expected, rtol=1e-5 if floating else 0, atol=1e-6 * scale if floating else 0)
        compared += 1
    return compared


CASES = {}


def case_of(*operators):
    return lambda function: CASES.update(dict.fromkeys(operators, function)) or function


def put(layer, **values):
    """The layer with these values in its parameters (and buffers)."""
    layer.load_state_dict(layer.state_dict() | {name: value for name, value in values.items() if value is not None})
    return layer


# ---------------------------------------------------------------------- one layer without options


def apply(cls, *arguments, **options):
    def run(case):
        (x,) = case.inputs
        return [cls(*arguments, dtype=case.dtype, **options)(x)]

    return run


for _operator, _cls in (
    ("Abs", layers.Abs), ("Exp", layers.Exp), ("Identity", layers.Identity), ("Log", layers.Log),
    ("Neg", layers.Negative), ("Relu", layers.ReLU), ("Sigmoid", layers.Sigmoid), ("Softplus", layers.Softplus),
    ("Sqrt", layers.Sqrt), ("Tanh", layers.Tanh),
):  # fmt: skip
    case_of(_operator)(apply(_cls))
case_of("Reciprocal")(apply(layers.Power, -1))


@case_of("Identity")
def identity(case):
    if not isinstance(case.inputs[0], numpy.ndarray):
        raise Unsupported("a sequence of tensors or an optional one: values are arrays and tuples")
    return apply(layers.Identity)(case)


@case_of("Elu", "LeakyRelu")
def slopes(case):
    alpha = case.attributes.get("alpha")
    cls, name = (layers.LeakyReLU, "negative_slope") if "leaky" in case.name else (layers.ELU, "alpha")
    return apply(cls, **({} if alpha is None else {name: alpha}))(case)


@case_of("Gelu")
def gelu(case):
    return apply(layers.GELU, approximate=case.attributes.get("approximate", b"none").decode())(case)


@case_of("Swish")
def swish(case):
    if case.attributes.get("alpha", 1.0) != 1:
        raise Unsupported("a slope inside the sigmoid: SiLU has none")
    return apply(layers.SiLU)(case)


@case_of("Softmax", "LogSoftmax")
def softmaxes(case):
    cls = layers.LogSoftmax if "log" in case.name else layers.Softmax
    return apply(cls, axis=case.attributes.get("axis", -1))(case)


@case_of("Clip")
def clip(case):
    x, low, high = (case.inputs + [None, None])[:3]
    if low is not None and high is not None and low == -1 and high == 1:
        return [layers.Hardtanh(dtype=case.dtype)(x)]
    if low is None and high is None:
        raise Unsupported("no bound: nothing to compute")
    y = x
    for bound, cls in ((low, layers.Maximum), (high, layers.Minimum)):
        y = y if bound is None else cls(dtype=case.dtype)((y, bound))
    return [y]


@case_of("Dropout")
def dropout(case):
    x, ratio, training = (case.inputs + [None, None])[:3]
    ratio = case.attributes.get("ratio", 0.5) if ratio is None else float(ratio)
    if training is not None and training and ratio:
        raise Unsupported("a random mask drawn by numpy's generator: ours comes from Philox")
    return [layers.Dropout(ratio, dtype=case.dtype).train(bool(training))(x)]


# ---------------------------------------------------------------------- operators of several values


@case_of("Add", "Sub", "Mul", "MatMul")
def binary(case):
    kinds = {"add": layers.Add, "sub": layers.Subtract, "mul": layers.Multiply, "matmul": layers.MatMul}
    return [kinds[case.name.split("_")[0]](dtype=case.dtype)(tuple(case.inputs))]


@case_of("Div")
def divide(case):
    if case.inputs[0].dtype.kind != "f":
        raise Unsupported("a division of integers that drops the remainder: ours is exact")
    return [layers.Divide(dtype=case.dtype)(tuple(case.inputs))]


@case_of("Pow")
def power(case):
    base, exponent = case.inputs
    y = layers.Pow(dtype=case.dtype)((base, exponent))
    if exponent.ndim == 0:
        numpy.testing.assert_allclose(layers.Power(exponent.item(), dtype=case.dtype)(base), y, rtol=1e-6)
    return [y]


@case_of("Max", "Min", "Sum", "Mean")
def variadic(case):
    """Of any number of operands; with one there is nothing to compute."""
    if len(case.inputs) == 1:
        raise Unsupported("one operand: nothing to compute")
    kind = case.name.split("_")[0]
    cls = {"max": layers.Maximum, "min": layers.Minimum}.get(kind, layers.Add)
    y = case.inputs[0]
    for x in case.inputs[1:]:
        y = cls(dtype=case.dtype)((y, x))
    return [layers.Divide(dtype=case.dtype)((y, len(case.inputs)))] if kind == "mean" else [y]


@case_of("Gemm")
def gemm(case):
    """alpha A B + beta C as a formula; a plain product with a bias vector is a Linear as well."""
    options = case.attributes
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    symbols = [Input(name) for name in "abc"[: len(case.inputs)]]
    a, b = (
        layers.Transpose((1, 0), dtype=case.dtype)(symbol) if options.get(name) else symbol
        for symbol, name in zip(symbols, ("transA", "transB"), strict=False)
    )
    formula = alpha * (a @ b)
    if len(symbols) == 3:
        formula = formula + beta * symbols[2]
    y = Graph.of(formula, inputs=symbols, dtype=case.dtype)(tuple(case.inputs))
    if set(options) <= {"transB"} and len(case.inputs) == 3 and case.inputs[2].shape == (1, y.shape[1]):
        x, weight, bias = case.inputs
        weight = weight if "transB" in options else weight.T
        linear = put(layers.Linear(*weight.shape[::-1], dtype=case.dtype), weight=weight, bias=bias[0])
        numpy.testing.assert_allclose(linear(x), y, rtol=1e-5)
    return [y]


# ---------------------------------------------------------------------- reductions


REDUCTIONS = {
    "ReduceSum": (None, layers.Sum, None), "ReduceMean": (None, layers.Mean, None),
    "ReduceMax": (None, layers.Max, None), "ReduceMin": (None, layers.Min, None),
    "ReduceL1": (layers.Abs, layers.Sum, None), "ReduceL2": (layers.Square, layers.Sum, layers.Sqrt),
    "ReduceSumSquare": (layers.Square, layers.Sum, None), "ReduceLogSum": (None, layers.Sum, layers.Log),
    "ReduceLogSumExp": (layers.Exp, layers.Sum, layers.Log),
}  # fmt: skip


def reduction(before, cls, after):
    def run(case):
        x, axes = (case.inputs + [None])[:2]
        if axes is None or not axes.size:
            if case.attributes.get("noop_with_empty_axes"):
                raise Unsupported("no axes, so nothing to do")
            axes = None
        if not x.size and cls is not layers.Sum:
            raise Unsupported("an extremum of nothing: an error here")
        if not x.size and after is layers.Log:
            raise Unsupported("the logarithm of an empty sum: a floating-point error in a test session")
        options, keepdims = {"dtype": case.dtype}, bool(case.attributes.get("keepdims", 1))
        reduce = cls(axes if axes is None else tuple(axes.tolist()), keepdims, **options)
        parts = [before and before(**options), reduce, after and after(**options)]
        return [Sequential([part for part in parts if part is not None])(x)]

    return run


for _operator, _parts in REDUCTIONS.items():
    case_of(_operator)(reduction(*_parts))


# ---------------------------------------------------------------------- data that moves


@case_of("Concat")
def concat(case):
    return [layers.Concat(case.attributes["axis"], dtype=case.dtype)(tuple(case.inputs))]


@case_of("Transpose")
def transpose(case):
    return [layers.Transpose(case.attributes.get("perm"), dtype=case.dtype)(*case.inputs)]


def reshaped(case, x, shape):
    """All axes in a new shape: our Reshape leaves the batch axis alone, so all of them are one sample."""
    if 0 in x.shape:
        raise Unsupported("a shape with a size of 0: Reshape expects sizes >= 1")
    return layers.Reshape(tuple(shape), dtype=case.dtype)(x[None])[0]


@case_of("Reshape")
def reshape(case):
    x, shape = case.inputs
    zero = 0 if case.attributes.get("allowzero") else None
    sizes = [zero if n == 0 and zero is not None else x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())]
    return [reshaped(case, x, sizes)]


@case_of("Flatten")
def flatten(case):
    (x,) = case.inputs
    axis = case.attributes.get("axis", 1)
    if axis in (1, 1 - x.ndim):
        return [layers.Flatten(dtype=case.dtype)(x)]
    return [reshaped(case, x, (int(numpy.prod(x.shape[:axis])), -1))]


@case_of("Squeeze", "Unsqueeze")
def squeeze(case):
    x, axes = case.inputs
    out = x.ndim + len(axes) * (1 if "un" in case.name else 0)
    axes = {axis % out for axis in axes.tolist()}
    entry = None if "un" in case.name else 0
    return [layers.Slice(tuple(entry if i in axes else slice(None) for i in range(out)), dtype=case.dtype)(x)]


@case_of("Slice")
def cut(case):
    x, starts, ends, axes, steps = (case.inputs + [None, None])[:5]
    index = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        index[i if axes is None else axes[i]] = slice(start, end, None if steps is None else steps[i])
    return [layers.Slice(tuple(index), dtype=case.dtype)(x)]


@case_of("Split")
def split(case):
    x, sizes = (case.inputs + [None])[:2]
    axis, count = case.attributes.get("axis", 0), len(case.outputs)
    if sizes is None and x.shape[axis] % count == 0 or sizes is not None and len(set(sizes.tolist())) == 1 and sizes[0]:
        return layers.Split(count, axis, dtype=case.dtype)(x)
    if sizes is None:
        step = -(-x.shape[axis] // count)
        sizes = numpy.array([step] * (count - 1) + [x.shape[axis] - step * (count - 1)])
    ends = numpy.cumsum(sizes).tolist()
    before = (slice(None),) * (axis % x.ndim)
    return [
        layers.Slice((*before, slice(end - size, end)), dtype=case.dtype)(x)
        for size, end in zip(sizes.tolist(), ends, strict=True)
    ]


@case_of("Gather")
def gather(case):
    x, ids = case.inputs
    axis = case.attributes.get("axis", 0)
    y = layers.Slice((slice(None),) * axis + (ids,), dtype=case.dtype)(x)
    if axis == 0 and ids.min() >= 0:
        rows = x.reshape(len(x), -1)
        table = put(layers.Embedding(*rows.shape, dtype=case.dtype), weight=rows)
        assert (table(ids).reshape(y.shape) == y).all()
    return [y]


@case_of("GatherElements")
def gather_elements(case):
    x, ids = case.inputs
    index = list(numpy.indices(ids.shape))
    index[case.attributes.get("axis", 0)] = ids
    return [layers.Slice(tuple(index), dtype=case.dtype)(x)]


@case_of("GatherND")
def gather_nd(case):
    x, ids = case.inputs
    index = tuple(numpy.moveaxis(ids, -1, 0))
    if case.attributes.get("batch_dims", 0):
        index = (numpy.arange(len(x)), *index)
    return [layers.Slice(index, dtype=case.dtype)(x)]


# ---------------------------------------------------------------------- convolution and pooling


def window(case, sizes, kernel, transposed=False):
    """(stride, padding, dilation) of a case, in pairs; Unsupported for what is not the same on both sides."""
    options, rank = case.attributes, len(kernel)
    if rank > 2:
        raise Unsupported("three dimensions: ours has one and two")
    stride, dilation = options.get("strides", [1] * rank), options.get("dilations", [1] * rank)
    pads = list(options.get("pads", [0] * 2 * rank))
    auto = options.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        if transposed:
            total = [max(k - s, 0) for k, s in zip(spread, stride, strict=True)]
        else:
            total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(sizes, stride, spread, strict=True)]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    if pads[:rank] != pads[rank:]:
        raise Unsupported("padding that differs between the two sides")
    return tuple(stride), tuple(pads[:rank]), tuple(dilation)


@case_of("Conv")
def convolution(case):
    x, weight, bias = (case.inputs + [None])[:3]
    stride, padding, dilation = window(case, x.shape[2:], weight.shape[2:])
    groups = case.attributes.get("group", 1)
    cls = layers.Conv1d if x.ndim == 3 else layers.Conv2d
    layer = cls(
        x.shape[1], len(weight), weight.shape[2:], stride, padding, dilation, groups, bias is not None, dtype=case.dtype
    )
    return [put(layer, weight=weight, bias=bias)(x)]


@case_of("ConvTranspose")
def transposed_convolution(case):
    x, weight, bias = (case.inputs + [None])[:3]
    stride, padding, dilation = window(case, x.shape[2:], weight.shape[2:], transposed=True)
    if any(case.attributes.get("output_padding", ())):
        raise Unsupported("output_padding: ours has none")
    if len(stride) == 1:
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
        y = transposed_plane(case, x[:, :, None], weight[:, :, None], bias, stride, padding, dilation)[:, :, 0]
    else:
        y = transposed_plane(case, x, weight, bias, stride, padding, dilation)
    if y.shape != case.outputs[0].shape:
        raise Unsupported("an output larger than the windows reach: ours has no output_shape")
    return [y]


def transposed_plane(case, x, weight, bias, stride, padding, dilation):
    groups = case.attributes.get("group", 1)
    sizes = x.shape[1], weight.shape[1] * groups, weight.shape[2:], stride, padding, dilation, groups, bias is not None
    return put(layers.ConvTranspose2d(*sizes, dtype=case.dtype), weight=weight, bias=bias)(x)


@case_of("MaxPool", "AveragePool")
def pool(case):
    (x,) = case.inputs
    options, kernel = case.attributes, tuple(case.attributes["kernel_shape"])
    stride, padding, dilation = window(case, x.shape[2:], kernel)
    if max(dilation) > 1:
        raise Unsupported("a dilated window: ours has none")
    if options.get("ceil_mode"):
        raise Unsupported("ceil_mode: ours has none")
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise Unsupported("padding over half the kernel: an error here")
    kind = "Max" if "max" in case.name else "Avg"
    if kind == "Avg" and any(padding) and not options.get("count_include_pad"):
        raise Unsupported("padding that does not count: ours counts it as zeros")
    layer = getattr(layers, f"{kind}Pool{len(kernel)}d")(kernel, stride, padding, dtype=case.dtype)
    y = layer(x)
    if len(case.outputs) == 1:
        return [y]
    places = case.outputs[1]  # where each maximum stands: there goes its gradient
    if options.get("storage_order"):
        planes = places // (x.shape[2] * x.shape[3])
        column, row = numpy.divmod(places % (x.shape[2] * x.shape[3]), x.shape[2])
        places = planes * x.shape[2] * x.shape[3] + row * x.shape[3] + column
    counts = numpy.bincount(places.ravel(), minlength=x.size).reshape(x.shape)
    assert (layer.backward(numpy.ones_like(y)) == counts).all()
    return [y]


@case_of("GlobalAveragePool", "GlobalMaxPool")
def global_pool(case):
    (x,) = case.inputs
    if "max" in case.name:
        return [layers.Max((2, 3), keepdims=True, dtype=case.dtype)(x)]
    return [layers.AdaptiveAvgPool2d(1, dtype=case.dtype)(x)]


# ---------------------------------------------------------------------- normalisation


@case_of("BatchNormalization")
def batch_norm(case):
    x, weight, bias, mean, var = case.inputs
    eps, keep = case.attributes.get("epsilon", 1e-5), case.attributes.get("momentum", 0.9)
    layer = layers.BatchNorm2d(x.shape[1], eps, 1 - keep, dtype=case.dtype)
    layer = put(layer, weight=weight, bias=bias, running_mean=mean, running_var=var)
    layer.train(bool(case.attributes.get("training_mode", 0)))
    y, n = layer(x), x.size // x.shape[1]
    state = layer.state_dict()
    kept = keep * var  # the new part is the variance with n - 1 in ours, with n in ONNX's
    return [y, state["running_mean"], (kept + (state["running_var"] - kept) * (n - 1) / n).astype(case.dtype)]


@case_of("LayerNormalization", "RMSNormalization")
def row_norm(case):
    x, weight, bias = (case.inputs + [None])[:3]
    eps, axis = case.attributes.get("epsilon", 1e-5), case.attributes.get("axis", -1)
    cls = layers.LayerNorm if "layer" in case.name else layers.RMSNorm
    layer = put(cls(x.shape[axis:], eps=eps, dtype=case.dtype), weight=weight, bias=bias)
    return [layer(x)]


@case_of("GroupNormalization", "InstanceNormalization")
def group_norm(case):
    x, weight, bias = case.inputs
    groups = case.attributes.get("num_groups", x.shape[1])  # one group for each channel: the instance norm
    layer = layers.GroupNorm(groups, x.shape[1], eps=case.attributes.get("epsilon", 1e-5), dtype=case.dtype)
    return [put(layer, weight=weight, bias=bias)(x)]


# ---------------------------------------------------------------------- losses


@case_of("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def label_loss(case):
    x, labels, weight = (case.inputs + [None])[:3]
    options = case.attributes
    cls = losses.NLLLoss if "nll" in case.name else losses.CrossEntropyLoss
    loss_func = cls(
        weight=weight,
        ignore_index=options.get("ignore_index"),
        reduction=options.get("reduction", b"mean").decode(),
    )
    value = numpy.asarray(loss_func(numpy.moveaxis(x, 1, -1), labels).value)
    value = value.astype(x.dtype)  # a number is a Python float
    return [value, layers.LogSoftmax(axis=1, dtype=case.dtype)(x)][: len(case.outputs)]


# ---------------------------------------------------------------------- recurrent layers


GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 2, 3, 1]}  # ours of ONNX's: GRU z r h, LSTM i o f c


@case_of("RNN", "GRU", "LSTM")
def recurrent(case):
    x, weight, hidden, bias, lengths, h0, c0, peepholes = (case.inputs + [None] * 5)[:8]
    kind = next(kind for kind in ("rnn", "gru", "lstm") if kind in case.name)
    options = case.attributes
    if peepholes is not None:
        raise Unsupported("peepholes: ours has none")
    batch_first = bool(options.get("layout", 0))
    steps = x.shape[1 if batch_first else 0]
    if kind == "gru" and not options.get("linear_before_reset", 0) and steps > 1:
        raise Unsupported("the reset gate before the product over several steps: ours resets after it, as torch does")
    if {"activations", "clip", "input_forget"} & set(options):
        raise Unsupported("other activations, clipping or coupled gates")
    size, dirs = hidden.shape[2], len(weight)
    backwards = options.get("direction", b"forward") == b"reverse"
    both = dirs == 2 or backwards  # a reverse layer alone is the second half of one that runs both ways
    layer = getattr(layers, kind.upper())(
        x.shape[2], size, batch_first=batch_first, bidirectional=both, return_state=True, dtype=case.dtype
    )

    def gates(values):
        return values.reshape(len(GATES[kind]), size, *values.shape[1:])[GATES[kind]].reshape(values.shape)

    state = {}
    for i, suffix in enumerate(["_l0", "_l0_reverse"] if both else ["_l0"]):
        own = 0 if backwards else i
        state[f"weight_ih{suffix}"], state[f"weight_hh{suffix}"] = gates(weight[own]), gates(hidden[own])
        rows = len(weight[own])
        for part, name in enumerate(("bias_ih", "bias_hh")):
            given = numpy.zeros(rows, x.dtype) if bias is None else bias[own][part * rows : (part + 1) * rows]
            state[name + suffix] = gates(given)
    layer.load_state_dict(state)

    def initial(given):
        if given is None:
            return None
        given = given.swapaxes(0, 1) if batch_first else given
        return numpy.concatenate([given, given]) if backwards else given

    first, cell = initial(h0), initial(c0)
    start = first if kind != "lstm" or first is None else (first, cell)
    end, y = layer((start, x) if lengths is None else (start, x, lengths))
    pick = slice(1, 2) if backwards else slice(None)
    y = y.reshape(*y.shape[:2], -1, size)[:, :, pick]
    y = y if batch_first else y.transpose(0, 2, 1, 3)
    states = [part[pick].swapaxes(0, 1) if batch_first else part[pick] for part in (end if kind == "lstm" else (end,))]
    return [y, *states]


# ---------------------------------------------------------------------- attention


@case_of("Attention")
def attention(case):
    """Attention without projections: a MultiHeadAttention whose matrices are the identity."""
    options = case.attributes
    query, key, value, mask, past_key, past_value, lengths = (case.inputs + [None] * 6)[:7]
    if case.dtype == "float16" or query.dtype.kind not in "fiub":
        raise Unsupported("half precision does not reach 1e-5")
    if options.get("softcap", 0):
        raise Unsupported("softcap: ours has none")
    if len(case.outputs) > 3:
        raise Unsupported("asks for the scores, which the layer does not return")
    if query.ndim == 3:
        heads = options["q_num_heads"]
        if options["kv_num_heads"] != heads:
            raise Unsupported("several queries share a head of keys: ours have one each")
        query, key, value = (a.reshape(*a.shape[:2], heads, -1).transpose(0, 2, 1, 3) for a in (query, key, value))
    if key.shape[1] != query.shape[1]:
        raise Unsupported("several queries share a head of keys: ours have one each")
    if value.shape[3] != query.shape[3]:
        raise Unsupported("values of another size than keys")
    present = []
    if past_key is not None:
        key, value = (numpy.concatenate(pair, axis=2) for pair in ((past_key, key), (past_value, value)))
        present = [key, value]
    (n, heads, length, depth), size = query.shape, key.shape[2]
    blocked = numpy.zeros((n, heads, length, size), bool)
    added = numpy.zeros((n, heads, length, size), case.dtype)
    if mask is not None:
        if mask.shape[-1] < size:
            raise Unsupported("a mask shorter than the keys")
        if mask.dtype == bool:
            blocked |= ~mask  # True is "may see" in ONNX, "may not" in ours
        else:
            added += mask
    if lengths is not None:
        blocked |= numpy.arange(size) >= lengths[:, None, None, None]
    past = numpy.zeros(n, int) if past_key is None else numpy.full(n, past_key.shape[2])
    past = (past if lengths is None else lengths - length)[:, None, None, None]
    distance = numpy.arange(length)[:, None] + past - numpy.arange(size)  # how far a key lies before its query
    causal = bool(options.get("is_causal", 0)) and not past.any()
    if options.get("is_causal", 0) and not causal:
        blocked |= distance < 0
    for name, sign in (("left_window_size", 1), ("right_window_size", -1)):
        if options.get(name, -1) >= 0:
            blocked |= sign * distance > options[name]
    width = heads * depth
    layer = layers.MultiHeadAttention(width, heads, causal=causal, bias=False, dtype=case.dtype)
    weight = numpy.concatenate([numpy.eye(width)] * 3)
    weight[:width] *= options.get("scale", depth**-0.5) * depth**0.5
    put(layer, **{"in_proj_weight": weight, "out_proj.weight": numpy.eye(width)})
    q, k, v = (a.transpose(2, 0, 1, 3).reshape(a.shape[2], n, width) for a in (query, key, value))
    mask = numpy.where(blocked, -numpy.inf, added).astype(case.dtype) if added.any() else blocked
    y = layer((q, k, v, mask.reshape(n * heads, length, size)))
    y = y.transpose(1, 0, 2) if case.outputs[0].ndim == 3 else y.reshape(length, n, heads, depth).transpose(1, 2, 0, 3)
    return [y, *present]
