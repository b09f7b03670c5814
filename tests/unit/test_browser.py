"""A browser's Python (Pyodide) starts no thread or process and loads no C library: everything that learns works there.

Each script runs in a process of its own, from which everything is taken away at once before numpy is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BROWSER = """
import _thread, ctypes, os, sys, threading

def refuse(error, text):
    def refused(*args, **options):
        raise error(text)
    return refused

_thread.start_new_thread = threading._start_new_thread = refuse(RuntimeError, "can't start new thread")
_thread.start_joinable_thread = threading._start_joinable_thread = _thread.start_new_thread
threading.Thread.start = refuse(RuntimeError, "can't start new thread")
ctypes.CDLL.__init__ = refuse(OSError, "no library can be loaded")  # PyDLL is one too
for name in ("multiprocessing", "subprocess", "_posixsubprocess", "fcntl", "mmap", "resource", "tqdm"):
    sys.modules[name] = None  # importing it is an ImportError
for name in ("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)
"""

LEARNING = """
import tempfile, numpy, mtorch
from mtorch import Adam, CrossEntropyLoss, DataParallel, Module, Sequential, layers, models
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.testing import check_gradients
from mtorch.training import evaluate, progress, train_epoch

data = digits(size={size})
images = data.train_images.reshape(len(data.train_images), -1)[:256].astype("float32") / data.train_images.max()
labels = data.train_labels[:256]
loader = DataLoader(ArrayDataset(images, labels), batch_size=32, shuffle=True, rng=0)
net = {net}
module = Module(net)
assert "parameters" in mtorch.summary(module)
loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr={lr})
scores = []
for epoch in range({epochs}):
    with progress(loader, "epoch") as batches:
        scores.append(train_epoch(module, loss_func, optimizer, batches))
assert scores[-1].loss < 0.8 * scores[0].loss, scores
assert evaluate(module, loss_func, loader).loss < scores[0].loss
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "net.npz")
    mtorch.save(path, module, optimizer, epochs=len(scores))
    before = module.predict(images[:8])
    module.load_state_dict({{name: 0 * value for name, value in module.state_dict().items()}})
    assert mtorch.load(path, module, optimizer) == {{"epochs": len(scores)}}
    assert (module.predict(images[:8]) == before).all()
print("learnt")
"""

NETS = {
    "mlp": {"net": "models.deep(64, hidden=32, rng=0)", "size": 8, "epochs": 3},
    "lenet": {"net": "models.lenet(rng=0)", "size": 28, "epochs": 3},
    "lstm": {"net": "models.lstm(64, rng=0)", "size": 8, "epochs": 6},
    "attention": {"net": "models.transformer(64, width=16, blocks=1, rng=0)", "size": 8, "epochs": 4},
    "divided": {"net": "DataParallel(models.deep(64, hidden=32, rng=0), workers=2)", "size": 8, "epochs": 3},
}

CHECKING = """
import numpy
from mtorch import CrossEntropyLoss, layers
from mtorch.testing import check_gradients

nn = layers.on(numpy, dtype="float64", rng=0)
for layer, inputs in (
    (nn.Linear(3, 2), (4, 3)), (nn.Conv2d(2, 3, 3, padding=1), (2, 2, 4, 4)), (nn.MaxPool2d(2), (2, 1, 4, 4)),
    (nn.LSTM(2, 3), (4, 2, 2)), (nn.GRU(2, 3), (4, 2, 2)), (nn.MultiHeadAttention(4, 2), (3, 2, 4)),
):
    check_gradients(layer, inputs)
print("checked")
"""

LARGE = """
import mtorch, numpy
from mtorch import Module, layers, models
net = models.lenet(rng=0)  # at this size bodies that know threads would like to use them
x = numpy.ones((64, 784), "float32")
net.backward(net(x))
rnn = layers.LSTM(64, 256)
rnn.backward(rnn(numpy.ones((32, 64, 64), "float32")))
print("computed")
"""

TRAINING = """
import signal, tempfile
from mtorch import Adam, CrossEntropyLoss, Module, models
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.training import Every, Trainer, environment, run

assert environment()["threads"] in ("unknown", os.environ.get("OMP_NUM_THREADS"))
signal.signal = refuse(ValueError, "signal only works in main thread")  # and who would send one?
data = digits(size=8)
images, labels = data.train_images.reshape(-1, 64)[:256].astype("float32") / 16, data.train_labels[:256]

def trainer(out):
    module = Module(models.deep(64, hidden=32, rng=0))
    loader = DataLoader(ArrayDataset(images, labels), batch_size=32, shuffle=True, rng=0)
    return Trainer(module, CrossEntropyLoss(module), Adam(module), loader, out=out, checkpoint_every=Every(steps=3))

def main():
    with tempfile.TemporaryDirectory() as folder:
        whole, part = trainer(None), trainer(folder)
        whole.fit(epochs=4), part.fit(steps=19)
        again = trainer(folder)
        assert again.resume()
        again.fit(epochs=4)
        assert (again.module.to_vector() == whole.module.to_vector()).all() and again.history == whole.history

assert run(main) == 0
print("trained")
"""

DOWNLOAD = """
import pathlib, tempfile
from mtorch.data import download

class Answer:
    headers = {}
    pieces = [b"", b" seven", b"bytes"]

    def read1(self, count):
        return self.pieces.pop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

download.urllib.request.urlopen = lambda request, timeout: Answer()
with tempfile.TemporaryDirectory() as folder:
    print(download.download("name", pathlib.Path(folder), ["http://mirror/"], lambda path: path.read_text()))
"""

TERMINAL = """
import io
from mtorch.training import progress

class Terminal(io.StringIO):
    def isatty(self):
        return True

sys.stderr = Terminal()
with progress([1, 2], "epoch") as batches:
    print(*batches)
"""


def run(script: str, fast: str) -> str:
    """What the script prints in a browser; warnings are errors there."""
    command = [sys.executable, "-W", "error", "-c", BROWSER + script]
    environment = os.environ | {"MTORCH_FAST": fast, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("fast", ["0", "1"])
@pytest.mark.parametrize("net", NETS)
def test_a_net_is_trained_saved_and_loaded_in_a_browser(net, fast):
    assert run(LEARNING.format(**{"lr": 0.01} | NETS[net]), fast) == "learnt"


def test_a_trainer_stops_and_goes_on_in_a_browser():
    assert run(TRAINING, "1").endswith("trained")


@pytest.mark.parametrize("fast", ["0", "1"])
def test_gradients_are_checked_in_a_browser(fast):
    assert run(CHECKING, fast) == "checked"


@pytest.mark.parametrize("fast", ["0", "1"])
def test_large_nets_compute_in_one_thread_in_a_browser(fast):
    assert run(LARGE, fast) == "computed"


def test_a_download_asks_without_a_thread_in_a_browser():
    assert run(DOWNLOAD, "1") == "bytes seven"


def test_a_terminal_without_tqdm_shows_no_bar():
    assert run(TERMINAL, "1") == "1 2"


def test_the_package_holds_no_compiled_code():
    """So its wheel is `py3-none-any`."""
    compiled = {".c", ".cc", ".cpp", ".cu", ".pyx", ".pxd", ".so", ".pyd", ".dll", ".dylib", ".a", ".o"}
    assert not [path for path in (ROOT / "mtorch").rglob("*") if path.suffix in compiled]
    settings = (ROOT / "pyproject.toml").read_text()
    assert "ext-modules" not in settings and not (ROOT / "setup.py").exists()
