"""Stages that were run before get no pod: what is left of a run, what its record says, what `collect` finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import history, local, plan, submit
from gradworks.store import cached, collect, runs
from gradworks.store.places import Places
from tests.cluster import toy
from tests.cluster.api_server import Api, Refusal

pytestmark = pytest.mark.slow("runs pods against an S3 server")

HEAD = Places.head
PROFILE = {"images": {"cpu": "gradworks-cpu", "gpu": "gradworks-gpu"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout, which is the current folder, and a run of it whose pods went through."""
    folder = tmp_path_factory.mktemp("before")
    with toy.served(folder) as (environment, patch):
        made = toy.Runs(toy.checkout(folder / "checkout"), folder, environment)
        made.all("first")
        patch.chdir(made.root)
        yield made


@pytest.fixture
def api():
    with Api() as serving:
        yield serving
        assert serving.wrong == []


def profile(folder: Path, api: Api) -> Path:
    (folder / "cluster.yaml").write_text(yaml.safe_dump({"endpoint": api.url, **PROFILE}))
    return folder / "cluster.yaml"


def locks(places: Places) -> list[str]:
    return [one["Key"] for one in places.list(places.key("locks"))]


def test_an_unchanged_pipeline_submits_nothing_and_is_collected(world, api, tmp_path, capsys):
    run = submit.submit(Path("dvc.yaml"), profile(tmp_path, api), wait=True)
    assert api.asked == [] and "nothing to submit: the run cache has all 4 stages" in capsys.readouterr().out
    assert world.places.entries(run) == world.places.entries("first")  # what pods restored or wrote
    assert history.shown(world.places, run).count("restored before the start") == 4
    assert "4 restored" in history.listing(world.places)
    collect.collect(run)
    assert Path("page.html").read_text() == "<p>194 196</p>"
    assert yaml.safe_load(Path("dvc.lock").read_text())["stages"] == world.places.entries("first")
    Path("dvc.lock").unlink()
    run = submit.submit(Path("dvc.yaml"), profile(tmp_path, api), everything=True)
    assert len(api.bodies[-1]["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]) == 4
    assert world.places.entries(run) == {} and runs.record(world.places, run)["restored"] == []


def test_a_change_submits_what_it_concerns_and_the_pods_find_the_rest(world, api, tmp_path, capsys):
    run = submit.submit(Path("dvc.yaml"), profile(tmp_path, api), ["numbers={b: {}, a: {}, c: {}}"])
    tasks = api.bodies[-1]["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert {name: one.get("dependentTasks") for name, one in tasks.items()} == {"double-c-join": None}
    record = runs.record(world.places, run)
    assert record["tasks"] == {"double-c-join": ["double@c", "join"]} and record["pods"] == 1
    assert "5 stages of dvc.yaml" in (said := capsys.readouterr().out) and "3 of them done before the start" in said
    assert sorted(world.places.entries(run)) == ["double@a", "double@b", "make"]
    assert history.shown(world.places, run).count("waiting") == 2
    # a pod of the old code: what it reads from are the entries that were put there
    assert world.pod(run, "join")[0] == 0 and world.places.entry(run, "join") == world.places.entry("first", "join")


@pytest.mark.parametrize("listed", [4000, 1])
def test_what_the_store_lost_is_run_again(world, listed, monkeypatch):
    """Of a store that is listed whole, and of one too large for that."""
    monkeypatch.setattr(cached, "_LISTED", listed)
    made, other = world.places.entry("first", "double@a"), Places(toy.REMOTE)
    metrics, folder = (out["md5"] for out in made["outs"])
    listed = json.loads(other.get(other.data_key(folder)))
    for oid in (metrics, folder, listed[0]["md5"]):
        key = other.data_key(oid)
        body = other.get(key)
        for there in (None, b"damaged"):
            other.delete([key]) if there is None else other.put(key, there)
            assert list(plan.plan(Path("dvc.yaml"), None).restored) == ["make", "double@b"], oid
        other.put(key, body)
    assert len(plan.plan(Path("dvc.yaml"), None).restored) == 4


def test_a_small_store_is_listed_and_its_objects_are_not_asked_for_one_by_one(world, monkeypatch):
    asked = {}
    for listed in (4000, 1):
        monkeypatch.setattr(cached, "_LISTED", listed)
        seen = asked[listed] = []
        monkeypatch.setattr(Places, "head", lambda self, key, seen=seen: seen.append(key) or HEAD(self, key))
        assert len(plan.plan(Path("dvc.yaml"), None).restored) == 4
    assert asked[4000] == [] and len(asked[1]) > 2


def test_a_run_that_is_refused_leaves_its_record_alone(world, api, tmp_path, monkeypatch):
    def refuse(_):
        raise Refusal(400, "pipeline is too large")

    before = locks(world.places)
    monkeypatch.setattr(api, "run_service_create_run", refuse)
    with pytest.raises(InputError, match="too large"):
        submit.submit(Path("dvc.yaml"), profile(tmp_path, api), ["sleep=1"])
    assert locks(world.places) == before
    assert runs.record(world.places, runs.names(world.places)[0])["state"] == "refused"


def test_hardware_is_that_of_the_latest_run_of_the_same_cluster(world, monkeypatch):
    def ran(run: str, md5: str | None, endpoint: str) -> None:
        record = {"measured": ["measure"], "endpoint": endpoint}
        world.places.put_record(run, "run", record)
        if md5:
            world.places.put_entry(run, "measure", {"deps": [{"path": "hardware.yaml", "md5": md5}, {"path": "x"}]})

    for run, md5, endpoint in (("m1", "aa", "here"), ("m2", "bb", "here"), ("m3", None, "here"), ("m4", "cc", "there")):
        ran(run, md5, endpoint)
    monkeypatch.setattr(cached, "names", lambda _: ["m4", "m3", "m2", "m1"])  # S3 dates them to the second
    try:
        assert cached.machines(world.places, lambda record: record.get("endpoint") == "here") == ["bb"]
        assert cached.machines(world.places, lambda record: record.get("endpoint") == "nowhere") == []
    finally:
        world.places.delete([one["Key"] for one in world.places.list(world.places.key("runs", "m"))])


EARLY = """
  check:
    cmd: python work.py check checked
    deps: [work.py]
    params: [sleep, numbers]
    outs: [checked]
    meta: {pod: submit}
"""
CHECK = """
elif what == "check":
    if Path("params.yaml").read_text().startswith("sleep: 99"):
        sys.exit("error: params.yaml: sleep: found 99\\nexpected less")
    args[0].write_text("checked")
"""


@pytest.fixture(scope="module")
def guarded(world, tmp_path_factory):
    """A checkout whose first stage reads every parameter and says the same of all, and a run of it."""
    folder = tmp_path_factory.mktemp("guarded")
    root = toy.checkout(folder / "checkout", work=("    args[2].write_text(text)", CHECK))
    text = (root / "dvc.yaml").read_text().replace("deps: [work.py]", "deps: [work.py, checked]", 1)
    (root / "dvc.yaml").write_text(text + EARLY)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/checked\n")
    toy.git(root, "commit", "-q", "-a", "-m", "checked first")
    made = toy.Runs(root, folder, world.environment)
    made.all("guarded")
    return made


def test_a_stage_that_submit_runs_leaves_what_is_below_it_known(guarded, api, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(guarded.root)
    run = submit.submit(Path("dvc.yaml"), profile(tmp_path, api), ["numbers={b: {}, a: {}, c: {}}"])
    tasks = api.bodies[-1]["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert list(tasks) == ["double-c-join"]
    said = capsys.readouterr().out
    assert "check: runs here, before the run starts" in said and "4 of them done before the start" in said
    record, entries = runs.record(guarded.places, run), guarded.places.entries(run)
    assert record["restored"] == ["make", "double@b", "double@a"]
    assert sorted(entries) == ["check", "double@a", "double@b", "make"]
    assert guarded.record(run, "check")["ran"] and guarded.record(run, "check")["image"] is None
    assert history.shown(guarded.places, run).splitlines()[4].split()[:2] == ["check", "succeeded"]
    before = guarded.places.entries("guarded")
    assert entries["check"]["outs"] == before["check"]["outs"] and entries["check"] != before["check"]
    assert entries["make"] == before["make"]
    # the same again: it is in the run cache now
    assert plan.plan(Path("dvc.yaml"), None, ["numbers={b: {}, a: {}, c: {}}"]).record["restored"][0] == "check"
    assert "runs here" not in capsys.readouterr().out


def ours(places: Places) -> list[str]:
    return [one["Key"] for one in places.list(places.key(""))]


def test_a_stage_that_submit_runs_and_that_fails_leaves_nothing(guarded, api, tmp_path, monkeypatch):
    monkeypatch.chdir(guarded.root)
    before = ours(guarded.places)
    with pytest.raises(InputError, match=r"check: params.yaml: sleep: found 99\nexpected less"):
        submit.submit(Path("dvc.yaml"), profile(tmp_path, api), ["sleep=99"])
    assert api.asked == [] and ours(guarded.places) == before


def test_a_cluster_that_refuses_after_it_leaves_nothing(guarded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(guarded.root)
    before = ours(guarded.places)
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"endpoint": "http://127.0.0.1:9", **PROFILE}))
    for begin in (
        lambda: submit.submit(Path("dvc.yaml"), tmp_path / "cluster.yaml", ["sleep=2"]),
        lambda: local.submit(Path("dvc.yaml"), ["sleep=3"]),
    ):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
        with pytest.raises(InputError, match=r"127\.0\.0\.1:9|no Docker engine"):
            begin()
        assert "check: runs here" in capsys.readouterr().out and ours(guarded.places) == before


def test_a_mistake_in_the_parameters_is_named_before_a_stage_is_run(guarded, monkeypatch, capsys):
    def wrong():
        def answer():
            raise InputError("params.yaml: a mistake")

        return answer

    monkeypatch.chdir(guarded.root)
    before = ours(guarded.places)
    assert plan.plan(Path("dvc.yaml"), None, sure=wrong).ir == ""  # all that there is was run, and checked, before
    for everything in (False, True):  # the first stage is run here, or has a pod
        with pytest.raises(InputError, match="a mistake"):
            plan.plan(Path("dvc.yaml"), None, ["sleep=7"], everything=everything, sure=wrong)
    assert "runs here" not in capsys.readouterr().out and ours(guarded.places) == before


def test_with_all_and_in_standing_pipelines_it_has_a_pod(guarded, monkeypatch):
    monkeypatch.chdir(guarded.root)
    for more in ({}, {"standing": True}):
        made = plan.plan(Path("dvc.yaml"), None, ["sleep=1"], everything=True, **more)
        assert made.restored == {} and ["check", "make"] in made.record["tasks"].values()
