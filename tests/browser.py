"""A real browser without a window: pages are opened as files, asked by script, and used by keyboard."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Seconds after which a browser that says nothing has hung.
PATIENCE = 120
#: Keys and the codes by which a browser knows them.
CODES = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40, "End": 35}


def find_axe() -> Path | None:
    """The script of axe-core: where `AXE_CORE` says, else that of the package `axe-core-python`."""
    if given := os.environ.get("AXE_CORE"):
        return Path(given)
    spec = importlib.util.find_spec("axe_core_python")
    place = Path(spec.origin).with_name("axe.min.js") if spec and spec.origin else None
    return place if place and place.is_file() else None


class Browser:
    """Chromium, told what to do through a pipe (the DevTools protocol).

    Attributes:
        requests: addresses that were asked for since the last page was opened. errors: what its console said.
    """

    def __init__(self, folder: Path, *further: str) -> None:
        if CHROMIUM is None:
            pytest.skip("no Chromium here (Debian: apt install chromium)")
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()

        def place() -> None:
            # The browser reads from 3 and writes to 4.
            kept = os.dup(their_in), os.dup(their_out)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        words += [
            *further,
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={folder}",
        ]
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*words, "about:blank"], close_fds=False, preexec_fn=place, **silent)
        os.close(their_in)
        os.close(their_out)
        self.out, self.into = our_out, our_in
        self.rest = b""
        self.numbers, self.events, self.requests, self.errors = itertools.count(1), [], [], []
        self.session = None
        page = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for room in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{room}.enable")
        self.resize(1200)

    def _read(self) -> dict:
        while b"\0" not in self.rest:
            if not select.select([self.into], [], [], PATIENCE)[0]:
                raise TimeoutError(f"the browser said nothing for {PATIENCE} s")
            if not (found := os.read(self.into, 1 << 20)):
                raise EOFError("the browser has ended")
            self.rest += found
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        what = message.get("method")
        if what == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.errors.append(message["params"]["exceptionDetails"]["exception"].get("description", "an exception"))
        elif what == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(message["params"]["entry"]["text"])
        return message

    def send(self, method: str, **params) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        text = json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        while text:
            text = text[os.write(self.out, text) :]
        while (answer := self._read()).get("id") != number:
            self.events.append(answer.get("method"))
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, hash: str = "") -> None:
        """Open a page and wait until it is there."""
        self.visit(page.resolve().as_uri() + hash)

    def visit(self, address: str) -> None:
        """The same by its address."""
        for place in ("about:blank", address):
            self.requests, self.errors, self.events = [], [], []
            self.send("Page.navigate", url=place)
            while "Page.loadEventFired" not in self.events:
                self.events.append(self._read().get("method"))

    def ask(self, expression: str):
        """The value of an expression of JavaScript; of a promise, what it comes to."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def give(self, selector: str, file: Path) -> None:
        """Choose a file in a field for files."""
        node = self.send("DOM.getDocument")["root"]["nodeId"]
        field = self.send("DOM.querySelector", nodeId=node, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=field, files=[str(file)])

    def press(self, *keys: str) -> None:
        for key in keys:
            about = {"key": key, "code": key, "windowsVirtualKeyCode": CODES.get(key, 0)}
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            self.send("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def resize(self, width: int, height: int = 900) -> None:
        phone = width < 700
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def look(self, scheme: str = "light", media: str = "screen") -> None:
        """As a reader who asked for light or dark, or as a printer."""
        self.send("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def shoot(self, path: Path, whole: bool = True) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def print(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=False)["data"]))

    def close(self) -> None:
        try:
            self.session = None
            self.send("Browser.close")
        except (EOFError, OSError):
            pass
        os.close(self.out)
        os.close(self.into)
        self.process.wait(30)
