"""A headless Chromium that a test drives over its own protocol, and what it complained about or asked for."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


class Tab:
    """One page. `complaints`: errors of scripts, of the console and of the content policy; `asked`: every request."""

    def __init__(self, socket):
        self._socket, self._last = socket, 0
        self.complaints, self.asked, self._loaded = [], [], False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == self._last:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _note(self, said):
        params = said.get("params", {})
        self._loaded |= said["method"] == "Page.loadEventFired"
        if said["method"] == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif said["method"] == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.complaints.append(params["entry"])
        elif said["method"] == "Runtime.consoleAPICalled":
            self.complaints.append(params["args"])
        elif said["method"] == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def open(self, file, width=1100, height=860, scheme="light", script=True):
        """Show a file; returns when it has loaded."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Emulation.setScriptExecutionDisabled", value=not script)
        self.complaints, self.asked, self._loaded = [], [], False
        assert "errorText" not in self("Page.navigate", url=file.as_uri())
        while not self._loaded:  # asking the page meanwhile could meet one that goes away
            self._note(json.loads(self._socket.recv()))
        return self

    def ask(self, expression):
        """The value of an expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys):
        """Type keys with the keyboard."""
        for key in keys:
            code = {"Enter": 13, "Tab": 9, "ArrowDown": 40}[key]
            more = {"text": "\r"} if key == "Enter" else {}
            for kind in ("keyDown", "keyUp"):
                self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


@contextlib.contextmanager
def tab():
    """A tab of a Chromium of its own; skips where there is none, outside CI."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine")
    assert program, "no Chromium in CI"
    websocket = pytest.importorskip("websocket")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([program, *FLAGS, f"--user-data-dir={folder}", "about:blank"], **silent)
        try:
            file, until = Path(folder) / "DevToolsActivePort", time.monotonic() + 60
            while not (file.exists() and len(file.read_text().splitlines()) == 2):
                assert process.poll() is None and time.monotonic() < until, "Chromium did not start"
                time.sleep(0.05)
            port = file.read_text().splitlines()[0]
            socket = websocket.create_connection(_page(port), suppress_origin=True, timeout=60)
            with contextlib.closing(socket):
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _page(port):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
        return next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
