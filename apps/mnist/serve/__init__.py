"""`python -m apps.mnist serve`: a page to draw a digit on, which shows what each net makes of it, and teaches it."""

import argparse
import contextlib
import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from mtorch.training import folder_name

if TYPE_CHECKING:
    from apps.mnist.serve.web import Server


def add_options(command: argparse.ArgumentParser) -> None:
    text = "a run's folder: the page starts with its model; weights that are trained stay in its folder draw"
    command.add_argument("--out", type=folder_name, default="runs/mnist", metavar="DIR", help=f"{text} (%(default)s)")
    command.add_argument("--weights", metavar="model.npz", help="start with this model instead")
    text = "where digits come from that nets are trained on"
    command.add_argument("--data", type=folder_name, default="auto", metavar="auto|mnist|digits|DIR", help=text)
    command.add_argument("--port", type=port, default=0, help="0: any that is free (the default)")
    command.add_argument("--no-browser", action="store_true", help="do not open the page, only print its address")


def port(text: str) -> int:
    """An argparse type: the number of a port."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {text!r}")
    return int(text)


def serve(args: argparse.Namespace) -> None:
    """`python -m apps.mnist serve`; ends with Ctrl-C or SIGTERM."""
    from apps.mnist.serve.models import Models  # here, because the other commands need no server
    from apps.mnist.serve.web import Server

    try:
        models = Models(Path(args.out), None if args.weights is None else Path(args.weights), args.data)
        with Server(args.port, models) as server:
            run(server, not args.no_browser)
    except KeyboardInterrupt as stop:
        stop.args = ("the page is closed",)
        raise


def run(server: "Server", browser: bool) -> None:
    """Says where the page is and answers, until a signal comes."""
    print(server.address, flush=True)
    print("Ctrl-C ends it.", flush=True)
    if browser and has_display():
        threading.Thread(target=open_page, args=(server.address,), daemon=True).start()
    server.models.start()
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        server.models.stop()


def has_display() -> bool:
    """Whether a browser would have a screen. On a terminal without one a text browser would take the terminal."""
    return os.name != "posix" or sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def open_page(address: str) -> None:
    with contextlib.suppress(Exception):  # no browser: the address is on the terminal
        webbrowser.open(address)
