"""What a running stage tells over HTTP, and that nothing is told or loaded where nobody asks."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from urllib.error import URLError

import pytest

from gradworks import base
from gradworks.spec import StepReport
from gradworks.telemetry import live, push
from tests.telemetry.servers import get

parser = pytest.importorskip("prometheus_client.parser")
STEP = {"examples": 64, "seconds": 0.5, "loss": 1.5, "learning_rate": 0.1, "gradient_norm": 2.0}
LOG = {"dot": -0.5, "conflict": 1.0, "effective_share": 0.75, "smoothness_share": 0.125}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for name in (push.VARIABLE, live.HOST, "GRADWORKS_METRICS_PORT", "GRADWORKS_RUN", "GRADWORKS_STAGE", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def told(monkeypatch, capsys):
    """A stage that answers on a free port, and what it answers: {(name, further labels): value}."""
    monkeypatch.setenv("GRADWORKS_RUN", "one")
    monkeypatch.setenv("DVC_STAGE", "train@x")
    args = argparse.Namespace(metrics_port=0, method="smart", seed=3, out="out")
    found = live.begin("train", args, encoder="gru", condition="noise", task="nli")
    url = capsys.readouterr().out.removeprefix("metrics: ").strip()

    def read():
        values = {}
        for family in parser.text_string_to_metric_families(get(url)):
            for sample in family.samples:
                own = {name: value for name, value in sample.labels.items() if name in live.LABELS}
                assert own == {"run": "one", "stage": "train@x", "method": "smart", "encoder": "gru",
                               "condition": "noise", "seed": "3", "task": "nli"}  # fmt: skip
                more = [value for name, value in sample.labels.items() if name not in live.LABELS]
                values[sample.name.removeprefix("gradworks_"), *more] = sample.value
        return values

    yield found, read, url
    found.close()


def test_steps(told):
    found, read, _ = told
    before = read()
    assert before["stage_running",] == 1 and before["peak_memory_bytes", "resident"] > 1e7
    assert "loss" not in {name for name, *_ in before}  # what is not known is absent, not zero
    found.step(StepReport(False, 1.0, log=LOG), **STEP)
    found.step(StepReport(True, 1.0, log={"conflict": 0.0}), **{**STEP, "loss": float("nan"), "seconds": 0.25})
    after = read()
    expected = {
        "step_duration_seconds_sum": 0.75, "step_duration_seconds_count": 2, "steps_total": 2, "examples_total": 128,
        "skipped_steps_total": 1, "non_finite_steps_total": 1, "learning_rate": 0.1, "gradient_norm": 2.0,
        "gradient_dot_product": -0.5, "conflict_ratio": 0.5, "effective_sample_ratio": 0.75, "adversarial_ratio": 0.125,
        "throughput_examples_per_second": 128 + live._SMOOTH * 128,
    }  # fmt: skip
    assert {name: after[name,] for name in expected} == pytest.approx(expected)
    assert after["loss",] != after["loss",]  # NaN
    assert (after["step_duration_seconds_bucket", "0.2"], after["step_duration_seconds_bucket", "0.5"]) == (0, 2)
    assert after["last_step_timestamp_seconds",] > 1.7e9
    found.overhead(1.625)
    assert read()["overhead_ratio",] == 1.625
    found.step(None, **STEP)  # without a method: pretraining
    assert (read()["steps_total",], read()["skipped_steps_total",]) == (3, 1)


def test_a_gpu_says_how_busy_it_is_where_it_can(told, monkeypatch):
    torch = pytest.importorskip("torch")
    _, read, _ = told
    before = read()
    assert ("peak_memory_bytes", "device") not in before and ("gpu_utilization_ratio",) not in before
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1 << 30)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 25)
    after = read()
    assert after["peak_memory_bytes", "device"] == 1 << 30 and after["gpu_utilization_ratio",] == 0.25
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 1 // 0)  # NVML's errors are of classes of their own
    after = read()
    assert after["peak_memory_bytes", "device"] == 1 << 30 and ("gpu_utilization_ratio",) not in after


def test_the_end(told):
    found, read, url = told
    assert read()["stage_duration_seconds", "run"] < read()["stage_duration_seconds", "run"]
    text = []
    found._ends.insert(0, lambda: text.append(read()))  # where the last push stands
    found.close()
    assert text[0]["stage_running",] == 0
    with pytest.raises(URLError):
        get(url)


def test_names_have_standard_units(told):
    found, _, url = told
    found.step(StepReport(False, 1.0, log=LOG), **STEP)
    kinds = {line.split()[2]: line.split()[3] for line in get(url).splitlines() if line.startswith("# TYPE")}
    assert all(name.startswith("gradworks_") and "_created" not in name for name in kinds)
    assert {name for name, kind in kinds.items() if kind == "counter"} == {n for n in kinds if n.endswith("_total")}


def test_a_taken_port_is_told_once_and_the_stage_goes_on(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = live.begin("fetch", argparse.Namespace(metrics_port=port))
        found.step(StepReport(False, 1.0), **STEP)
        found.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"warning: no metrics on 127.0.0.1:{port}: Address already in use; the stage goes on\n"


def test_it_answers_on_this_machine_alone_unless_told_otherwise(monkeypatch, capsys):
    for host, shown in ((None, "127.0.0.1"), ("127.0.0.2", "127.0.0.2")):
        if host:
            monkeypatch.setenv(live.HOST, host)
        found = live.begin("fetch", argparse.Namespace(metrics_port=0))
        url = capsys.readouterr().out.split()[1]
        found.close()
        assert url.startswith(f"http://{shown}:")


def test_the_port_of_a_stage(monkeypatch, capsys):
    def given(*args):
        return base.parser("doc").parse_args(args).metrics_port

    assert given() is None and given("--metrics-port", "0") == 0
    monkeypatch.setenv("GRADWORKS_METRICS_PORT", "9400")
    assert given() == 9400 and given("--metrics-port", "1") == 1
    monkeypatch.setenv("GRADWORKS_METRICS_PORT", "")
    assert given() is None
    for bad in ("65536", "-1", "x"):
        with pytest.raises(SystemExit):
            given(f"--metrics-port={bad}")
        assert f"found '{bad}', expected a number from 0 to 65535" in capsys.readouterr().err


def test_a_stage_that_nobody_asks_loads_nothing():
    code = (
        "import argparse, sys; from gradworks.telemetry import live\n"
        "told = live.begin('fetch', argparse.Namespace(metrics_port=None)); told.overhead(1.0); told.close()\n"
        "print(told.step, sorted({'prometheus_client', 'torch', 'http.client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None []\n" and done.stderr == ""
