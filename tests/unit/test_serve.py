"""The page to draw digits on, over HTTP. What it looks like in a browser is in test_serve_browser.py."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import strokes

from apps.mnist import serve as app
from apps.mnist.__main__ import main
from apps.mnist.ink import SIDE
from apps.mnist.recipes import RECIPES, make_loss
from apps.mnist.serve import models, pad, web
from apps.mnist.serve.model import Model
from apps.mnist.serve.models import Models, model_from
from mtorch import SGD, Module, save
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.training import train_epoch

ROOT = Path(__file__).parents[2]
FIVE, SEVEN = (strokes.inked([0.7 * s + 0.15 for s in strokes.drawn(digit)], SIDE) for digit in (5, 7))


def text(ink):
    return base64.b64encode(ink.tobytes()).decode()


def settings(model, side=28):
    return {"model": model, "loss": RECIPES[model].loss, "side": side}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder with weights as a first start keeps them; of these nets only mlp has learnt something."""
    out = tmp_path_factory.mktemp("run")
    (out / "draw").mkdir()
    data, about = digits(), {"training": models.VERSION, "trained_on": "digits", "accuracy": 0.9}
    for name in models.OFFERED:
        module = Module(RECIPES[name].build(784, rng=0))
        if name == "mlp":
            images, labels = models.with_variety(data, 4)
            batches = DataLoader(ArrayDataset(RECIPES[name].inputs(images), labels), batch_size=20, shuffle=True, rng=0)
            for _ in range(8):
                train_epoch(module, make_loss("square", module), SGD(module, lr=0.1), batches)
        stored = {"images": data.train_images[:50], "labels": data.train_labels[:50]}
        save(out / "draw" / f"{name}.npz", module, settings=settings(name), **about, **stored)
    return out


@pytest.fixture(scope="module")
def server(folder):
    with running(Models(folder)) as site:
        yield site


class running:
    """A server in a thread."""

    def __init__(self, its_models):
        self.server = web.Server(0, its_models)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.server.models.start()
        self.server.models.thread.join()
        self.thread.start()
        return self.server

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def raw(server, request, patience=20, end=False):
    """What the server answers to these bytes: status, headers, body; (None, …) if it only closes."""
    with socket.create_connection(server.server_address, timeout=patience) as link:
        link.sendall(request.encode() if isinstance(request, str) else request)
        if end:
            link.shutdown(socket.SHUT_WR)
        data = b""
        while piece := link.recv(1 << 16):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return SimpleNamespace(status=int(first.split()[1]) if first else None, headers=headers, body=body)


def ask(server, path, body=None, method=None, **headers):
    """One request as the page makes it; header names have _ for -."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    sent = {"Host": server.address[7:-1]}
    if body is not None:
        sent |= {"Content-Type": "application/json", "Content-Length": len(data)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value is not None)
    return raw(server, f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)


def answer(server, path, body=None):
    reply = ask(server, path, body)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def unpacked(part):
    return numpy.frombuffer(base64.b64decode(part["data"]), numpy.int8).reshape(part["shape"])


# ---------------------------------------------------------------------- what it answers


@pytest.mark.parametrize("path", web.FILES)
def test_the_page_and_its_parts_come_with_headers_that_keep_others_out(server, path):
    reply = ask(server, path)
    assert reply.status == 200 and reply.headers["content-type"] == web.FILES[path][1]
    assert len(reply.body) == int(reply.headers["content-length"]) > 100
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-security-policy"].startswith("default-src 'self';")
    head = ask(server, path, method="HEAD")
    assert head.status == 200 and not head.body and head.headers["content-length"] == reply.headers["content-length"]


def test_the_page_uses_nothing_from_elsewhere_and_no_inline_code():
    for path in web.PAGE.iterdir():
        found = re.findall(r"(?:https?:)?//[\w.]+", re.sub(r'xmlns="[^"]*"', "", path.read_text()))
        assert not [each for each in found if "." in each], path
    page = (web.PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", page)


def test_what_was_promised_to_checks_is_on_the_page():
    page = (web.PAGE / "index.html").read_text()
    for part in ('<canvas id="pad"', 'id="guess"', 'id="clear"', '<select id="model"', 'id="teach"', 'id="undo"'):
        assert part in page
    assert re.findall(r'<option value="(\w+)">', page) == ["mlp", "lenet", "gru"]


def test_the_state_says_which_nets_are_there(server):
    state = answer(server, "/state")
    assert state["ready"] and state["first"] == "mlp" and list(state["models"]) == ["mlp", "lenet", "gru"]
    assert state["models"]["mlp"] == {"parameters": 13_002, "undo": 0, "trained_on": "digits", "accuracy": 0.9}


@pytest.mark.parametrize("model, shapes", [
    ("mlp", [[16, 28, 28], [1, 1, 16]]), ("lenet", [[6, 28, 28], [16, 10, 10]]), ("gru", [[1, 28, 64]]),
])  # fmt: skip
def test_a_drawing_is_answered_with_all_that_the_page_shows(server, model, shapes):
    look = answer(server, "/look", {"model": model, "ink": text(FIVE)})
    assert look["model"] == model and set(look["answers"]) == {"mlp", "lenet", "gru"}
    for shares in look["answers"].values():
        assert len(shares) == 10 and abs(sum(shares) - 1) < 0.002
    assert numpy.argmax(look["answers"]["mlp"]) == 5
    seen, gradient = unpacked(look["seen"]), unpacked(look["gradient"])
    assert seen.shape == gradient.shape == (1, 28, 28) and seen.min() == 0 and seen.max() == 127
    assert gradient.min() < 0 < gradient.max()
    assert [layer["pictures"]["shape"] for layer in look["layers"]] == shapes


@pytest.mark.parametrize("ink", [FIVE, SEVEN, strokes.inked([0.3 * s + 0.6 for s in strokes.drawn(2)], SIDE, 0.03)])
def test_a_drawing_is_seen_as_predict_sees_a_picture_of_it(ink):
    Image = pytest.importorskip("PIL.Image")
    from apps.mnist.pictures import digits_in

    seen, wanted = pad.image_of(ink), digits_in(Image.fromarray(255 - ink))[0].image
    assert numpy.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > 0.98


def test_all_ink_counts_where_a_reader_of_photographs_would_leave_some_out():
    apart = FIVE.copy()
    apart[:, 150:] = 0
    apart[20:60, 185:193] = 255  # a stroke far from the digit, as dark as it
    assert pad.image_of(apart)[:, 21:].any()
    dot = numpy.zeros((SIDE, SIDE), numpy.uint8)
    dot[99:102, 99:102] = 255
    assert pad.image_of(dot).any()


@pytest.mark.parametrize("model", ["mlp", "lenet", "gru", "batchnorm", "transformer", "linear", "conv1d", "residual"])
def test_the_pixels_for_and_against_are_the_gradient_of_the_score(model):
    """Along the gradient the score rises by the square of its length."""
    module = Module(RECIPES[model].build(784, rng=0, dtype="float64"))
    net, image = Model(module, settings(model)), pad.image_of(FIVE)
    x = net.inputs(image[None]) + numpy.random.default_rng(0).normal(0, 0.1, (1, 784))  # no ties for max pooling
    net.inputs = lambda images: x  # in float64
    inside = net.inside(image)
    gradient = inside["gradient"].reshape(x.shape)
    guess = inside["answer"].argmax()

    def score(x):
        layers = list(module.core())
        for layer in layers[:-1] if type(layers[-1]).__name__ == "Sigmoid" else layers:
            x = layer.predict(x)
        return x[0, guess] - numpy.delete(x[0], guess).mean()

    step = 1e-5 / numpy.sqrt((gradient**2).sum())
    rise = (score(x + step * gradient) - score(x - step * gradient)) / (2 * step)
    assert abs(rise / (gradient**2).sum() - 1) < 1e-4
    assert 1 <= len(inside["layers"]) <= 2
    assert not any(p.grad.any() for p in module.parameters().values())


# ---------------------------------------------------------------------- lessons


def test_a_lesson_is_learnt_and_taken_back_to_the_same_bits(folder):
    """Twenty-one clicks and as many back: parameters, buffers, optimizer and random numbers of every moment."""
    with running(Models(folder)) as site:
        others = [ask(site, f"/weights/{name}.npz").body for name in ("lenet", "gru")]
        moments, steps = [], []
        for number in range(21):
            moments.append(ask(site, "/weights/mlp.npz").body)
            ink, digit = (SEVEN, 1) if number % 2 else (FIVE, 3)
            told = answer(site, "/teach", {"model": "mlp", "ink": text(ink), "digit": digit})
            assert told["undo"] == number + 1
            look = answer(site, "/look", {"model": "mlp", "ink": text(ink)})
            assert numpy.argmax(look["answers"]["mlp"]) == digit
            steps.append(told["steps"])
        assert steps[0] > 0 and len(set(moments)) > 2
        assert answer(site, "/state")["models"]["mlp"]["undo"] == 21
        for number in reversed(range(21)):
            assert answer(site, "/undo", {"model": "mlp"})["undo"] == number
            assert ask(site, "/weights/mlp.npz").body == moments[number]
        assert ask(site, "/undo", {"model": "mlp"}).status == 409
        assert [ask(site, f"/weights/{name}.npz").body for name in ("lenet", "gru")] == others


@pytest.mark.parametrize("model", ["batchnorm", "dropout", "gru"])
def test_buffers_and_the_random_numbers_of_layers_go_back_too(model, monkeypatch):
    monkeypatch.setattr("apps.mnist.serve.model.STEPS", 2)
    net, data = Model(Module(RECIPES[model].build(784, rng=0)), settings(model)), digits()
    place = SimpleNamespace(get=lambda name: net)
    before = web.weights_of(place, model)
    net.teach(pad.image_of(FIVE), 5, (data.train_images, data.train_labels))
    assert web.weights_of(place, model) != before
    net.undo()
    assert web.weights_of(place, model) == before


def test_one_lesson_leaves_what_was_known(folder):
    net, data = model_from(folder / "draw" / "mlp.npz"), digits()

    def accuracy():
        return (net.state.module.predict(net.inputs(data.test_images)).argmax(-1) == data.test_labels).mean()

    before = accuracy()
    told = net.teach(pad.image_of(FIVE), 6, (data.train_images, data.train_labels))
    assert told["before"] < 0.5 < told["after"] and accuracy() > before - 0.04


def test_drawings_are_answered_while_a_lesson_goes_on(folder, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    with running(Models(folder)) as site:
        net = site.models.loaded["mlp"]
        knows = net._knows

        def slowly(*args):
            begun.set()
            assert go_on.wait(20)
            return knows(*args)

        monkeypatch.setattr(net, "_knows", slowly)
        before = answer(site, "/look", {"model": "mlp", "ink": text(FIVE)})
        lesson = threading.Thread(target=answer, args=(site, "/teach", {"model": "mlp", "ink": text(FIVE), "digit": 2}))
        lesson.start()
        try:
            assert begun.wait(20)
            assert answer(site, "/look", {"model": "mlp", "ink": text(FIVE)}) == before
        finally:
            go_on.set()
            lesson.join()
        assert answer(site, "/look", {"model": "mlp", "ink": text(FIVE)}) != before


def test_many_ask_at_once(server):
    wanted = answer(server, "/look", {"model": "lenet", "ink": text(FIVE)})
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(answer(server, "/look", {"model": "lenet", "ink": text(FIVE)})))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 12


# ---------------------------------------------------------------------- what it refuses


LOOK = {"model": "mlp", "ink": text(FIVE)}
TEACH = LOOK | {"digit": 5}


@pytest.mark.parametrize("path, body, status", [
    ("/look", b"", 400), ("/look", b"{", 400), ("/look", b"[]", 400), ("/look", b"null", 400),
    ("/look", b"\xff\xfe", 400),
    ("/look", b"[" * 100_000, 400), ("/look", b'{"a":' * 20_000, 400), ("/look", b"1" * 100_000, 400),
    ("/look", b'{"model": NaN, "ink": ""}', 400), ("/look", {}, 400), ("/look", LOOK | {"more": 1}, 400),
    ("/look", LOOK | {"model": "resnet"}, 400), ("/look", LOOK | {"model": ["mlp"]}, 400),
    ("/look", LOOK | {"model": None}, 400),
    ("/look", LOOK | {"ink": ""}, 400), ("/look", LOOK | {"ink": "?" * 40}, 400),
    ("/look", LOOK | {"ink": [0] * 40_000}, 400),
    ("/look", LOOK | {"ink": text(FIVE)[4:]}, 400), ("/look", LOOK | {"ink": "é"}, 400),
    ("/look", LOOK | {"ink": text(0 * FIVE)}, 400),
    ("/teach", LOOK, 400), ("/teach", TEACH | {"digit": 10}, 400), ("/teach", TEACH | {"digit": -1}, 400),
    ("/teach", TEACH | {"digit": True}, 400), ("/teach", TEACH | {"digit": 5.0}, 400),
    ("/teach", TEACH | {"digit": "5"}, 400),
    ("/undo", {"model": "mlp"}, 409), ("/undo", {"model": {}}, 400), ("/undo", [], 400),
    ("/nothing", {}, 404), ("/", {}, 405), ("/state", {}, 405), ("/weights/mlp.npz", {}, 404),
])  # fmt: skip
def test_a_body_that_is_not_what_was_asked_for_is_refused(server, capfd, path, body, status):
    reply = ask(server, path, body)
    assert reply.status == status and isinstance(json.loads(reply.body)["error"], str)
    assert answer(server, "/state")["models"]["mlp"]["undo"] == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("path", [
    "/../web.py", "/..%2fweb.py", "/page/../../web.py", "/page.js/", "/PAGE.JS", "//etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/weights/../mlp.npz", "/weights/resnet.npz", "/weights/", "/\\..\\web.py", "/page.js%00", "*", "http://127.0.0.1/",
])  # fmt: skip
def test_there_are_no_other_pages(server, path):
    assert ask(server, path).status == 404


@pytest.mark.parametrize("path, status", [("/look", 405), ("/teach", 405), ("/?a=b", 200), ("/state?", 200)])
def test_what_is_sent_cannot_be_fetched(server, path, status):
    assert ask(server, path).status == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "X" * 300])
def test_other_methods_are_refused(server, method):
    reply = ask(server, "/", method=method)
    assert reply.status == 405 and reply.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("host", [
    None, "", "localhost", "evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "[::1]:{port}",
    "127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}", "user@127.0.0.1:{port}", "127.0.0.1:{port}/", "0.0.0.0:{port}",
])  # fmt: skip
def test_who_asks_for_another_host_gets_nothing(server, host):
    port = server.server_port
    reply = ask(server, "/look", LOOK, Host=None if host is None else host.format(port=port))
    assert reply.status == 403
    assert ask(server, "/", Host=None if host is None else host.format(port=port)).status == 403


@pytest.mark.parametrize("origin", [
    "null", "", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:1", "http://evil.example",
    "http://localhost:{port}", "http://127.0.0.1:{port}.evil.example",
])  # fmt: skip
def test_no_other_page_may_ask(server, origin):
    origin = origin.format(port=server.server_port)
    assert ask(server, "/teach", TEACH, Origin=origin).status == 403
    assert ask(server, "/state", Origin=origin).status == 403
    preflight = ask(server, "/teach", method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")
    assert preflight.status == 405 and "access-control-allow-origin" not in preflight.headers


def test_the_page_itself_may_ask_under_both_names(server):
    for host in ("127.0.0.1", "LOCALHOST", "localhost"):
        host = f"{host}:{server.server_port}"
        assert ask(server, "/look", LOOK, Host=host, Origin=f"http://{host}").status == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", ""]
)
def test_only_json_is_taken(server, kind):
    """A form of another page can send the other kinds without asking first."""
    assert ask(server, "/look", LOOK, Content_Type=kind).status == 415
    assert ask(server, "/look", LOOK, Content_Type="application/json; charset=utf-8").status == 200


@pytest.mark.parametrize("lines, status", [
    ("", 411), ("Content-Length: -1", 400), ("Content-Length: abc", 400), ("Content-Length: +5", 400),
    ("Content-Length: ²", 400),
    ("Content-Length: 5\r\nContent-Length: 5", 400), ("Content-Length: 5, 5", 400), ("Content-Length: 0x10", 400),
    ("Content-Length: 1_0", 400), ("Content-Length:", 400), ("Content-Length: 131073", 413),
    ("Content-Length: 99999999999999999999999999", 413), ("Content-Length: " + "9" * 5000, 413),
    ("Transfer-Encoding: chunked", 411), ("Transfer-Encoding: chunked\r\nContent-Length: 5", 411),
    ("Transfer-Encoding: identity\r\nContent-Length: 5", 411),
])  # fmt: skip
def test_a_length_that_is_none_is_refused(server, lines, status):
    lines = f"Host: {server.address[7:-1]}\r\nContent-Type: application/json\r\n{lines}".rstrip("\r\n").encode()
    assert raw(server, b"POST /look HTTP/1.1\r\n" + lines + b"\r\n\r\n{}   ").status == status
    if b"Content-Length: 5\r\n" not in lines and status == 400:
        assert raw(server, b"GET / HTTP/1.1\r\n" + lines + b"\r\n\r\n").status == 400


@pytest.mark.parametrize("request_text, status", [
    ("GARBAGE\r\n\r\n", 400), ("GET / HTTP/9.9\r\n\r\n", 400), ("GET / HTTP/x\r\n\r\n", 400),
    ("GET / a b HTTP/1.1\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400), ("GET /" + "a" * 70_000 + " HTTP/1.1\r\n\r\n", 414),
    ("GET / HTTP/1.1\r\nA: " + "b" * 70_000 + "\r\n\r\n", 431), ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 431),
    ("GET / HTTP/1.0\r\n\r\n", 403), ("POST /look HTTP/1.1\r\n\r\n", 403),
])  # fmt: skip
def test_what_is_no_request_is_refused(server, capfd, request_text, status):
    assert raw(server, request_text, end=True).status == status
    assert capfd.readouterr().err == ""


def test_a_large_body_that_is_refused_still_gets_its_answer(server):
    """Data that nobody read would reset the connection, and the answer would be lost."""
    body = b" " * 700_000
    assert ask(server, "/look", body).status == 413
    assert ask(server, "/nothing", body).status == 404


def test_a_body_that_ends_early_is_refused(server):
    head = f"POST /look HTTP/1.1\r\nHost: {server.address[7:-1]}\r\nContent-Type: application/json\r\n"
    assert raw(server, head + "Content-Length: 500\r\n\r\n{}", end=True).status == 400


def test_a_second_request_on_one_connection_is_not_taken_for_one(server):
    """Nothing can be smuggled behind a request: every connection has one."""
    one = f"GET /state HTTP/1.1\r\nHost: {server.address[7:-1]}\r\n\r\n"
    assert raw(server, one + one).body.count(b'"first"') == 1


def test_slow_clients_are_cut_off(server, monkeypatch, capfd):
    head = f"POST /look HTTP/1.1\r\nHost: {server.address[7:-1]}\r\nContent-Type: application/json\r\n"
    monkeypatch.setattr(web.Handler, "timeout", 0.1)
    assert raw(server, head + "Content-Length: 500\r\n\r\n{}").status == 408
    assert raw(server, head[:30]).status is None
    monkeypatch.setattr(web.Handler, "timeout", 10)
    monkeypatch.setattr(web, "DEADLINE", 0.1)
    begun = time.monotonic()
    assert raw(server, head + "Content-Length: 500\r\n\r\n{}").status in (None, 400)
    assert time.monotonic() - begun < 5 and capfd.readouterr().err == ""


def test_more_connections_than_the_server_takes_are_closed(server, monkeypatch):
    monkeypatch.setattr(web, "CONNECTIONS", 2)
    idle = [socket.create_connection(server.server_address) for _ in range(2)]
    try:
        deadline = time.monotonic() + 5
        while len(server.opened) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        with socket.create_connection(server.server_address, timeout=5) as third:
            assert third.recv(100) == b""
    finally:
        for each in idle:
            each.close()


def test_a_client_that_goes_away_is_not_spoken_of(server, capfd):
    lines = f"Host: {server.address[7:-1]}\r\nContent-Type: application/json\r\n"
    body = json.dumps(LOOK)
    for request in ("GET /", f"POST /look HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}"):
        with socket.create_connection(server.server_address) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closing resets
            link.sendall(request.encode())
    deadline = time.monotonic() + 5
    while server.opened and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.opened and capfd.readouterr().err == ""


def test_a_mistake_of_ours_is_one_line_and_no_traceback(server, monkeypatch, capfd):
    monkeypatch.setattr(web, "state_of", lambda models: 1 / 0)
    reply = ask(server, "/state")
    assert reply.status == 500 and b"Zero" not in reply.body
    assert capfd.readouterr().err == "error: ZeroDivisionError: division by zero\n"


# ---------------------------------------------------------------------- where nets come from


@pytest.fixture
def quick(monkeypatch):
    """Training takes one epoch of the built-in digits."""
    monkeypatch.setattr(models, "EPOCHS", dict.fromkeys(models.EPOCHS, (1, 1)))
    monkeypatch.setattr(models, "with_variety", lambda data, copies: (data.train_images[:200], data.train_labels[:200]))


def opened(out, **options):
    found = Models(out, **options)
    found.start()
    found.thread.join()
    return found


def test_a_first_start_trains_and_the_next_finds_the_weights(tmp_path, quick, monkeypatch):
    first = opened(tmp_path / "new", data="digits")
    assert first.ready and not first.problem and first.progress == 1
    assert {path.name for path in first.folder.iterdir()} == {"mlp.npz", "lenet.npz", "gru.npz"}
    monkeypatch.setattr(Models, "_train", lambda *_: pytest.fail("trained again"))
    second = opened(tmp_path / "new", data="digits")
    assert second.ready and not second.problem
    for name in models.OFFERED:
        assert web.weights_of(second, name) == web.weights_of(first, name)
        assert second.loaded[name].about == first.loaded[name].about
    images, labels = second.digits_for(second.loaded["gru"])
    assert len(images) == len(labels) == models.STORED + len(digits().train_labels)


@pytest.mark.parametrize("harm", [
    lambda path: path.write_bytes(b"no archive"), lambda path: path.write_bytes(path.read_bytes()[:3000]),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0)), settings=settings("mlp"), training=0),
    lambda path: shutil.copy(path.with_name("gru.npz"), path), lambda path: path.unlink(),
])  # fmt: skip
def test_weights_that_are_damaged_or_of_an_older_training_are_made_anew(tmp_path, folder, quick, harm, capsys):
    shutil.copytree(folder / "draw", tmp_path / "draw")
    harm(tmp_path / "draw" / "mlp.npz")
    found = opened(tmp_path, data="digits")
    assert found.ready and not found.problem and model_from(tmp_path / "draw" / "mlp.npz").name == "mlp"
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_no_obstacle(tmp_path, quick, capsys):
    (tmp_path / "file").write_text("")
    found = opened(tmp_path / "file", data="digits")
    assert found.ready and "the weights of gru cannot be kept" in capsys.readouterr().err


def test_data_that_is_missing_is_said_on_the_page(tmp_path, capsys):
    found = opened(tmp_path, data=str(tmp_path / "nowhere"))
    assert not found.ready and "there is no such folder" in web.state_of(found)["problem"]
    with pytest.raises(LookupError, match="still being trained"):
        found.get("mlp")


@pytest.mark.parametrize("model, side", [("lenet", 28), ("deep", 28), ("gru", 8)])
def test_the_page_starts_with_the_model_of_the_run(tmp_path, folder, model, side):
    shutil.copytree(folder / "draw", tmp_path / "draw")
    module = Module(RECIPES[model].build(side**2, rng=5))
    save(tmp_path / "model.npz", module, settings=settings(model, side) | {"lr": 0.1})
    with running(Models(tmp_path)) as site:
        state = answer(site, "/state")
        assert state["first"] == model and state["ready"]
        assert list(state["models"])[:3] == list(models.OFFERED) and model in state["models"]
        own = site.models.loaded[model].state.module.state_dict()
        assert all((own[name] == value).all() for name, value in module.state_dict().items())
        look = answer(site, "/look", {"model": model, "ink": text(FIVE)})
        assert look["gradient"]["shape"] == [1, side, side]
        assert answer(site, "/teach", {"model": model, "ink": text(FIVE), "digit": 5})["undo"] == 1


def test_weights_given_are_used_and_can_be_kept(tmp_path, folder):
    shutil.copytree(folder / "draw", tmp_path / "draw")
    with running(Models(tmp_path)) as site:
        answer(site, "/teach", {"model": "mlp", "ink": text(FIVE), "digit": 2})
        (tmp_path / "taught.npz").write_bytes(ask(site, "/weights/mlp.npz").body)
        wanted = answer(site, "/look", {"model": "mlp", "ink": text(FIVE)})["answers"]["mlp"]
    with running(Models(tmp_path, tmp_path / "taught.npz")) as site:
        assert answer(site, "/look", {"model": "mlp", "ink": text(FIVE)})["answers"]["mlp"] == wanted


@pytest.mark.parametrize("make", [
    lambda path: None, lambda path: path.write_text("no"), lambda path: path.mkdir(),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0))),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0)), settings=settings("lenet")),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0)), settings=settings("mlp") | {"side": [28]}),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0)), settings=settings("mlp") | {"model": ["mlp"]}),
    lambda path: save(path, Module(RECIPES["mlp"].build(784, rng=0)), settings=settings("mlp") | {"side": 28.0}),
])  # fmt: skip
def test_a_file_that_holds_no_such_weights_is_one_line(tmp_path, capsys, make):
    make(tmp_path / "model.npz")
    assert main(["serve", "--no-browser", "--weights", str(tmp_path / "model.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"error: .*model\.npz.*\n", err)


def filled(module, number):
    for parameter in module.parameters().values():
        parameter.value[...] = number
    return module


@pytest.mark.parametrize("number", [numpy.nan, -numpy.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, number):
    save(tmp_path / "model.npz", filled(Module(RECIPES["mlp"].build(784, rng=0)), number), settings=settings("mlp"))
    with pytest.raises(ValueError, match=r"model\.npz holds numbers that are not finite"):
        model_from(tmp_path / "model.npz")


def test_what_the_page_reads_is_json_whatever_a_file_of_weights_holds(tmp_path, folder):
    shutil.copytree(folder / "draw", tmp_path / "draw")
    module, hostile = Module(RECIPES["mlp"].build(784, rng=0)), {"trained_on": "x" * 10**6, "accuracy": float("nan")}
    save(tmp_path / "model.npz", filled(module, 3e38), settings=settings("mlp"), **hostile)
    with running(Models(tmp_path)) as site:
        state = ask(site, "/state")
        looks = [ask(site, "/look", {"model": name, "ink": text(FIVE)}) for name in ("mlp", "gru")]
    for each in (state, *looks):
        assert each.status == 200 and len(each.body) < 10**5
        json.loads(each.body, parse_constant=pytest.fail)


def test_varied_digits_stay_the_digits_they_are():
    images = digits().train_images[:200]
    varied = models.varied(images, numpy.random.default_rng(0))
    assert varied.shape == images.shape and varied.dtype == numpy.uint8 and (varied != images).any(axis=(1, 2)).all()
    like = [numpy.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, varied, strict=True)]
    assert numpy.median(like) > 0.6
    again = models.varied(images, numpy.random.default_rng(0))
    assert (again == varied).all()


# ---------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    "stop, status", [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_first_line_is_the_address_and_a_signal_ends_it(folder, stop, status):
    command = [sys.executable, "-m", "apps.mnist", "serve", "--out", str(folder), "--no-browser"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", line)[1])
        site = SimpleNamespace(address=line.strip(), server_address=("127.0.0.1", port))
        assert ask(site, "/").status == 200
        process.send_signal(stop)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status and err == "stopped: the page is closed\n" and "Traceback" not in out


def test_a_port_that_is_taken_is_one_line(folder, capsys, server):
    arguments = ["serve", "--no-browser", "--out", str(folder), "--port", str(server.server_port)]
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: cannot listen on port {server.server_port}: Address already in use\n")


@pytest.mark.parametrize("port", ["-1", "65536", "x", "", "1.5", "9" * 5000])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        main(["serve", f"--port={port}"])
    assert "expected a port, 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("variables, found", [({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True)])
@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="screens of Linux")
def test_a_browser_is_opened_only_where_there_is_a_screen(monkeypatch, variables, found):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert app.has_display() is found


def test_a_browser_that_does_not_start_is_no_error(monkeypatch, capfd):
    def broken(address):
        raise OSError("no browser")

    monkeypatch.setattr(app.webbrowser, "open", broken)
    app.open_page("http://127.0.0.1:1/")
    assert capfd.readouterr() == ("", "")
