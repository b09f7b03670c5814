"""Files of PyTorch's `safetensors`: they are loaded, and ours are read there."""

import pytest

torch = pytest.importorskip("torch")
library = pytest.importorskip("safetensors.torch")

import numpy  # noqa: E402

import mtorch  # noqa: E402
from mtorch import Adam, Module, Sequential, layers  # noqa: E402


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_that_torch_wrote_is_loaded(tmp_path, dtype, metadata):
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).to(getattr(torch, dtype))
    state = theirs.state_dict()
    library.save_file(state, tmp_path / "theirs.safetensors", metadata)
    ours = Sequential(layers.Linear(4, 3, rng=0), layers.BatchNorm1d(3))
    assert mtorch.load(tmp_path / "theirs.safetensors", ours) == {}
    for name, value in ours.state_dict().items():
        numpy.testing.assert_array_equal(value, state[name].to(torch.float64).numpy().astype(value.dtype))


def test_torch_reads_a_checkpoint_of_ours(tmp_path):
    module = Module(Sequential(layers.Linear(4, 3, rng=0), layers.Linear(3, 2, rng=0)))
    mtorch.save(tmp_path / "ours.safetensors", module, Adam(module), epoch=3)
    found = library.load_file(tmp_path / "ours.safetensors")
    for name, value in module.state_dict().items():
        numpy.testing.assert_array_equal(found[name].numpy(), value)
