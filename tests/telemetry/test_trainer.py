"""Progress in a TrainJob's status. What is sent real nodes show: tests/pod/test_nodes.py."""

from __future__ import annotations

import time

from gradworks.telemetry import trainer
from tests.telemetry.servers import free_port

STEP = {"loss": float("nan"), "learning_rate": 1e-3, "seconds": 0.1, "examples": 8, "gradient_norm": 1.0}


def test_a_server_that_is_away_delays_nothing_and_is_named_once(monkeypatch, tmp_path, capfd):
    for name in trainer._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert trainer.configured() is None
    (tmp_path / "token").write_text("planted-token\n")
    (tmp_path / "ca").write_text("no certificate")
    url = f"https://127.0.0.1:{free_port()}/apis"
    for name, value in zip(trainer._VARIABLES, (url, tmp_path / "ca", tmp_path / "token"), strict=True):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(trainer, "EVERY", 0.01)
    made, began = trainer.configured(), time.monotonic()
    for step in range(1, 21):
        made.step(None, done=step / 20, **STEP)
        time.sleep(0.005)
    made.close()
    assert time.monotonic() - began < 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "no progress in the TrainJob" in said[0] and "planted" not in said[0]


def test_a_resumed_run_tells_the_time_left_by_its_own_steps(monkeypatch):
    now, sent = [100.0], []
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trainer.Status, "_go", lambda self: None)
    made = trainer.Status("https://x", "ca", "token")
    for done in (0.5, 0.6, 0.75):
        made.step(None, done=done, **STEP)
        sent.append((made._last["progressPercentage"], made._last.get("estimatedRemainingSeconds")))
        now[0] += 10
    assert sent == [(50, None), (60, 40), (75, 20)]  # 10 s for 0.1, 20 s for 0.25
