"""monitoring: configuration, rules and their tests by promtool, the dashboard by Prometheus itself."""

from __future__ import annotations

import itertools
import json
import re
import subprocess

import pytest
import yaml

from gradworks.spec import StepReport
from gradworks.telemetry import live
from tests.telemetry.servers import MONITORING, need, prometheus, query
from tests.telemetry.test_live import LOG, STEP

pytest.importorskip("prometheus_client")
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.slow("runs promtool")
@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]],
)
def test_promtool(command):
    need("promtool")
    done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_test():
    text = (MONITORING / "rules_test.yml").read_text()
    last = [rule.get("alert") or rule["record"] for rule in RULES if rule.get("record") != RULES[0]["record"]]
    assert [name for name in last if name not in text] == []  # the first record stands in the second


@pytest.mark.slow("runs Prometheus")
def test_the_dashboard_asks_what_prometheus_understands(tmp_path):
    with prometheus(tmp_path, "127.0.0.1:1") as server:
        for expression in EXPRESSIONS:
            query(server, re.sub(r"\$\w+", ".*", expression))


def test_only_metrics_that_a_stage_tells_are_asked_for():
    told = live.Live({})
    told.step(StepReport(False, 1.0, log=LOG), **STEP)
    told.overhead(1.0)
    samples = {sample.name for family in told.registry.collect() for sample in family.samples}
    samples |= {rule["record"] for rule in RULES if "record" in rule} | {"gradworks_gpu_utilization_ratio"}
    asked = [*EXPRESSIONS, *(rule["expr"] for rule in RULES), *(v.get("definition", "") for v in variables())]
    names = {name for text in asked for name in re.findall(r"\bgradworks[_:][\w:]+", text)}
    assert names - samples == set()
    hidden = {name for name in samples if not name.endswith(("_count", "_bucket", "_sum", "_timestamp_seconds"))}
    assert hidden - names == set()  # and whatever it tells is shown


def variables():
    return DASHBOARD["templating"]["list"]


def test_the_dashboard_is_one_that_grafana_reads():
    assert {"title", "uid", "schemaVersion", "time", "panels", "templating"} <= set(DASHBOARD)
    assert all(p["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for p in DASHBOARD["panels"])
    used = {name for text in EXPRESSIONS for name in re.findall(r"\$(\w+)", text)}
    assert used | {"datasource"} == {one["name"] for one in variables()}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(p["x"] + p["w"] <= 24 for p in places)
    for a, b in itertools.combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
