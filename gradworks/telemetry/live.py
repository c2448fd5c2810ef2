"""Metrics of a running stage, for Prometheus: over HTTP while it runs, and pushed to a gateway.

Without `--metrics-port` and PROMETHEUS_PUSHGATEWAY, nothing is imported or counted (what Kubeflow Trainer asks for is
in trainer.py). Metrics never change an output: no
method, model or artifact reads them. Counters cover this process only, so that a resumed run's seconds and examples
match.
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradworks.telemetry import push

if TYPE_CHECKING:
    from gradworks.spec import StepReport
    from gradworks.telemetry import trainer

LABELS = ("run", "stage", "method", "encoder", "condition", "seed", "task")
HOST = "GRADWORKS_METRICS_HOST"
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, math.inf)  # seconds
_SMOOTH = 0.05  # weight of a new step in the throughput
_FIGURES = {  # entries of a method's log that are exported unchanged
    "dot": ("gradient_dot_product", "Dot product of the gradients of two batches, last value"),
    "effective_share": ("effective_sample_ratio", "Effective sample size of the weights over the number of examples"),
    "smoothness_share": ("adversarial_ratio", "Gradient of the adversarial term over that of the task's loss"),
}


class Silent:
    """Metrics are off.

    Args:
        status: of the TrainJob, if steps are reported there.
    """

    def __init__(self, status: trainer.Status | None = None) -> None:
        self.step = status.step if status else None

    def overhead(self, ratio: float) -> None:
        """See `Live.overhead`."""

    def close(self) -> None:
        """See `Live.close`."""


class Live:
    """The metrics of one stage.

    Args:
        labels: values of LABELS; empty where unknown.
        status: of the TrainJob, if steps are reported there too.
    """

    def __init__(self, labels: dict[str, str], status: trainer.Status | None = None) -> None:
        from prometheus_client import CollectorRegistry, disable_created_metrics

        disable_created_metrics()
        self._status = status
        self._labels = {name: labels.get(name, "") for name in LABELS}
        self.registry = CollectorRegistry()
        self._ends: list[Any] = []
        self._began, self._rate, self._conflicts = time.time(), 0.0, [0, 0.0]
        self._shown: dict[str, Any] = {}
        self._running = self._gauge("stage_running", "1 while the stage runs, 0 when it has ended")
        self._running.set(1)
        said = "Seconds that a stage spent in a phase: fetch, pull, run, push"
        self._run = self._gauge("stage_duration_seconds", said, phase="run")
        self._run.set_function(lambda: time.time() - self._began)
        self.registry.register(_Machine(self._labels))

    def _gauge(self, name: str, said: str, **more: str) -> Any:
        from prometheus_client import Gauge

        made = Gauge(f"gradworks_{name}", said, [*LABELS, *more], registry=self.registry)
        return made.labels(**self._labels, **more)

    def _show(self, name: str, said: str, value: float) -> None:
        """Set a gauge, created on its first value: what a method does not report is absent, not zero."""
        if name not in self._shown:
            self._shown[name] = self._gauge(name, said)
        self._shown[name].set(value)

    def _counters(self) -> tuple[Any, ...]:
        from prometheus_client import Counter, Histogram

        given = {"labelnames": LABELS, "registry": self.registry}
        made = [
            Histogram("gradworks_step_duration_seconds", "Seconds of one optimizer step", buckets=_BUCKETS, **given),
            Counter("gradworks_steps_total", "Optimizer steps", **given),
            Counter("gradworks_examples_total", "Training examples that the steps consumed", **given),
            Counter("gradworks_skipped_steps_total", "Steps whose weights were all zero", **given),
            Counter("gradworks_non_finite_steps_total", "Steps whose loss or gradient was not finite", **given),
        ]
        return tuple(one.labels(**self._labels) for one in made)

    def step(
        self, report: StepReport | None, *, examples: int, seconds: float, loss: float, learning_rate: float,
        gradient_norm: float, done: float | None = None,
    ) -> None:  # fmt: skip
        """Record one optimizer step.

        Args:
            report: the method's report; None without a method.
            examples: consumed; seconds: wall time.
            loss: mean over its examples; gradient_norm: before clipping.
            done: share of all steps.
        """
        if self._status:
            self._status.step(report, done=done, loss=loss, learning_rate=learning_rate)
        if "counters" not in self._shown:
            self._shown["counters"] = self._counters()
        duration, steps, total, skipped, bad = self._shown["counters"]
        duration.observe(seconds)
        steps.inc()
        total.inc(examples)
        log = report.log if report else {}
        if report and report.skipped:
            skipped.inc()
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            bad.inc()
        rate = examples / max(seconds, 1e-9)
        self._rate = rate if not self._rate else self._rate + _SMOOTH * (rate - self._rate)
        self._show("throughput_examples_per_second", "Training examples a second, smoothed over steps", self._rate)
        self._show("loss", "Mean loss of the step's examples", loss)
        self._show("learning_rate", "Learning rate of the step", learning_rate)
        self._show("gradient_norm", "Norm of the gradient before clipping", gradient_norm)
        self._show("last_step_timestamp_seconds", "When the last step ended, seconds since 1970", time.time())
        for key, (name, said) in _FIGURES.items():
            if key in log:
                self._show(name, said, log[key])
        if "conflict" in log:
            self._conflicts[0] += 1
            self._conflicts[1] += log["conflict"]
            said = "Share of pairs of gradients with a negative dot product, mean over the steps"
            self._show("conflict_ratio", said, self._conflicts[1] / self._conflicts[0])

    def overhead(self, ratio: float) -> None:
        """Set the result of `measure`: seconds of the method over those of plain training, on the same batches."""
        self._show("overhead_ratio", "Seconds of a method over those of plain training, measured side by side", ratio)

    def serve(self, port: int) -> None:
        """Serve on a port (0: a free one) until the stage ends. If the port is taken, warn and continue."""
        from prometheus_client import start_http_server

        host = os.environ.get(HOST) or "127.0.0.1"
        try:
            server, _ = start_http_server(port, host, self.registry)
        except OSError as error:
            said = error.strerror or type(error).__name__
            print(f"warning: no metrics on {host}:{port}: {said}; the stage goes on", file=sys.stderr, flush=True)
            return
        print(f"metrics: http://{host}:{server.server_port}/metrics", flush=True)
        self._ends += [server.shutdown, server.server_close]

    def send(self, gateway: push.Gateway) -> None:
        """Push to a gateway until the stage ends, and once more at its end."""
        pusher = push.Pusher(gateway, self.registry, self._labels["run"], self._labels["stage"])
        pusher.start()
        self._ends.insert(0, pusher.finish)

    def close(self) -> None:
        """Mark the stage as ended, for the last push."""
        seconds = time.time() - self._began
        self._run.set_function(lambda: seconds)
        self._running.set(0)
        while self._ends:
            self._ends.pop(0)()


class _Machine:
    """Memory of this process and utilization of its GPU, read on each scrape."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels

    def collect(self) -> Iterator[Any]:
        import resource

        from prometheus_client.core import GaugeMetricFamily

        said = "Largest memory so far: resident of the process, allocated on the device"
        memory = GaugeMetricFamily("gradworks_peak_memory_bytes", said, labels=[*LABELS, "kind"])
        unit = 1 if sys.platform == "darwin" else 1024
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        memory.add_metric([*self._labels.values(), "resident"], largest)
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
            memory.add_metric([*self._labels.values(), "device"], torch.cuda.max_memory_allocated())
            try:
                busy = torch.cuda.utilization() / 100
            except Exception:  # no bindings of NVML, or a slice of a GPU, which has no counter: absent
                pass
            else:
                gpu = GaugeMetricFamily("gradworks_gpu_utilization_ratio", "How busy the GPU is", labels=LABELS)
                gpu.add_metric([*self._labels.values()], busy)
                yield gpu
        yield memory


def begin(kind: str, args: argparse.Namespace, **labels: Any) -> Live | Silent:
    """Publish metrics of a stage program until its end, if they are on.

    Args:
        kind: the stage's name.
        args: its arguments; `metrics_port` and those in LABELS are used.
        labels: further ones; they override arguments.
    """
    gateway = push.configured()
    status = None
    if os.environ.get("KUBEFLOW_TRAINER_SERVER_URL"):
        from gradworks.telemetry import trainer

        status = trainer.configured()
    if args.metrics_port is None and gateway is None:
        return Silent(status)
    found = {name: getattr(args, name) for name in LABELS if getattr(args, name, None) is not None} | labels
    out = getattr(args, "out", "")
    found["run"] = os.environ.get("GRADWORKS_RUN") or "local"
    found["stage"] = os.environ.get("GRADWORKS_STAGE") or os.environ.get("DVC_STAGE") or f"{kind}@{out}"
    live = Live({name: str(value) for name, value in found.items()}, status)
    if args.metrics_port is not None:
        live.serve(args.metrics_port)
    if gateway is not None:
        live.send(gateway)
    atexit.register(live.close)
    return live
