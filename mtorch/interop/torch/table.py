"""Which layers PyTorch has too, under which arguments: the table that `from_torch` and `to_torch` read."""

from typing import Any

from mtorch.parameter import Parameter

# Constructor arguments by torch's names, `theirs:ours` where ours has another. But for `OURS` the classes share names.
CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
TRANSPOSED = "in_channels out_channels kernel_size stride padding output_padding groups bias dilation"
RECURRENT = "input_size:in_dim hidden_size:out_dim num_layers bias batch_first dropout bidirectional"
CELL = "input_size:in_dim hidden_size:out_dim bias"
CHANNELS = "num_features eps momentum affine"
ARGUMENTS = {
    "Linear": "in_features:in_dim out_features:out_dim bias",
    **dict.fromkeys(("ReLU", "SiLU", "Sigmoid", "Tanh", "Identity"), ""),
    "LeakyReLU": "negative_slope", "PReLU": "num_parameters", "ELU": "alpha", "GELU": "approximate",
    "Softplus": "beta threshold", "Hardtanh": "min_val max_val", "Softmax": "dim", "LogSoftmax": "dim",
    "Conv1d": CONV, "Conv2d": CONV, "ConvTranspose1d": TRANSPOSED, "ConvTranspose2d": TRANSPOSED,
    **dict.fromkeys(("MaxPool1d", "MaxPool2d"), "kernel_size stride padding dilation ceil_mode"),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d"), "kernel_size stride padding ceil_mode count_include_pad"),
    "AdaptiveAvgPool2d": "output_size", "Upsample": "size scale_factor mode align_corners",
    "BatchNorm1d": CHANNELS, "BatchNorm2d": CHANNELS,
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d"), f"{CHANNELS} track_running_stats"),
    "LayerNorm": "normalized_shape eps elementwise_affine bias", "GroupNorm": "num_groups num_channels eps affine",
    "RMSNorm": "normalized_shape eps elementwise_affine", "Dropout": "p",
    "RNN": f"{RECURRENT} nonlinearity", "GRU": RECURRENT, "LSTM": RECURRENT,
    "RNNCell": f"{CELL} nonlinearity", "GRUCell": CELL, "LSTMCell": CELL,
    "MultiheadAttention": "embed_dim num_heads dropout bias",
    "Embedding": "num_embeddings embedding_dim padding_idx", "Flatten": "start_dim end_dim",
}  # fmt: skip
OURS = {"MultiheadAttention": "MultiHeadAttention"}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}

# Classes of torch that are one of these with fixed arguments.
SPECIAL = {"ReLU6": "Hardtanh", "UpsamplingNearest2d": "Upsample", "UpsamplingBilinear2d": "Upsample"}

# What torch's options must be, because ours has none of them.
REQUIRED: dict[str, dict[str, Any]] = {
    "LSTM": {"proj_size": 0}, "AvgPool2d": {"divisor_override": None},
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d"), {"padding_mode": "zeros"}),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d"), {"return_indices": False}),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d"), {"track_running_stats": True}),
    "Embedding": {"max_norm": None, "scale_grad_by_freq": False},
    "MultiheadAttention": {
        "batch_first": False, "_qkv_same_embed_dim": True, "bias_k": None, "add_zero_attn": False,
    },
}  # fmt: skip

SEEN = ("bias", "affine", "elementwise_affine")  # options that show in the parameters alone
BIASES = ("bias", "bias_ih_l0", "bias_ih", "in_proj_bias")  # where a layer has its bias
WINDOW = {"kernel_size": "kernel", "stride": "stride", "padding": "padding", "dilation": "dilation"}


def arguments(theirs: str) -> list[tuple[str, str]]:
    """(torch's, ours) for each constructor argument of that class."""
    return [(name.partition(":")[0], name.rpartition(":")[2]) for name in ARGUMENTS[theirs].split()]


def option_of_torch(module: Any, name: str) -> Any:
    """What torch's module was constructed with."""
    if name == "bias" and isinstance(getattr(module, "bias", None), bool):
        return module.bias  # of recurrent modules
    if name == "bias":
        return any(getattr(module, bias, None) is not None for bias in ("bias", "in_proj_bias"))
    value = getattr(module, name)
    if name == "dim" and value is None:
        raise ValueError("mtorch has no dim=None, which depends on the number of axes")
    if name == "threshold":
        return value if abs(value) < float("inf") else None
    return tuple(value) if isinstance(value, list) else value


def option_of_ours(layer: Any, name: str) -> Any:
    """What the layer was constructed with, as torch takes it."""
    if name == "bias":
        return any(isinstance(getattr(layer, bias, None), Parameter) for bias in BIASES)
    if name in SEEN:
        return layer.weight is not None
    if name in WINDOW and not (name == "padding" and hasattr(layer, "padding")):
        return getattr(layer.window, WINDOW[name])[2 - layer.rank :]
    special = {
        "ceil_mode": lambda: layer.window.ceil,
        "output_padding": lambda: layer.output_padding[2 - layer.rank :],
        "dim": lambda: layer.axis,
        "normalized_shape": lambda: layer.shape,
        "size": lambda: None if layer.by_factor else layer.given,
        "scale_factor": lambda: layer.given if layer.by_factor else None,
        "align_corners": lambda: None if layer.mode == "nearest" else layer.align_corners,
        "threshold": lambda: 40.0 if layer.threshold is None else layer.threshold,  # beyond it log(1 + exp x) = x
        "dropout": lambda: getattr(layer.dropout, "p", layer.dropout),
    }
    return special[name]() if name in special else getattr(layer, name)
