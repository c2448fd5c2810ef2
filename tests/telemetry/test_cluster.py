"""Pods push the phases of their stages, and collecting a run removes what it pushed; with a real S3 server."""

from __future__ import annotations

import pytest

from gradworks.store import collect
from gradworks.telemetry import push
from tests.cluster import toy
from tests.telemetry.servers import get, hanging, pushgateway

pytestmark = pytest.mark.slow("runs a pipeline beside a Pushgateway")

parser = pytest.importorskip("prometheus_client.parser")
# the stage's program tells of itself too, as those of components/ do
TOLD = """
import argparse
from gradworks.telemetry import live
live.begin("toy", argparse.Namespace(metrics_port=None))
"""


def groups(gateway):
    """{(run, stage): {(metric, phase): value}}"""
    found = {}
    for family in parser.text_string_to_metric_families(get(f"{gateway.url}/metrics")):
        for sample in family.samples:
            if sample.labels.get("job") == push.JOB:
                group = found.setdefault((sample.labels["run"], sample.labels["stage"]), {})
                group[sample.name, sample.labels.get("phase", "")] = sample.value
    return found


def test_a_run_from_its_pods_to_its_collection(tmp_path, monkeypatch, capsys):
    with toy.served(tmp_path) as (environment, _), pushgateway(tmp_path) as gateway, hanging() as silent:
        root = toy.checkout(
            tmp_path / "checkout", work=("what, args = sys.argv[1], [Path(a) for a in sys.argv[2:]]\n", TOLD)
        )
        runs = toy.Runs(root, tmp_path, environment)
        for run in ("one", "two"):
            ended, said = runs.pod(run, "make", PROMETHEUS_PUSHGATEWAY=gateway.url)
            assert ended == 0 and "warning" not in said, said
        found = groups(gateway)
        assert set(found) == {("one", "make"), ("two", "make")}
        group, seconds = found["one", "make"], runs.record("one", "make")["seconds"]
        spent = {phase: value for (name, phase), value in group.items() if name == "gradworks_stage_duration_seconds"}
        assert spent == {"fetch": seconds["code"], **{p: seconds[p] for p in ("pull", "run", "push")}}
        assert group["gradworks_stage_running", ""] == 0
        assert ("gradworks_peak_memory_bytes", "") in group  # of the stage's own program

        ended, said = runs.pod("three", "make", PROMETHEUS_PUSHGATEWAY=silent)
        assert ended == 0 and said.count("warning: metrics cannot be pushed to") == 1, said

        commit = toy.git(root, "rev-parse", "HEAD").strip()
        record = {"pipeline": "dvc.yaml", "commit": commit, "base": commit, "sets": [], "stages": ["make"]}
        for run in ("one", "two"):
            runs.places.put_record(run, "run", {"run": run, "state": "submitted", **record})
        monkeypatch.chdir(root)
        monkeypatch.setenv(push.VARIABLE, gateway.url)
        collect.collect("one")
        assert set(groups(gateway)) == {("two", "make")}
        assert capsys.readouterr().err == ""
        monkeypatch.setenv(push.VARIABLE, silent)
        collect.collect("two")
        assert capsys.readouterr().err == f"warning: metrics of run two stay in {silent}: no answer in 2 s\n"
        assert (root / "made/a.txt").exists()
