"""The page over HTTP, for this machine only: it listens on 127.0.0.1, and answers no other page's requests.

A web page elsewhere can send requests to this address, and make its own name stand for 127.0.0.1. So a request must
name this server as its host, and if it says which page it comes from, that must be this one. A request that changes or
computes anything is a POST of JSON, which no other page may send without asking first, and nobody who asks is allowed.
"""

import base64
import json
import math
import os
import select
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy

from apps.mnist.serve.models import Models
from apps.mnist.serve.pad import image_of, ink_from
from mtorch.checkpoint import save

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}
LARGEST = 1 << 17  # bytes of a request's body; a drawing has 53 KB
PATIENCE = 10.0  # seconds that a client may be silent
DEADLINE = 30.0  # seconds that a request may take altogether
CONNECTIONS = 64  # at once
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Refused(Exception):
    """A request that is answered with that status and text."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the page at `address`, a thread for each request."""

    daemon_threads = True
    request_queue_size = CONNECTIONS
    allow_reuse_address = os.name == "posix"

    def __init__(self, port: int, models: Models):
        self.models = models
        self.opened: dict[Any, float] = {}  # connections, and when each was made
        self.opened_lock = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise OSError(f"cannot listen on port {port}: {error.strerror}") from None
        number = self.server_address[1]
        self.address = f"http://127.0.0.1:{number}/"
        self.hosts = {f"{name}:{number}" for name in ("127.0.0.1", "localhost")}
        self.hosts |= {"127.0.0.1", "localhost"} if number == 80 else set()

    def server_bind(self) -> None:
        """As HTTPServer, which also asks the network for this machine's name, and may wait long for it."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self.opened_lock:
            if len(self.opened) >= CONNECTIONS:
                return False
            self.opened[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        with self.opened_lock:
            self.opened.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cuts off who has taken too long; runs a few times a second."""
        with self.opened_lock:
            late = [request for request, since in self.opened.items() if time.monotonic() - since > DEADLINE]
            for request in late:
                try:
                    request.shutdown(2)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # those are clients that went away
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mtorch", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, request: Callable[[], None]) -> None:
        self.close_connection = True
        try:
            self._check_sender()
            request()
        except Refused as error:
            self._refuse(error.status, str(error))
        except TimeoutError:
            self._refuse(408, "the request did not come to its end in time")
        except OSError:  # the client went away
            return
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            self._refuse(500, "something went wrong; the server's terminal says what")

    # ------------------------------------------------------------------ what is refused

    def _check_sender(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            raise Refused(403, f"this server is {self.server.address} and answers under no other name")
        wanted = f"http://{hosts[0].strip().lower()}"
        if any(origin.strip().lower() != wanted for origin in self.headers.get_all("Origin", [])):
            raise Refused(403, "no other page may ask this server")

    def _length(self) -> int:
        """The length of the body, as the one header says that may say so."""
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "expected a body with a Content-Length, not in chunks")
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths:
            return 0
        text = lengths[0].strip()
        if len(lengths) > 1 or not (text.isascii() and text.isdigit()):
            raise Refused(400, "expected one Content-Length, a number")
        if len(text.lstrip("0")) > 9 or int(text) > LARGEST:
            raise Refused(413, f"expected a body of at most {LARGEST} bytes")
        return int(text)

    def _body(self) -> dict[str, Any]:
        """The JSON object that was sent."""
        if "Content-Length" not in self.headers and "Transfer-Encoding" not in self.headers:
            raise Refused(411, "expected a Content-Length")
        length = self._length()
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "expected the content type application/json")
        data = self.rfile.read(length)
        if len(data) < length:
            raise Refused(400, "the body ends early")
        try:
            body = json.loads(data.decode("utf-8"), parse_constant=no_constant)
        except (ValueError, RecursionError):
            raise Refused(400, "expected a JSON object") from None
        if not isinstance(body, dict):
            raise Refused(400, "expected a JSON object")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class says about a request that it cannot read."""
        code = {501: 405, 505: 400}.get(code, code)
        self._refuse(code, message or HTTPStatus(code).phrase)

    def _refuse(self, status: int, text: str) -> None:
        try:
            body = json.dumps({"error": text}).encode()
            more = {"Allow": "GET, HEAD, POST"} if status == 405 else {}
            self._send(status, "application/json", body, more)
            self._drain()
        except OSError:
            self.close_connection = True

    def _drain(self) -> None:
        """Reads what is still coming for a moment, because an answer is lost where a connection closes on data."""
        self.wfile.flush()
        self.connection.shutdown(1)
        deadline, left = time.monotonic() + 1.0, 1 << 20
        while left > 0 and select.select([self.connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = self.connection.recv(1 << 16)
            if not piece:
                return
            left -= len(piece)

    # ------------------------------------------------------------------ what is answered

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.close_connection, self.request_version = True, "HTTP/1.1"  # an answer has its status, whatever was asked
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, answer: dict[str, Any]) -> None:
        self._send(200, "application/json", json.dumps(answer, allow_nan=False).encode())

    def _get(self) -> None:
        if self._length():
            raise Refused(400, f"{self.command} has no body")
        path = self.path.partition("?")[0]
        models = self.server.models
        if path in FILES:
            name, kind = FILES[path]
            self._send(200, kind, (PAGE / name).read_bytes())
        elif path == "/state":
            self._send_json(state_of(models))
        elif path in (f"/weights/{name}.npz" for name in models.names):
            name = path.removeprefix("/weights/").removesuffix(".npz")
            more = {"Content-Disposition": f'attachment; filename="{name}.npz"'}
            self._send(200, "application/octet-stream", self._asked(lambda: weights_of(models, name)), more)
        elif path in ACTIONS:
            raise Refused(405, f"expected POST for {path}")
        else:
            raise Refused(404, "there is no such page")

    def _post(self) -> None:
        path = self.path.partition("?")[0]
        if path not in ACTIONS:
            raise Refused(405 if path in FILES or path == "/state" else 404, "nothing can be sent there")
        body = self._body()
        action, names = ACTIONS[path]
        if body.keys() != names:
            raise Refused(400, f"expected {', '.join(sorted(names))}")
        self._send_json(self._asked(lambda: action(self.server.models, **body)))

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except LookupError as error:
            raise Refused(409, str(error.args[0])) from None
        except ValueError as error:
            raise Refused(400, str(error)) from None

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


# ---------------------------------------------------------------------- what the page asks for


def state_of(models: Models) -> dict[str, Any]:
    """Which nets are there, and what is being done until all are."""
    about: dict[str, Any] = dict.fromkeys(models.names)
    for name, net in list(models.loaded.items()):
        about[name] = {"parameters": net.parameters, "undo": net.depth, **net.about}
    doing = {"doing": models.doing, "progress": models.progress, "problem": models.problem}
    return {"first": models.first, "ready": models.ready, "models": about, **doing}


@numpy.errstate(over="ignore", invalid="ignore")
def look(models: Models, model: Any, ink: Any) -> dict[str, Any]:
    """What every net says to the drawing, and what goes on inside the one that is shown."""
    net = models.get(model)
    image = image_of(ink_from(ink))
    inside = net.inside(image)
    loaded = list(models.loaded.items())  # more may come meanwhile
    answers = {name: other.answer(image) for name, other in loaded if other is not net}
    answers[net.name] = inside["answer"]
    layers = [{**part, "pictures": packed(part["pictures"])} for part in inside["layers"]]
    return {
        "model": model,
        "answers": {name: [rounded(share) for share in answer] for name, answer in answers.items()},
        "seen": packed(inside["seen"][None] / numpy.float32(inside["seen"].max(initial=1))),
        "gradient": packed(inside["gradient"][None]),
        "layers": [
            part | {"answers": [rounded(a) for a in part["answers"]]} if "answers" in part else part for part in layers
        ],
    }


def teach(models: Models, model: Any, ink: Any, digit: Any) -> dict[str, Any]:
    """A lesson: this drawing is that digit."""
    net = models.get(model)
    if type(digit) is not int or not 0 <= digit <= 9:
        raise ValueError("expected digit to be 0 … 9")
    return {"model": model, **net.teach(image_of(ink_from(ink)), digit, models.digits_for(net))}


def undo(models: Models, model: Any) -> dict[str, Any]:
    """Takes back the last lesson."""
    return {"model": model, **models.get(model).undo()}


ACTIONS: dict[str, tuple[Callable[..., dict[str, Any]], set[str]]] = {
    "/look": (look, {"model", "ink"}),
    "/teach": (teach, {"model", "ink", "digit"}),
    "/undo": (undo, {"model"}),
}


def weights_of(models: Models, name: str) -> bytes:
    """The net as it is now, as a file that `--weights` takes."""
    net = models.get(name)
    state = net.state
    settings = {"model": net.name, "loss": net.loss, "side": net.side}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        save(path, state.module, state.optimizer, settings=settings, generator=repr(state.rng.bit_generator.state))
        return path.read_bytes()


def rounded(number: Any) -> float:
    """As JSON can say it: 0 for what is not finite, which a net of very large weights may come to."""
    return round(float(number), 4) if math.isfinite(number) else 0.0


def packed(pictures: numpy.ndarray) -> dict[str, Any]:
    """Pictures (count, H, W) as bytes from -127 to 127 of the largest size among them, in base64."""
    largest = float(abs(pictures).max(initial=0.0))
    scale = 127 / largest if math.isfinite(largest) and largest > 0 else 0.0
    with numpy.errstate(invalid="ignore"):
        data = numpy.rint(numpy.nan_to_num(pictures) * scale).clip(-127, 127).astype(numpy.int8)
    return {"shape": pictures.shape, "data": base64.b64encode(data.tobytes()).decode(), "largest": rounded(largest)}
