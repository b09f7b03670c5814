"""The node tests that come with ONNX, read by `import_onnx`.

ONNX describes each operator by one-node models with inputs and the outputs they must give. There everything is an
input, weights and shapes too. What a file holds in practice becomes an initializer here: all but the inputs that `LIVE`
names. A case is computed, or `import_onnx` refuses it and says why.
"""

import copy
import importlib
from types import SimpleNamespace

import numpy

from mtorch.interop import import_onnx

PACKAGE = "onnx.backend.test.case.node"
FILES = (
    "abs add attention averagepool batch_normalization clip concat conv convtranspose cos div dropout elu erf exp "
    "expand flatten gather gatherelements gathernd gelu gemm globalaveragepool globalmaxpool groupnormalization gru "
    "hardsigmoid identity instance_normalization layernormalization leakyrelu log logsoftmax lstm matmul max maxpool "
    "mean min mul neg negativeloglikelihoodloss pad pow prelu reciprocal reduce_log_sum reduce_log_sum_exp reducel1 "
    "reducel2 reducemax reducemean reducemin reducesum reducesumsquare relu reshape resize rmsnormalization rnn selu "
    "sigmoid sin slice softmax softmax_cross_entropy_loss softplus softsign split sqrt squeeze sub sum swish tanh tile "
    "transpose unsqueeze where"
).split()

FIRST = (
    "BatchNormalization Clip Conv ConvTranspose Dropout Expand Gather GatherElements GatherND Gemm GroupNormalization "
    "InstanceNormalization LayerNormalization PRelu Pad RMSNormalization ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Reshape Resize Slice Split Squeeze Tile "
    "Unsqueeze"
).split()
LIVE = dict.fromkeys(FIRST, (0,)) | dict.fromkeys(("RNN", "GRU", "LSTM"), (0, 4, 5, 6))
LIVE |= dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), (0, 1)) | {"Attention": range(6)}
KEPT = {
    "BatchNormalization": 1,
    "MaxPool": 1,
    "Dropout": 1,
    "LayerNormalization": 1,
    "Attention": 3,
}  # how many outputs are asked for

OTHERWISE = {
    "averagepool_2d_ceil_last_window_starts_on_pad": "stored with four digits, which are the same",
    "reduce_log_sum_empty_set": "the logarithm of an empty sum: a floating-point error in a test session",
    "reduce_log_sum_exp_empty_set": "the logarithm of an empty sum: a floating-point error in a test session",
    "reduce_max_empty_set": "an extremum of nothing: an error here",
    "reduce_max_empty_set_bool": "an extremum of nothing: an error here",
    "reduce_min_empty_set": "an extremum of nothing: an error here",
}


def load():
    """{operator: its cases}; a case has a name, the model, the inputs that stay inputs, and the outputs."""
    helper = importlib.import_module("onnx").numpy_helper
    base = importlib.import_module(PACKAGE)
    with numpy.errstate(all="ignore"):  # a case is computed when its module is imported, empty sets included
        for file in FILES:
            importlib.import_module(f"{PACKAGE}.{file}")
    found = {}
    for test in base._NodeTestCases:
        (node, *others), model = test.model.graph.node, copy.deepcopy(test.model)
        if others or "_expanded" in test.name:  # the same case written in other operators
            continue
        (inputs, outputs), *_ = test.data_sets
        names = [name for name in node.input if name]
        live = LIVE.get(node.op_type, range(len(node.input)))
        given = dict(zip(names, inputs, strict=True))
        feeds = [given[name] for i, name in enumerate(node.input) if name and i in live]
        stored = [name for i, name in enumerate(node.input) if name and i not in live]
        if all(isinstance(given[name], numpy.ndarray | numpy.generic) for name in stored):
            model.graph.initializer.extend(helper.from_array(numpy.asarray(given[name]), name) for name in stored)
        for value in [value for value in model.graph.input if value.name in stored]:
            model.graph.input.remove(value)
        keep = KEPT.get(node.op_type, len(node.output))
        if node.op_type == "Attention":
            del model.graph.node[0].output[keep:]
        asked = [value for value in model.graph.output if value.name in node.output[:keep]]
        wanted = dict(zip([value.name for value in model.graph.output], outputs, strict=True))
        del model.graph.output[:]
        model.graph.output.extend(asked)
        case = SimpleNamespace(
            name=test.name.removeprefix("test_"),
            model=model.SerializeToString(),
            inputs=feeds,
            outputs=[wanted[value.name] for value in asked],
            more=outputs[len(asked) :],  # those that our layer does not return
        )
        found.setdefault(node.op_type, []).append(case)
    return {operator: found[operator] for operator in sorted(found)}


def outputs_of(net, feeds):
    """What the net predicts for inputs in the order of the file, as a list."""
    y = net.predict(feeds[0] if len(net.inputs) == 1 else tuple(feeds))
    return list(y) if isinstance(y, tuple) else [y]


def compute(case):
    """The outputs of a case by the imported net."""
    return outputs_of(import_onnx(case.model), case.inputs)


def compare(outputs, expected, rtol=1e-5):
    """AssertionError where one differs."""
    assert len(outputs) == len(expected)
    for got, wanted in zip(outputs, expected, strict=True):
        assert got.shape == wanted.shape, f"shape {got.shape}, expected {wanted.shape}"
        floating = wanted.dtype.kind == "f"
        assert not floating or got.dtype == wanted.dtype, f"{got.dtype}, expected {wanted.dtype}"
        half = wanted.dtype == "float16"
        got, wanted = got.astype("float64"), wanted.astype("float64")
        near = 2e-3 if half else rtol
        scale = numpy.abs(wanted[numpy.isfinite(wanted)]).max(initial=0)
        options = {"rtol": near, "atol": 0.1 * near * scale} if floating else {"rtol": 0}
        numpy.testing.assert_allclose(got, wanted, **options)
