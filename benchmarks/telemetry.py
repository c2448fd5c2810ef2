"""What live metrics add to a step of the default gru: with a gateway, with one that hangs, over HTTP alone.

Plain training on the default benchmark's data whose steps are watched and not watched in turn, in one process, in time
of its processor. What is pushed every few seconds meets either kind of step, so it is measured alone and added.

  python -m benchmarks.telemetry
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradworks.cost import pairs
from gradworks.telemetry import live, push

ROOT = Path(__file__).parents[1]
STEPS = 3000  # of a run; every second one is watched
PUSHES = 20


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Debian's Pushgateway."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=log) as process:
        time.sleep(1.0)
        try:
            yield f"http://{address}"
        finally:
            process.kill()


@contextlib.contextmanager
def hanging(_: Path) -> Iterator[str]:
    """Connections are taken by the system and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def none(_: Path) -> Iterator[str]:
    """No gateway: the callback and a port that nobody reads."""
    yield ""


def prepared(folder: Path) -> Any:
    """The cell noise-erm-gru-0 of the default benchmark, and what `loop.fit` takes of it."""
    import torch

    from components import train
    from gradworks import loop, models

    shutil.copy(ROOT / "params.yaml", folder)
    steps = (
        ["fetch", "--source", "synthetic", "--out", "runs/fetch/synthetic"],
        ["corrupt", "--condition", "noise", "--seed", "0", "--data", "runs/fetch", "--out", "runs/corrupt/noise/0"],
        ["pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru"],
    )
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, *args in steps:
        subprocess.run([sys.executable, "-m", f"components.{name}", *args], cwd=folder, env=known, check=True)
    torch.set_num_threads(1)
    args = argparse.Namespace(
        params=folder / "params.yaml", method="erm", seed=0, metrics_port=None, out=folder / "out",
        data=folder / "runs/corrupt/noise/0", start=folder / "runs/pretrain/gru",
    )  # fmt: skip
    cell = train.Run(args)
    plan = dataclasses.replace(cell.plan("gru"), batches=STEPS, every=1.0)
    mixture = cell.mixture(cell.model(), False, "cpu")

    def fit(watch: Any) -> None:
        method = train.method_of(args.params, "erm", cell.point, cell.task, 0)
        loop.fit(cell.model(), method, mixture, plan, 0, lambda _: {"accuracy": 0.0}, watch=watch)

    assert models  # loaded before the clock starts
    return args, fit


def measure(args: argparse.Namespace, fit: Any, url: str) -> tuple[pairs.Ratio, float, float]:
    """Processor time of a watched step over that of one that is not; seconds of the latter; seconds of a push."""
    os.environ[push.VARIABLE] = url
    args.metrics_port = None if url else 0
    run = live.begin("train", args, encoder="gru", condition="noise", task="nli")
    found, last = pairs.Pairs(), [0.0]

    def watch(report: Any, **figures: Any) -> None:
        watched = len(found.plain) > len(found.method)
        if watched:
            run.step(report, **figures)
        now = time.process_time()
        (found.method if watched else found.plain).append(now - last[0])
        last[0] = now

    last[0] = time.process_time()
    fit(watch)
    pushed = 0.0
    if url:
        pusher = push.Pusher(push.Gateway(url), run.registry, "local", "train")
        start = time.thread_time()
        for _ in range(PUSHES):
            pusher._push()
        pushed = (time.thread_time() - start) / PUSHES
    run.close()
    return found.ratio, found.seconds[0], pushed


def alone(args: argparse.Namespace, times: int = 20_000) -> float:
    """Seconds of the callback, without a step around it and with every figure that a method can log."""
    from gradworks.spec import StepReport

    args.metrics_port, os.environ[push.VARIABLE] = 0, ""
    run = live.begin("train", args)
    report = StepReport(False, 2.0, log={"dot": 0.1, "conflict": 0.0, "effective_share": 1.0, "smoothness_share": 0.1})
    start = time.process_time()
    for _ in range(times):
        run.step(report, examples=32, seconds=0.01, loss=1.0, learning_rate=1e-3, gradient_norm=1.0)
    spent = (time.process_time() - start) / times
    run.close()
    return spent


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        args, fit = prepared(Path(name))
        push.TIMEOUT = 0.5  # seconds: the processor's time does not depend on it
        spent = alone(args)
        for kind in (none, gateway, hanging):
            with kind(Path(name)) as url:
                ratio, step, pushed = measure(args, fit, url)
            low, high = 100 * (ratio.low - 1), 100 * (ratio.high - 1)
            print(f"{kind.__name__}: {100 * (ratio.value - 1):+.2f} % (95 %: {low:+.2f} to {high:+.2f}) of a step of "
                  f"{1e3 * step:.2f} ms, {ratio.n} pairs; the callback alone {100 * spent / step:.2f} %; "
                  f"a push {1e3 * pushed:.2f} ms, {100 * pushed / push.EVERY:.3f} %", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
