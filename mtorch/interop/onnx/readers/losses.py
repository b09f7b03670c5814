"""The two losses that ONNX has, as layers: nets are sometimes written with theirs."""

from typing import Any

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import OnnxLabelLoss
from mtorch.interop.onnx.reader import Reader
from mtorch.losses import CrossEntropyLoss, NLLLoss


def label_loss(cls: Any) -> Any:
    def read(r: Reader, node: Operation) -> Any:
        x, labels, weight = r.needs(node, 0), r.needs(node, 1), r.known(node, 2)
        reduction, ignored = node.option("reduction", str, "mean"), node.option("ignore_index", int)
        if reduction not in ("mean", "sum", "none"):
            raise OnnxError(f"{node} expected a known reduction")
        loss_func = cls(weight=weight, ignore_index=ignored, reduction=reduction)
        rank = r.rank(node)
        last = x
        if rank > 2:  # the class axis is the last one here
            last = r.add(layers.Transpose((0, *range(2, rank), 1), dtype=r.dtype), x)
        shape = labels.shape if reduction == "none" else ()
        value = r.add(OnnxLabelLoss(loss_func, dtype=r.dtype), last, labels, shape=shape)
        if len(node.outputs) == 1:
            return value
        return value, r.add(layers.LogSoftmax(axis=1, dtype=r.dtype), x, shape=x.shape)

    return read


READERS: dict[str, Any] = {
    "NegativeLogLikelihoodLoss": label_loss(NLLLoss),
    "SoftmaxCrossEntropyLoss": label_loss(CrossEntropyLoss),
}
