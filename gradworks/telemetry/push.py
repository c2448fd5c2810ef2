"""Push metrics to the Prometheus Pushgateway in PROMETHEUS_PUSHGATEWAY, without delaying the stage.

A gateway that is unreachable, refuses or never answers causes one warning of one line. Requests run in threads of their
own; nothing waits for them longer than BOUND.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

VARIABLE = "PROMETHEUS_PUSHGATEWAY"
JOB = "gradworks"
EVERY = 5.0  # seconds between two pushes of a stage
LONGEST = 60.0  # seconds between two attempts while the gateway fails
TIMEOUT = 2.0  # seconds to wait for an answer
BOUND = 3.0  # seconds to wait at the end of a stage


@dataclass(frozen=True)
class Gateway:
    """A Pushgateway. url: without user and password, so that messages never show them."""

    url: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def push(self, registry: CollectorRegistry, run: str, stage: str) -> None:
        """Replace metrics of the same names in the group of a stage."""
        from prometheus_client import pushadd_to_gateway

        pushadd_to_gateway(self.url, JOB, registry, {"run": run, "stage": stage}, TIMEOUT, self._handler)

    def delete(self, run: str, stage: str) -> None:
        """Delete the group of a stage, if there is one."""
        from prometheus_client import delete_from_gateway

        delete_from_gateway(self.url, JOB, {"run": run, "stage": stage}, TIMEOUT, self._handler)

    def _handler(self, **request: Any) -> Callable[[], None]:
        from prometheus_client.exposition import basic_auth_handler

        return basic_auth_handler(**request, username=self.user, password=self.password or "")


def configured() -> Gateway | None:
    """The gateway of the environment; None if unset or, with a warning, if the address is invalid."""
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        _warn(f"{VARIABLE} is not the address of a gateway, expected http://HOST:PORT; no metrics are pushed")
        return None
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path}"
    name = None if parts.username is None else unquote(parts.username)
    return Gateway(url, name, None if parts.password is None else unquote(parts.password))


def _warn(said: str) -> None:
    print(f"warning: {said}", file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    """The reason, without any part of the request."""
    code, inner = getattr(error, "code", None), getattr(error, "reason", error)
    if isinstance(code, int):
        return f"it answers with HTTP status {code}"
    if isinstance(inner, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    return getattr(inner, "strerror", None) or type(inner).__name__


class Pusher(threading.Thread):
    """Pushes a stage's metrics now, every EVERY seconds and at the end."""

    def __init__(self, gateway: Gateway, registry: CollectorRegistry, run: str, stage: str) -> None:
        super().__init__(name="pushgateway", daemon=True)
        self._gateway, self._what = gateway, (registry, run, stage)
        self._over, self._warned, self._lock = threading.Event(), False, threading.Lock()

    def run(self) -> None:
        wait = 0.0
        while not self._over.wait(wait):
            wait = EVERY if self._push() else min(max(2 * wait, EVERY), LONGEST)
        self._push()

    def _push(self) -> bool:
        try:
            self._gateway.push(*self._what)
        except Exception as error:  # any error: the stage continues
            self._warn_once(_reason(error))
            return False
        return True

    def _warn_once(self, why: str) -> None:
        with self._lock:
            if not self._warned:
                _warn(f"metrics cannot be pushed to {self._gateway.url}: {why}; the stage goes on without")
            self._warned = True

    def finish(self) -> None:
        """Push once more; returns within BOUND seconds."""
        self._over.set()
        self.join(BOUND)
        if self.is_alive():
            self._warn_once(f"no answer in {BOUND:g} s")  # and no later warning from the thread while Python ends


def phases(run: str, stage: str, seconds: Mapping[str, float]) -> None:
    """Push how long the phases of a stage took, where a gateway is configured; returns within BOUND seconds.

    Args:
        run, stage: names.
        seconds: by phase: fetch, pull, run, push.
    """
    gateway = configured()
    if gateway is None:
        return
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    said = "Seconds that a stage spent in a phase: fetch, pull, run, push"
    gauge = Gauge("gradworks_stage_duration_seconds", said, ["run", "stage", "phase"], registry=registry)
    for phase, value in seconds.items():
        gauge.labels(run, stage, phase).set(value)
    # the stage has ended; a killed one could not report it itself
    Gauge("gradworks_stage_running", "1 while the stage runs, 0 when it has ended", ["run", "stage"],
          registry=registry).labels(run, stage).set(0)  # fmt: skip
    _once(gateway, lambda: gateway.push(registry, run, stage), "metrics cannot be pushed to")


def forget(run: str, stages: Iterable[str]) -> None:
    """Delete what a run's stages pushed, if a gateway is configured; stops with a warning at the first failure."""
    gateway = configured()
    if gateway is None:
        return
    for stage in stages:
        if not _once(gateway, lambda stage=stage: gateway.delete(run, stage), f"metrics of run {run} stay in"):
            return


def _once(gateway: Gateway, act: Callable[[], None], said: str) -> bool:
    """Whether one request succeeded within BOUND seconds."""
    ended = [f"no answer in {BOUND:g} s"]

    def request() -> None:
        try:
            act()
            ended[0] = ""
        except Exception as error:  # reported below
            ended[0] = _reason(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(BOUND)
    if ended[0]:
        _warn(f"{said} {gateway.url}: {ended[0]}")
    return not ended[0]
