"""Progress of training in the status of its TrainJob, where Kubeflow shows it: an alpha feature of Kubeflow Trainer.

Trainer sets three variables where its feature TrainJobStatus is on; without them nothing is sent. A server that does
not answer delays no step: requests run in a thread, which warns once.
"""

from __future__ import annotations

import atexit
import json
import os
import ssl
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

_VARIABLES = tuple(f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN"))
EVERY = 5.0  # seconds, as Trainer's guide asks
_TIMEOUT = 3.0  # seconds


class Status:
    """The status of this process's TrainJob.

    Args:
        url: of Trainer's server, with the TrainJob's path; ca, token: files that Trainer mounts.
    """

    def __init__(self, url: str, ca: str, token: str) -> None:
        self._url, self._ca, self._token = url, ca, token
        self._began, self._first, self._last = time.monotonic(), 0.0, {}
        self._ended, self._warned = threading.Event(), False
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def step(self, report: Any, *, done: float | None = None, loss: float, learning_rate: float, **_: Any) -> None:
        """Note one optimizer step, as `Live.step`; `done`: the share of all steps."""
        found: dict[str, Any] = {"metrics": [
            {"name": "loss", "value": f"{loss:.6g}"}, {"name": "learning_rate", "value": f"{learning_rate:.6g}"},
        ]}  # fmt: skip
        if done is not None:
            if not self._last:
                self._began, self._first = time.monotonic(), done  # of a resumed run, the steps before are not timed
            found["progressPercentage"] = int(100 * done)
            if done > self._first:
                left = (time.monotonic() - self._began) * (1 - done) / (done - self._first)
                found["estimatedRemainingSeconds"] = min(round(left), 2**31 - 1)
        self._last = found

    def close(self) -> None:
        """Send the last step."""
        self._ended.set()
        self._thread.join(_TIMEOUT)

    def _go(self) -> None:
        sent: dict[str, Any] = {}
        while True:
            over = self._ended.wait(EVERY)
            if self._last is not sent:
                sent = self._last
                self._send(sent)
            if over:
                return

    def _send(self, found: dict[str, Any]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            request = urllib.request.Request(  # noqa: S310
                self._url, data=json.dumps({"trainerStatus": {**found, "lastUpdatedTime": now}}).encode(), headers={
                    "Authorization": f"Bearer {Path(self._token).read_text().strip()}",  # Trainer replaces it
                    "Content-Type": "application/json",
                },
            )  # fmt: skip
            context = ssl.create_default_context(cafile=self._ca)
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            opener.open(request, timeout=_TIMEOUT).close()
        except (OSError, ValueError) as error:
            if not self._warned:
                self._warned = True
                said = " ".join(str(getattr(error, "reason", None) or error).split())[:150]
                print(f"warning: no progress in the TrainJob: {said}; the stage goes on", file=sys.stderr, flush=True)


def configured() -> Status | None:
    """That of the environment; None without Trainer's variables."""
    url, ca, token = (os.environ.get(name, "") for name in _VARIABLES)
    if not (url.startswith("https://") and ca and token):
        return None
    made = Status(url, ca, token)
    atexit.register(made.close)
    return made
