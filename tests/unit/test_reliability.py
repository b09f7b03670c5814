"""What docs/reliability.md promises: hostile arguments are refused by name, memory is flat, one seed is one result."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

import mtorch
from apps.mnist.__main__ import main as recogniser
from apps.mnist.recipes import RECIPES
from mtorch import initializers, layers, losses, models, optim
from mtorch.checks import physical_memory
from mtorch.data import ArrayDataset, DataLoader, digits, noisy_sine, sine_cosine, who_acts
from mtorch.optim import schedules

ROOT = Path(__file__).parents[2]
NET = mtorch.Module(layers.Linear(3, 2))
PAIR = numpy.ones((2, 3), "float32")
HUGE = 10**400
unix = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="this system has no fork or no /proc")


def tool(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "tools" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------- hostile arguments


@unix
@pytest.mark.slow
def test_fifteen_thousand_hostile_arguments_and_inputs_work_or_are_refused_by_name():
    assert "0 FAILED" in tool("bad_inputs.py")


class Careless:
    """What the tool must notice."""

    def __init__(self, size):
        [][size] if size == 1 else None
        int(size) if isinstance(size, float) else None
        if size == 2:
            raise ValueError("wrong")
        if size == 3:
            raise ValueError("Careless is wrong")
        if isinstance(size, list):
            raise TypeError("Careless expected a size, got one of a list" + "x" * 3000)


@pytest.mark.parametrize(
    "value, said",
    [
        (1, "IndexError"), (float("inf"), "OverflowError"), (2, "does not name Careless"), (3, "does not name size"),
        ([1], "characters"),
    ],
)  # fmt: skip
def test_the_tool_notices_what_is_not_allowed(value, said):
    import bad_inputs

    (case,) = bad_inputs.arguments(
        Careless, {"size": 0}, lambda made, finite: None, [bad_inputs.Hostile("it", lambda: value)]
    )
    assert bad_inputs.verdict(case).startswith("FAILED") and said in bad_inputs.verdict(case)


BEYOND = [
    (lambda n: layers.Linear(n, 2), "Linear expected in_dim"),
    (lambda n: layers.Conv2d(1, 2, n), "Conv2d expected kernel_size"),
    (lambda n: layers.Conv2d(1, 2, 3, stride=n), "Conv2d expected stride"),
    (lambda n: layers.LSTM(2, 3, num_layers=n), "LSTM expected num_layers"),
    (lambda n: layers.Embedding(n, 2), "Embedding expected num_embeddings"),
    (lambda n: layers.Embedding(2, 2, padding_idx=n), "Embedding expected padding_idx"),
    (lambda n: layers.BatchNorm1d(n), "BatchNorm1d expected num_features"),
    (lambda n: layers.LayerNorm((2, n)), "LayerNorm expected normalized_shape"),
    (lambda n: layers.Reshape((2, n)), "Reshape expected shape"),
    (lambda n: layers.Slice((0, n)), "Slice expected index"),
    (lambda n: layers.Sum(n), "Sum expected axis"),
    (lambda n: layers.Softmax(dim=n), "Softmax expected dim"),
    (lambda n: layers.Linear(2, 2, rng=n), "Linear rng expected a seed"),
    (lambda n: layers.LSTMCell(2, 2).initial_state(n), "LSTMCell expected n"),
    (lambda n: losses.CrossEntropyLoss(ignore_index=n), "CrossEntropyLoss expected ignore_index"),
    (lambda n: schedules.StepLR(0.1, n), "StepLR expected step_size"),
    (lambda n: schedules.MultiStepLR(0.1, [1, n]), "MultiStepLR expected milestones"),
    (lambda n: DataLoader(ArrayDataset(PAIR), batch_size=n), "DataLoader expected batch_size"),
    (lambda n: DataLoader(ArrayDataset(PAIR), rng=n), "DataLoader rng expected a seed"),
    (lambda n: digits(seed=n), "digits expected seed"),
    (lambda n: mtorch.seed(n), "seed expected a seed"),
    (lambda n: initializers.as_generator(n), "rng expected a seed"),
    (lambda n: mtorch.sum(PAIR, n), "Sum expected axis"),
    (lambda n: models.mlp(hidden=n), "mlp expected hidden"),
    (lambda n: mtorch.DataParallel(layers.ReLU(), workers=n), "DataParallel expected workers"),
]


@pytest.mark.parametrize("number", [2**63, 2**64, HUGE, 10**5000], ids=["2**63", "2**64", "10**400", "10**5000"])
@pytest.mark.parametrize("make, text", BEYOND, ids=[text for _, text in BEYOND])
def test_an_integer_beyond_64_bits_is_refused_by_class_and_argument(make, text, number):
    with pytest.raises(ValueError, match=rf"{text}.* up to 2\*\*63 - 1, got ") as error:
        make(number)
    assert len(str(error.value)) < 300


TOO_LARGE = [
    (lambda: layers.LeakyReLU(HUGE), "LeakyReLU expected a finite negative_slope"),
    (lambda: layers.Linear(2, 2, coe=HUGE), "Linear expected a finite coe"),
    (lambda: layers.BatchNorm1d(2, eps=HUGE), "BatchNorm1d expected eps"),
    (lambda: layers.Dropout(HUGE), "Dropout expected p"),
    (lambda: layers.Power(HUGE), "Power expected a finite exponent"),
    (lambda: optim.SGD(NET, HUGE), "SGD expected a learning rate lr"),
    (lambda: optim.Adam(NET, betas=(0.9, HUGE)), "Adam expected betas"),
    (lambda: optim.Adam(NET, eps=HUGE), "Adam expected eps"),
    (lambda: optim.SGD(NET, 0.1, clip_norm=HUGE), "SGD expected clip_norm"),
    (lambda: NET.step(HUGE), "expected a finite learning rate"),
    (lambda: losses.HuberLoss(delta=HUGE), "HuberLoss expected delta"),
    (lambda: schedules.StepLR(HUGE, 1), "StepLR expected lr"),
    (lambda: initializers.normal(std=HUGE), "normal expected std"),
]


@pytest.mark.parametrize("make, text", TOO_LARGE, ids=[text for _, text in TOO_LARGE])
def test_a_number_beyond_floats_is_refused_by_class_and_argument(make, text):
    with pytest.raises(ValueError, match=f"{text}.*, got (lr=)?an integer of 1329 bits"):
        make()


N = 10**9
BEYOND_MEMORY = [
    (lambda: layers.Linear(N, N), "Linear expected .* in_dim=1000000000, out_dim=1000000000: 7,450,580,596 GiB"),
    (lambda: layers.Conv2d(N, N, 3), "Conv2d expected .* in_channels=1000000000, out_channels"),
    (lambda: layers.LSTM(N, N), "LSTM expected .* in_dim=1000000000"),
    (lambda: layers.LSTM(2, 2, num_layers=2**62), "LSTM expected .* num_layers="),
    (lambda: layers.GRUCell(N, N), "GRUCell expected .* in_dim="),
    (lambda: layers.Embedding(N, N), "Embedding expected .* num_embeddings="),
    (lambda: layers.MultiHeadAttention(N, 1), "MultiHeadAttention expected .* embed_dim="),
    (lambda: layers.PositionalEmbedding(N, N), "PositionalEmbedding expected .* max_length="),
    (lambda: layers.BatchNorm2d(2**62), "BatchNorm2d expected .* num_features="),
    (lambda: layers.LayerNorm((N, N)), "LayerNorm expected .* normalized_shape="),
    (lambda: layers.GroupNorm(1, 2**62), "GroupNorm expected .* num_channels="),
    (lambda: layers.PReLU(2**62), "PReLU expected .* num_parameters="),
    (lambda: sine_cosine(0, 2**40, 2**20), "sine_cosine expected .* count="),
    (lambda: noisy_sine(2**62), "noisy_sine expected .* points="),
    (lambda: who_acts(2**60), "who_acts expected .* pairs="),
]


@pytest.mark.parametrize("make, text", BEYOND_MEMORY, ids=[text.split()[0] for _, text in BEYOND_MEMORY])
def test_a_size_beyond_the_memory_is_refused_before_anything_is_drawn(make, text):
    begin = time.process_time()
    with pytest.raises(MemoryError, match=text):
        make()
    assert time.process_time() - begin < 0.5


def test_what_fits_into_the_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr("mtorch.checks.physical_memory", lambda: 8 * (1 << 25))
    mtorch.checks.check_memory("Layer", 1 << 25, n=1 << 25)
    with pytest.raises(MemoryError, match="Layer expected sizes that fit into memory, got n=33554433"):
        mtorch.checks.check_memory("Layer", (1 << 25) + 1, n=(1 << 25) + 1)
    assert physical_memory() > 1 << 28


def test_an_error_of_numpy_itself_tells_the_layer():
    class Broken(mtorch.Layer):
        def forward(self, x):
            return x.reshape(7)

    with pytest.raises(ValueError) as error:
        Broken()(PAIR)
    assert error.value.__notes__ == ["in Broken()"]


@pytest.mark.parametrize("option", ["epochs", "batch-size", "seed", "workers"])
@pytest.mark.parametrize("text", [str(2**63), "1" + "0" * 400, "1" + "0" * 5000])
def test_an_absurd_number_on_a_command_line_is_one_line(capsys, tmp_path, option, text):
    with pytest.raises(SystemExit) as stop:
        recogniser([f"--{option}", text, "--data", "digits", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and f"--{option}: expected an integer" in said
    assert said.count("\n") == 1 and len(said) < 400


# ---------------------------------------------------------------------- steady, and the same bits


@unix
@pytest.mark.slow
def test_memory_is_flat_while_sizes_change():
    assert tool("steady.py", "--steps", "3000").count("steps") == 4


@pytest.mark.slow
def test_a_size_that_is_seen_once_is_not_kept_for_ever():
    import tracemalloc

    layer = layers.Conv1d(1, 1, 9)

    def sizes(start: int, stop: int) -> int:
        for n in range(start, stop):
            layer.predict(numpy.zeros((1, 1, n), "float32"))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = sizes(20, 620)
        assert sizes(620, 1100) - first < 300_000
    finally:
        tracemalloc.stop()


BITS = """
import hashlib, numpy
from apps.mnist.recipes import RECIPES, make_loss, make_optimizer
from mtorch import CrossEntropyLoss, Module, models, optim

rng = numpy.random.default_rng(5)
x, labels = rng.random((6, 784), dtype="float32"), numpy.arange(6)
small = rng.random((6, 64), dtype="float32")

def told(name, module, loss_func, optimizer, x):
    for _ in range(2):
        loss = loss_func(module(x), labels[:6])
        loss.backward()
        optimizer.step()
    digest = hashlib.sha256(numpy.float64(loss.value).tobytes())
    for path, value in sorted(module.state_dict().items()):
        digest.update(path.encode() + value.tobytes())
    print(name, digest.hexdigest())

for name, recipe in RECIPES.items():
    large = name in ("lenet", "lenet_large")
    narrow = {"hidden": 32} if name in ("deep", "dropout", "batchnorm", "residual") else {}
    module = Module(recipe.build(pixels=784 if large else 64, classes=10, rng=7, **narrow))
    optimizer = make_optimizer(recipe.optimizer, module, recipe.lr or 0.001, 0.9, 1)
    told(name, module, make_loss(recipe.loss, module), optimizer, x if large else small)
module = Module(models.bilstm(9, classes=6, rng=7))
told("bilstm", module, CrossEntropyLoss(module), optim.Adam(module), rng.integers(0, 9, (5, 6)))
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bits_for_every_model_and_recipe():
    """Also with other hashes of strings, on which the order of sets depends."""

    def bits(hashes: str) -> dict[str, str]:
        environment = os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        return dict(line.split() for line in done.stdout.splitlines())

    first, second = bits("1"), bits("2")
    assert first == second and set(first) == {*RECIPES, "bilstm"} and len(set(first.values())) == len(first)
