"""A headless Chromium, driven through chromedriver's HTTP: for the tests of the page to draw on, and its pictures.

`with Browser() as browser:` starts both in a folder of their own. WebDriver: https://www.w3.org/TR/webdriver2/.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which WebDriver names an element


def chromium() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


def missing() -> str | None:
    """What is not installed here that a browser needs, or None."""
    if not chromium():
        return "there is no Chromium here"
    return None if shutil.which("chromedriver") else "there is no chromedriver here"


class Browser:
    """One window of a browser; `width` and `height` of the page in pixels."""

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1, touch: bool = False):
        self.folder = TemporaryDirectory()
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"HOME": self.folder.name},
        )  # fmt: skip
        try:
            line = next(
                found for text in self.driver.stdout if (found := re.search(r"successfully on port (\d+)", text))
            )
            self.base = f"http://127.0.0.1:{line[1]}"
            options = {"binary": chromium(), "args": [*FLAGS, f"--user-data-dir={self.folder.name}/profile"]}
            asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})["sessionId"]
            self.base += f"/session/{session}"
            self.resize(width, height, scale, touch)
            self.prefer(dark)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        try:
            if "/session/" in getattr(self, "base", ""):
                self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(20)
            self.driver.stdout.close()
            for _ in range(20):
                with contextlib.suppress(OSError):  # Chromium still writes its last
                    self.folder.cleanup()
                    break
                time.sleep(0.1)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One WebDriver command; RuntimeError with what the driver says if it fails."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def chrome(self, command: str, **more: Any) -> Any:
        """One command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": more})

    # ------------------------------------------------------------------ the window

    def resize(self, width: int, height: int, scale: float = 1, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": touch}
        self.chrome("Emulation.setDeviceMetricsOverride", **size)
        self.chrome("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefer(self, dark: bool, motion: bool = True) -> None:
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "no-preference" if motion else "reduce",
        }
        self.chrome(
            "Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()]
        )

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def screenshot(self, path: str | os.PathLike, whole: bool = False) -> None:
        """The page as a PNG; with `whole` all of it, not only what fits into the window."""
        picture = self.chrome("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(picture))

    def console(self) -> list[str]:
        """What was written to the console since it was last asked for."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.call("POST", "/se/log", {"type": "browser"})]

    # ------------------------------------------------------------------ the page

    def script(self, code: str, *args: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": code, "args": args})

    def wait(self, condition: str | Callable[[], Any], seconds: float = 60) -> Any:
        """Until a JavaScript expression, or a function, is true; its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.script(f"return {condition}") if isinstance(condition, str) else condition()
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"it never was true: {condition}")
            time.sleep(0.03)

    def element(self, selector: str) -> str:
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def text(self, selector: str) -> str:
        return self.script("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/click", {})

    def visible(self, selector: str) -> bool:
        return self.call("GET", f"/element/{self.element(selector)}/displayed")

    def type(self, *keys: str) -> None:
        """Presses keys where the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def draw(self, selector: str, strokes: list[numpy.ndarray], kind: str = "mouse") -> None:
        """Draws strokes (points, 2), 0 … 1, on an element with a mouse, a pen or a finger ("touch")."""
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        box = "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
        left, top, width, height = self.script(f"{box} return [b.x, b.y, b.width, b.height]", selector)
        steps: list[dict[str, Any]] = []
        for stroke in strokes:
            points = (stroke * (width, height) + (left, top)).round().astype(int).tolist()
            moves = [{"type": "pointerMove", "duration": 4, "x": x, "y": y, "origin": "viewport"} for x, y in points]
            steps += [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.call("POST", "/actions", {"actions": [pointer]})
