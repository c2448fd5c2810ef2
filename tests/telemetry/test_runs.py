"""Real training runs beside the real servers: what they show, and that nothing they do changes what is written."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest
import yaml

from gradworks.base import artifacts
from tests.small import SMALL
from tests.telemetry.servers import get, hanging, prometheus, pushgateway, query, until

pytestmark = pytest.mark.slow("runs stages beside Prometheus and a Pushgateway")

parser = pytest.importorskip("prometheus_client.parser")
ROOT = Path(__file__).parents[2]
PROGRAM = """
import runpy, sys
from gradworks.telemetry import push
push.EVERY = 0.05  # seconds; else the program is as it is
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@dataclass
class Project:
    """A folder with data and an encoder, in which stage programs run."""

    folder: Path

    def begin(self, name: str, *args: object, **environment: str) -> subprocess.Popen[str]:
        known = {k: v for k, v in os.environ.items() if not k.startswith(("GRADWORKS_", "PROMETHEUS_", "DVC_STAGE"))}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"components.{name}", *map(str, args)], cwd=self.folder, text=True,
            env={**known, "PYTHONPATH": str(ROOT), **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, name: str, *args: object, **environment: str) -> list[str]:
        """See `warnings`."""
        return warnings(self.begin(name, *args, **environment))

    def train(self, method: str, out: str) -> list[object]:
        return ["--method", method, "--seed", 0, "--data", "runs/corrupt/noise/0", "--start", "runs/pretrain/gru",
                "--out", f"{out}/{method}", "--model", f"{out}/model-{method}"]  # fmt: skip

    def digests(self, out: str) -> dict[str, str]:
        folder = self.folder / out
        return {p.relative_to(folder).as_posix(): artifacts.digest(p) for p in folder.rglob("*") if p.is_file()}


def warnings(process: subprocess.Popen[str]) -> list[str]:
    """What a program that ends well said on stderr, without lines of progress."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return [line for line in said.splitlines() if not line.startswith("train dotprod: ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of dotprod that nobody watched lies in `alone`."""
    folder = tmp_path_factory.mktemp("runs")
    values = copy.deepcopy(SMALL)
    values["train"] |= {"epochs": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    made = Project(folder)
    made.run("fetch", "--source", "synthetic", "--out", "runs/fetch/synthetic")
    made.run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    made.run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    assert made.run("train", *made.train("dotprod", "alone")) == []
    return made


def pushed(gateway, name, method="dotprod"):
    """The value of a metric in the gateway, None while it has none."""
    for family in parser.text_string_to_metric_families(get(f"{gateway.url}/metrics")):
        for sample in family.samples:
            if sample.name == name and sample.labels["method"] == method:
                return sample.value
    return None


def test_the_overhead_ratio_of_a_run_is_seen_in_prometheus(project, tmp_path):
    with pushgateway(tmp_path) as gateway, prometheus(tmp_path, gateway.url) as server:
        known = {"PROMETHEUS_PUSHGATEWAY": gateway.url, "GRADWORKS_RUN": "nightly"}
        for method in ("erm", "dotprod"):
            said = project.run("train", *project.train(method, "watched"), **known, GRADWORKS_STAGE=f"train@{method}")
            assert said == []
        wanted = 'gradworks:overhead:ratio{run="nightly",method="dotprod",encoder="gru",condition="noise",task="nli"}'
        spent = {m: pushed(gateway, "gradworks_step_duration_seconds_sum", m) for m in ("erm", "dotprod")}
        counted = {m: pushed(gateway, "gradworks_examples_total", m) for m in ("erm", "dotprod")}
        assert counted == {"erm": 2 * 480, "dotprod": 2 * 480}
        ratio = spent["dotprod"] / spent["erm"]

        def shown():
            found = query(server, wanted)
            return found and abs(float(found[0]["value"][1]) - ratio) < 1e-9 * ratio

        until(shown)
        assert query(server, 'gradworks:overhead:ratio{method="erm"}')[0]["value"][1] == "1"
        assert query(server, "sum(gradworks_stage_running)")[0]["value"][1] == "0"
        steps = query(server, 'gradworks_steps_total{job="gradworks",stage="train@dotprod"}')[0]
        history = artifacts.read_parquet(project.folder / "watched/dotprod/history.parquet")
        assert float(steps["value"][1]) == history.num_rows and steps["metric"]["seed"] == "0"
        assert float(query(server, 'gradworks_loss{method="dotprod"}')[0]["value"][1]) == history["loss"][-1].as_py()
    watched = {k: v for k, v in project.digests("watched").items() if "dotprod" in k}
    assert watched == project.digests("alone") and len(watched) > 5


def test_a_gateway_that_is_killed_changes_no_output(project, tmp_path):
    with pushgateway(tmp_path) as gateway:
        process = project.begin("train", *project.train("dotprod", "killed"), PROMETHEUS_PUSHGATEWAY=gateway.url)
        steps = until(lambda: pushed(gateway, "gradworks_steps_total"))
        process.send_signal(signal.SIGSTOP)
        gateway.kill()
        process.send_signal(signal.SIGCONT)
        (said,) = warnings(process)
    assert steps < artifacts.read_json(project.folder / "killed/dotprod/status.json")["steps"]  # in the middle
    assert said.startswith(f"warning: metrics cannot be pushed to {gateway.url}: ")
    assert project.digests("killed") == project.digests("alone")


def test_a_gateway_that_hangs_changes_no_output_while_the_port_is_read(project):
    with hanging() as url:
        process = project.begin("train", *project.train("dotprod", "hung"), "--metrics-port", 0,
                                PROMETHEUS_PUSHGATEWAY=url)  # fmt: skip
        address = process.stdout.readline().removeprefix("metrics: ").strip()
        shown = until(lambda: "gradworks_steps_total{" in (text := get(address)) and text)
        assert 'stage="train@hung/dotprod"' in shown
        while process.poll() is None:
            with contextlib.suppress(OSError, HTTPException):  # it has ended meanwhile
                get(address)
        (said,) = warnings(process)
    assert said.startswith(f"warning: metrics cannot be pushed to {url}: no answer in ")
    assert project.digests("hung") == project.digests("alone")


def test_a_run_that_is_stopped_says_so(project, tmp_path):
    with pushgateway(tmp_path) as gateway:
        process = project.begin("train", *project.train("dotprod", "stopped"), PROMETHEUS_PUSHGATEWAY=gateway.url)
        until(lambda: pushed(gateway, "gradworks_steps_total"))
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 143 and pushed(gateway, "gradworks_stage_running") == 0


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("corrupt", ["--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "again"]),
        ("pretrain", ["--encoder", "gru", "--data", "runs/fetch", "--out", "again"]),
    ],
)
def test_every_stage_tells_how_long_it_took(project, tmp_path, kind, args):
    with pushgateway(tmp_path) as gateway:
        known = {"PROMETHEUS_PUSHGATEWAY": gateway.url, "GRADWORKS_METRICS_PORT": "0"}
        assert project.run(kind, *args, **known) == []
        families = {f.name: f for f in parser.text_string_to_metric_families(get(f"{gateway.url}/metrics"))}
    (took,) = families["gradworks_stage_duration_seconds"].samples
    assert took.labels["phase"] == "run" and took.labels["stage"] == f"{kind}@again" and took.value > 0
