"""Prometheus and its Pushgateway as Debian packages them, on free ports of this machine; and a gateway that hangs."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-pushgateway": "prometheus-pushgateway"}
_open = build_opener(ProxyHandler({})).open


def need(*programs: str) -> None:
    """Skip the test where one of them is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {PACKAGES[program]}")


def get(url: str) -> str:
    with _open(url, timeout=10) as answer:
        return answer.read().decode()


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true answer; what cannot be reached is asked again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = what()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"nothing in {seconds} s")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """A program that listens on a port of its own; started again on another where somebody took that one."""

    def __init__(self, command: Callable[[int], list[str]], log: Path) -> None:
        for _ in range(3):
            self.port = free_port()
            with log.open("a") as file:
                self.process = subprocess.Popen(command(self.port), stdout=file, stderr=file, cwd=log.parent)
            self.url = f"http://127.0.0.1:{self.port}"
            with contextlib.suppress(AssertionError):
                until(lambda: self.process.poll() is not None or self._ready(), 20)
            if self.process.poll() is None:
                return
        raise AssertionError(log.read_text())

    def _ready(self) -> bool:
        try:
            return bool(get(f"{self.url}/-/ready"))
        except HTTPError as error:
            return error.code == 401  # it asks for a password: it answers

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def pushgateway(folder: Path, *options: str) -> Iterator[Server]:
    need("prometheus-pushgateway")

    def command(port: int) -> list[str]:
        return ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}", *options]

    server = Server(command, folder / "pushgateway.log")
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def prometheus(folder: Path, gateway: str, stage: str = "127.0.0.1:1") -> Iterator[Server]:
    """Prometheus with the configuration of the repository, which looks at these addresses four times a second."""
    need("prometheus")
    for file in MONITORING.glob("rules.yml"):
        shutil.copy(file, folder)
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "250ms")
    for job, target in zip(config["scrape_configs"], (gateway, stage), strict=True):
        job["static_configs"][0]["targets"] = [target.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def command(port: int) -> list[str]:
        return ["prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip

    server = Server(command, folder / "prometheus.log")
    try:
        yield server
    finally:
        server.kill()


def query(server: Server, expression: str) -> list[dict[str, Any]]:
    """What the HTTP interface answers; an expression that it cannot parse is an HTTPError."""
    answer = json.loads(get(f"{server.url}/api/v1/query?{urlencode({'query': expression})}"))
    assert answer["status"] == "success"
    return answer["data"]["result"]


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """The address of a gateway that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    for one in kept:
        one.close()
