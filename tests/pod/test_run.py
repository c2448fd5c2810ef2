"""What a pod does, with a real S3 server and real DVC, each stage a process of its own.."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.pod import outputs
from gradworks.store.places import BEFORE, Places
from tests.cluster import launcher, toy

pytestmark = pytest.mark.slow("runs pods against an S3 server")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout, a store, and one run that went through."""
    folder = tmp_path_factory.mktemp("pods")
    with toy.served(folder) as (environment, _):
        runs = toy.Runs(toy.checkout(folder / "checkout"), folder, environment)
        runs.all("first")
        yield runs


def read(file):
    return json.loads(Path(file).read_text())


def test_the_lock_entries_are_those_of_dvc_repro(world, tmp_path):
    clone = tmp_path / "clone"
    toy.git(tmp_path, "clone", "-q", str(world.root), str(clone))
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=clone, check=True)
    plain = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    assert world.places.entries("first") == plain and len(plain) == 4


def test_kubeflow_gets_what_its_launcher_accepts(world):
    for stage in world.stages:
        given = world.given("first", stage)
        assert launcher.violations(given, str(world.folder)) == []
        lock = read(given["outputs"]["parameters"]["lock"]["outputFile"])
        assert lock["uri"].startswith("s3://gradworks/toy/gradworks/locks/first/")
    told = json.loads((world.folder / "first/double@a/executor_output.json").read_text())["artifacts"]
    assert told["metrics"]["artifacts"][0]["metadata"] == {"overall.accuracy": 0.194}
    pointer = json.loads((world.folder / "first/double@a/model").read_text())
    assert pointer == told["model"]["artifacts"][0]["metadata"]
    body = world.places.get(pointer["data"].removeprefix("s3://gradworks/"))
    assert json.loads(body)[0]["relpath"] == "model.txt"  # the address leads to the data
    assert (world.folder / "first/join/html").read_text() == "<p>194 196</p>"


def test_the_figures_over_all_examples_come_first_and_the_others_as_far_as_they_fit():
    found = {f"by.heuristic.constituent.accuracy.{n}": 0.5 for n in range(40)} | {"overall.accuracy.low": 0.1}
    made = outputs._first({"adds.high": 0.3} | found | {"overall.accuracy": 0.2})
    assert list(made)[:2] == ["overall.accuracy", "overall.accuracy.low"] and 2 < len(made) < 20
    assert len(json.dumps(made)) <= outputs._FIGURES + 2 * len(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["artifacts"]["model"]["artifacts"][0].update(uri="/elsewhere/x"), "outside the pipeline root"),
        (lambda t: t["artifacts"]["model"]["artifacts"][0].update(uri=t["uri"] + "-2"), "was changed"),
        (lambda t: t["artifacts"].update(other={"artifacts": []}), "the component does not have"),
        (lambda t: t.update(parameterValues={"lock": "x" * 10_001}), "10001 characters"),
        (lambda t: t.update(parameterValues={"more": "x"}), "a parameter that the component does not have"),
    ],
)
def test_the_checker_sees_each_violation(world, tmp_path, change, said):
    given = world.given("first", "double@a")
    told = read(given["outputs"]["outputFile"])
    told["uri"] = given["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    change(told)
    given["outputs"]["outputFile"] = str(tmp_path / "told.json")
    (tmp_path / "told.json").write_text(json.dumps(told))
    assert said in "\n".join(launcher.violations(given, str(world.folder)))


def test_the_checker_sees_what_was_not_written(world):
    given = world.given("never", "double@a")
    found = launcher.violations(given, str(world.folder))
    assert len(found) == 3 and "nothing was written" in found[0] and "was not written" in found[2]


def test_another_run_restores_every_stage(world):
    world.all("second")
    assert [world.record("second", stage)["ran"] for stage in world.stages] == [False] * 4
    assert [world.record("first", stage)["ran"] for stage in world.stages] == [True] * 4
    assert world.places.entries("second") == world.places.entries("first")


def test_a_retry_changes_nothing(world):
    before = world.places.entries("first")
    assert world.pod("first", "double@b")[0] == 0
    assert world.places.entries("first") == before and world.record("first", "double@b")["attempt"] == 2
    log = world.places.get(world.places.key("logs", "first", "double@b.txt")).decode()
    first, _, again = log.partition("--- tried again ---\n")
    assert "Running stage" in first and "is cached - skipping run" in again


def test_a_secret_of_the_environment_stands_in_no_log(world):
    for stage in world.stages:
        log = world.places.get(world.places.key("logs", "first", f"{stage}.txt")).decode()
        assert "the secret is ***" in log and "planted" not in log


def test_a_stage_reads_only_what_it_needs(world):
    # of each `double` its model, a folder's list and a file: not the metrics, nor `made`, which only `double` reads
    assert world.record("first", "join")["objects_read"] == 4
    assert world.record("first", "make")["objects_read"] == 0


def copy_of_run(world, name, stages):
    """A run in which these stages have finished."""
    for stage in stages:
        world.places.put_entry(name, stage, world.places.entry("first", stage))


def data_key(world, run, stage, path):
    (found,) = [out["md5"] for out in world.places.entry(run, stage)["outs"] if out["path"] == path]
    return world.places.data_key(found)


def test_a_damaged_object_stops_its_reader_and_a_retry_of_its_maker_mends_it(world):
    listed = json.loads(world.places.get(data_key(world, "first", "make", "made")))
    key = world.places.data_key(listed[0]["md5"])
    whole = world.places.get(key)
    world.places.put(key, b"98")
    copy_of_run(world, "damaged", ["make"])
    ended, said = world.pod("damaged", "double@a")
    assert ended == 2 and f"error: double@a: s3://gradworks/{key}: damaged" in said and "run make again" in said
    assert world.places.entry("damaged", "double@a") is None
    assert world.pod("damaged", "make")[0] == 0 and world.record("damaged", "make")["ran"]
    assert world.places.get(key) == whole
    assert world.pod("damaged", "double@a")[0] == 0


def test_an_object_that_is_there_with_other_bytes_is_pushed_again(world):
    key = data_key(world, "first", "double@a", "metrics/a.json")
    whole = world.places.get(key)
    world.places.put(key, b"{}")
    copy_of_run(world, "overwritten", ["make"])
    assert world.pod("overwritten", "double@a")[0] == 0
    assert world.places.get(key) == whole


def test_a_missing_object_is_named_and_made_again(world):
    key = data_key(world, "first", "make", "made")
    world.places.delete([key])
    copy_of_run(world, "missing", ["make"])
    ended, said = world.pod("missing", "double@a")
    assert ended == 2 and f"s3://gradworks/{key}: missing" in said
    assert world.pod("missing", "make")[0] == 0 and world.pod("missing", "double@a")[0] == 0


def test_upstreams_have_to_have_finished_and_their_entries_to_be_whole(world):
    ended, said = world.pod("early", "join")
    assert ended == 2 and "error: join: run early has no lock entry of double@a" in said
    copy_of_run(world, "bitten", ["double@a", "double@b"])
    key = world.places.key("locks", "bitten", "double@a.json")
    world.places.put(key, world.places.get(key).replace(b"194", b"195").replace(b"md5: ", b"md5: 0", 1))
    ended, said = world.pod("bitten", "join")
    assert ended == 2 and f"s3://gradworks/{key}: damaged" in said
    with pytest.raises(InputError, match="damaged"):
        world.places.entries("bitten")


def test_an_entry_comes_back_as_it_was(world):
    entry = {"cmd": "x", "params": {"params.yaml": {"fetch.s": {"labels": {0: "no", 2: "ja – größer", None: "b"}}}}}
    world.places.put_entry("keys", "fetch@s", entry)
    assert world.places.entry("keys", "fetch@s") == entry == world.places.entries("keys")["fetch@s"]


def test_entries_of_before_the_start_are_found_with_those_of_the_pods(world):
    of = {name: {"cmd": name, "params": {"params.yaml": {"labels": {0: "no"}}}} for name in ("fetch@s", "make", "join")}
    own = Places(world.places.remote, world.places.client)
    assert own.entry("begun", "make") is None  # asked before they are written
    own.put_before("begun", {name: of[name] for name in ("fetch@s", "make")})
    own.put_entry("begun", "join", of["join"])
    for places in (own, Places(own.remote, own.client)):
        assert places.entries("begun") == of and [places.entry("begun", name) for name in of] == list(of.values())
        assert places.entry("begun", "other") is None and places.entry("other", "make") is None
    key = own.key("locks", "begun", BEFORE)
    own.put(key, own.get(key).replace(b"cmd: make", b"cmd: made"))
    for read in (lambda places: places.entry("begun", "make"), lambda places: places.entries("begun")):
        with pytest.raises(InputError, match=f"{BEFORE}: damaged"):
            read(Places(own.remote, own.client))


def test_a_failed_stage_leaves_its_log_and_no_entry(world, tmp_path):
    broken = toy.checkout(tmp_path / "broken")
    (broken / "work.py").write_text("import sys\nprint('about to fail')\nsys.exit(3)\n")
    toy.git(broken, "commit", "-q", "-am", "broken")
    runs = toy.Runs(broken, tmp_path, world.environment)
    ended, said = runs.pod("fails", "make")
    assert ended == 2 and "error: make: failed to run: python work.py make made, exited with 3" in said
    assert "about to fail" in runs.places.get(runs.places.key("logs", "fails", "make.txt")).decode()
    assert runs.record("fails", "make")["state"] == "failed" and runs.places.entries("fails") == {}


WORDS = [
    ("print('error: early')\nprint('error: params.yaml: epochs: found -1\\nexpected 1 or more')\nsys.exit(2)",
     "params.yaml: epochs: found -1\nexpected 1 or more"),
    ("raise KeyError('nothing')", "KeyError: 'nothing'"),
    ("print('about to fail')\nsys.exit(3)", "failed to run: python work.py make made, exited with 3"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "said"), WORDS, ids=range(len(WORDS)))
def test_the_record_of_a_failed_stage_has_its_own_words(world, tmp_path, program, said):
    broken = toy.checkout(tmp_path / "broken")
    (broken / "work.py").write_text(f"import sys\n{program}\n")
    file = broken / "dvc.yaml"
    file.write_text(file.read_text().replace("    outs: [made]\n", "    outs: [made]\n    meta: {retries: 1}\n"))
    toy.git(broken, "commit", "-q", "-am", "broken")
    runs = toy.Runs(broken, tmp_path, world.environment)
    name = f"own-{len(said)}"
    for state in ("retrying", "failed"):  # the first of two tries, and the second
        ended, printed = runs.pod(name, "make")
        record = runs.record(name, "make")
        assert ended == 2 and (record["state"], record["error"]) == (state, f"make: {said}")
        assert f"error: make: {said}" in printed


def test_a_damaged_record_of_an_earlier_try_stops_no_pod(world):
    copy_of_run(world, "bitten-record", ["make"])
    world.places.put(world.places.key("runs", "bitten-record", "stages/double@a.json"), b"{")
    assert world.pod("bitten-record", "double@a")[0] == 0
    assert world.record("bitten-record", "double@a")["attempt"] == 1


def test_a_pod_knows_that_it_asked_for_a_gpu(world, tmp_path):
    asks = toy.checkout(tmp_path / "asks")
    (asks / "work.py").write_text("from gradworks.base.device import set_up\nset_up(1, 'auto')\n")
    file = asks / "dvc.yaml"
    meta = "    meta: {image: cpu, resources: {gpu: {kind: a, count: 1}}}\n"
    file.write_text(file.read_text().replace("    outs: [made]\n", f"    outs: [made]\n{meta}"))
    toy.git(asks, "commit", "-q", "-am", "asks")
    ended, printed = toy.Runs(asks, tmp_path, world.environment).pod("asks", "make", CUDA_VISIBLE_DEVICES="")
    assert ended == 2 and "InputError: the stage asked for 1 GPU, but torch sees none" in printed


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"GRADWORKS_IMAGE": "0123456789ab"}, r"found the image 0123456789ab, expected gradworks-cpu:[0-9a-f]{12}"),
        ({"GRADWORKS_IMAGE": ""}, "found the image without GRADWORKS_IMAGE"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}, "error: make: .*Unable to locate credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "x"}, "error: make: s3://gradworks.*InvalidAccessKeyId"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "error: make: .*Could not connect"),
    ],
)  # fmt: skip
def test_what_is_wrong_around_it_is_said_in_words(world, variables, said):
    ended, printed = world.pod("wrong", "make", **variables)
    assert ended != 0 and re.search(said, printed) and "Traceback" not in printed
    assert world.places.entry("wrong", "make") is None


def test_a_bucket_that_is_not_there(world, monkeypatch):
    monkeypatch.setattr(toy, "REMOTE", "s3://no-such-bucket/x")
    ended, printed = world.pod("wrong", "make")
    assert ended == 2 and "error: make: s3://no-such-bucket/x" in printed and "bucket" in printed


def test_code_that_is_damaged_is_not_run(world):
    key = world.uri.removeprefix("s3://gradworks/")
    body = world.places.get(key)
    try:
        world.places.put(key, body[:-1] + bytes([body[-1] ^ 1]))
        ended, printed = world.pod("wrong", "make")
    finally:
        world.places.put(key, body)
    assert ended == 1 and "damaged" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_stage_goes_on_from_its_checkpoint_elsewhere(world, tmp_path, number):
    runs = toy.Runs(
        toy.checkout(tmp_path / "slow", toy.PARAMS.replace("sleep: 0", f"sleep: {600 + number}")),
        tmp_path,
        world.environment,
    )
    copy_of_run(world, f"killed-{number}", ["make"])
    process = runs.begin(f"killed-{number}", "double@a")
    prefix = runs.places.key("checkpoints", "dvc.yaml", "double@a")
    until = time.monotonic() + 120
    while not list(runs.places.list(f"{prefix}/")) and time.monotonic() < until:
        time.sleep(0.2)
    sent = list(runs.places.list(f"{prefix}/"))
    assert sent
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 143 and "stopped by SIGTERM" in said
    for left in psutil.process_iter(["cwd"]):  # the stage outlives its pod's program here, but not its container
        if left.info["cwd"] and left.info["cwd"].startswith(str(tmp_path)):
            left.kill()
    shutil.rmtree(tmp_path / f"killed-{number}")  # the pod's disk is gone
    # what is left to do is cut short, or the test would take a minute: the checkpoint says nearly done
    runs.places.put(sent[0]["Key"], str(598 + number).encode())
    ended, said = runs.pod(f"killed-{number}", "double@a")
    assert ended == 0 and f"begins at {598 + number}" in said
    assert list(runs.places.list(f"{prefix}/")) == []  # a finished stage's checkpoint goes
