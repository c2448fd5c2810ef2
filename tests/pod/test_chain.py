"""Stages that share a pod: each restored, logged, recorded, stopped and resumed as one of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gradworks.store.places import encoded
from tests.cluster import launcher, toy

pytestmark = pytest.mark.slow("runs pods against an S3 server")

CHAIN = "make -> double@a -> join"
FAILS = "if what == os.environ.get('FAILS'):\n    sys.exit('error: as planned')\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    with toy.served(folder) as (environment, _):
        yield folder, environment


def made(root: Path, served, sleep: int = 0) -> toy.Runs:
    """A checkout whose stages make one chain, of two tries; its program fails in the stage of the variable FAILS."""
    toy.checkout(root, toy.PARAMS.replace(", b: {}", "").replace("sleep: 0", f"sleep: {sleep}"))
    given = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    for stage in (given["make"], given["double"]["do"], given["join"]):
        stage["meta"] = {"retries": 1}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": given}, sort_keys=False))
    work = toy.WORK.replace("if what ==", f"{FAILS}if what ==", 1)
    work = work.replace("lambda *_: stopped.append(1)", "lambda *_: stopped.append(print('asked to stop', flush=True))")
    (root / "work.py").write_text(work)
    toy.git(root, "commit", "-q", "-am", "one")
    return toy.Runs(root, root.parent, served[1])


@pytest.fixture(scope="module")
def world(served):
    """One checkout, and a run of its chain that went well."""
    runs = made(served[0] / "checkout", served)
    ended, said = runs.pod("chain", CHAIN)
    assert ended == 0, said
    return runs


def test_a_chain_writes_what_pods_of_their_own_write(world):
    made = world.places.entries("chain")
    assert len(made) == 3 and all(world.record("chain", stage)["ran"] for stage in world.stages)
    world.places.put_entry("alone", "make", made["make"])
    assert world.pod("alone", "double@a")[0] == 0 and world.record("alone", "double@a")["ran"] is False
    assert world.places.entry("alone", "double@a") == made["double@a"]
    for stage in world.stages:
        log = world.places.get(world.places.key("logs", "chain", f"{stage}.txt")).decode()
        assert f"Running stage '{stage}'" in log and log.count("Running stage") == 1 and "planted" not in log
    left = world.folder / "chain" / encoded(CHAIN) / "code/.gradworks/chain"
    assert {file.name for file in left.iterdir()} == {"cache", "0.json", "1.json", "2.json"}  # no checkout
    assert len(list((left / "cache/files/md5").glob("*/*"))) > 4  # what one stage made, the next need not download


def test_kubeflow_gets_the_outputs_of_all_stages_under_names_of_their_own(world):
    given = world.given("chain", CHAIN)
    assert launcher.violations(given, str(world.folder)) == []
    told = json.loads(Path(given["outputs"]["outputFile"]).read_text())["artifacts"]
    assert list(told) == ["dataset", "model_of_double", "metrics_of_double", "html_of_join", "markdown_of_join"]
    assert told["metrics_of_double"]["artifacts"][0]["metadata"] == {"overall.accuracy": 0.194}
    at = Path(given["outputs"]["outputFile"]).parent
    assert json.loads((at / "model_of_double").read_text())["path"] == "out/a"
    assert (at / "html_of_join").read_text() == "<p>194</p>"
    for name, stage in (("lock", "make"), ("lock_of_double", "double%40a"), ("lock_of_join", "join")):
        assert json.loads((at / name).read_text())["uri"].endswith((f"/{stage}.json", "/double@a.json"))


def test_a_chain_that_fails_or_is_stopped_in_its_second_stage_goes_on_there(served, tmp_path):
    runs = made(tmp_path / "slow", served, sleep=600)
    runs.places.put_record("stopped", "stages/make", {"state": "retrying", "attempt": 1})  # by an earlier pod
    ended, said = runs.pod("stopped", CHAIN, FAILS="double")
    assert ended == 2 and "error: double@a: as planned" in said and "join" not in said
    record = runs.record("stopped", "double@a")
    # its own first try, in the second of two pods
    assert (record["state"], record["attempt"], record["error"]) == ("failed", 1, "double@a: as planned")
    assert list(runs.places.entries("stopped")) == ["make"] and runs.record("stopped", "join") is None

    process = runs.begin("stopped", CHAIN)
    prefix = runs.places.key("checkpoints", "dvc.yaml", "double@a")
    until = time.monotonic() + 120
    while not (sent := list(runs.places.list(f"{prefix}/"))) and time.monotonic() < until:
        time.sleep(0.2)
    assert sent
    os.killpg(process.pid, signal.SIGTERM)  # as Argo does
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "error: double@a: stopped by SIGTERM" in said and "join" not in said
    assert said.count("asked to stop") == 1  # a second signal would end a training without its checkpoint
    assert not [one for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(str(tmp_path))]

    shutil.rmtree(tmp_path / "stopped")  # the pod's disk is gone
    runs.places.put(sent[0]["Key"], b"598")  # what is left to do is cut short, or the test would take a minute
    ended, said = runs.pod("stopped", CHAIN)
    assert ended == 0 and "begins at 598" in said
    states = [runs.record("stopped", stage) for stage in runs.stages]
    assert [(one["state"], one["ran"], one["attempt"]) for one in states] == [
        ("succeeded", False, 4), ("succeeded", True, 3), ("succeeded", False, 1),
    ]  # fmt: skip
