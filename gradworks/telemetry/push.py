"""Metrics to the Prometheus Pushgateway that PROMETHEUS_PUSHGATEWAY names: beside the work, never in its way.

A gateway that cannot be reached, refuses or never answers is told once in one line. Requests are made in threads of
their own, which nothing waits for longer than BOUND.
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
LONGEST = 60.0  # seconds between two tries of a gateway that fails
TIMEOUT = 2.0  # seconds that one answer may take
BOUND = 3.0  # seconds that a stage waits at its end


@dataclass(frozen=True)
class Gateway:
    """A Pushgateway. url: without user and password, which no message shows."""

    url: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def push(self, registry: CollectorRegistry, run: str, stage: str) -> None:
        """Replace the metrics of these names in the group of a stage."""
        from prometheus_client import pushadd_to_gateway

        pushadd_to_gateway(self.url, JOB, registry, {"run": run, "stage": stage}, TIMEOUT, self._handler)

    def delete(self, run: str, stage: str) -> None:
        """Remove the group of a stage; there need not be one."""
        from prometheus_client import delete_from_gateway

        delete_from_gateway(self.url, JOB, {"run": run, "stage": stage}, TIMEOUT, self._handler)

    def _handler(self, **request: Any) -> Callable[[], None]:
        from prometheus_client.exposition import basic_auth_handler

        return basic_auth_handler(**request, username=self.user, password=self.password or "")


def configured() -> Gateway | None:
    """The gateway of the environment; None where there is none or its address is none, which is told."""
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
    """Why, in words that hold nothing of the request."""
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
        self._over, self._told, self._lock = threading.Event(), False, threading.Lock()

    def run(self) -> None:
        wait = 0.0
        while not self._over.wait(wait):
            wait = EVERY if self._push() else min(max(2 * wait, EVERY), LONGEST)
        self._push()

    def _push(self) -> bool:
        try:
            self._gateway.push(*self._what)
        except Exception as error:  # whatever it is, the stage goes on
            self._tell(_reason(error))
            return False
        return True

    def _tell(self, why: str) -> None:
        with self._lock:
            if not self._told:
                _warn(f"metrics cannot be pushed to {self._gateway.url}: {why}; the stage goes on without")
            self._told = True

    def finish(self) -> None:
        """Push once more; returns within BOUND seconds."""
        self._over.set()
        self.join(BOUND)
        if self.is_alive():
            self._tell(f"no answer in {BOUND:g} s")  # and no word from the thread after this one, while Python ends


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
    # the stage's program has ended, however it did: one that was killed could not say so itself
    Gauge("gradworks_stage_running", "1 while the stage runs, 0 when it has ended", ["run", "stage"],
          registry=registry).labels(run, stage).set(0)  # fmt: skip
    _once(gateway, lambda: gateway.push(registry, run, stage), "metrics cannot be pushed to")


def forget(run: str, stages: Iterable[str]) -> None:
    """Remove what a run's stages pushed, where a gateway is configured; the first failure is told and ends it."""
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
        except Exception as error:  # told below
            ended[0] = _reason(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(BOUND)
    if ended[0]:
        _warn(f"{said} {gateway.url}: {ended[0]}")
    return not ended[0]
