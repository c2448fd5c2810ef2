"""`gradworks artifacts prune`: what is old and has ended goes, and nothing that DVC or a run still needs."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import artifacts as verbs
from gradworks.store.artifacts import prune
from gradworks.store.places import Places, encoded
from tests.cluster import toy

pytestmark = pytest.mark.slow("an S3 server")

DAY = 86400


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with toy.served(tmp_path_factory.mktemp("prune")):
        yield


@pytest.fixture
def places(served, tmp_path, monkeypatch):
    """An empty remote, and a checkout that names it as the current folder."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {toy.REMOTE}\n")
    places = Places(toy.REMOTE)
    places.delete([one["Key"] for one in places.list("toy/")])
    for key in ("toy/files/md5/ab/c", "toy/runs/ab/c/d", "toy/gradworks/quarantine/x", "toy/gradworks/other"):
        places.put(key, b"stays")
    return places


@pytest.fixture
def at(monkeypatch):
    """A function that sets the clock of `prune` to a time after an object was written."""

    def set_to(one, **after):
        class Clock(prune.datetime):
            @classmethod
            def now(cls, _):
                return one["LastModified"] + timedelta(**after)

        monkeypatch.setattr(prune, "datetime", Clock)

    return set_to


def submitted(places, name, state="submitted", stages=("succeeded", "succeeded"), code="a", pipeline="dvc.yaml"):
    """A run of two stages with all that one leaves; None: a stage that has not begun."""
    uri = places.put(places.key("code", f"{code}-{'0' * 64}.tar.gz"), b"code of " + code.encode())
    record = {"run": name, "pipeline": pipeline, "stages": ["one", "two@x"], "state": state, "code": uri}
    for stage, fared in zip(record["stages"], stages, strict=True):
        if fared:
            places.put_record(name, f"stages/{encoded(stage)}", {"state": fared})
            places.put(places.key("logs", name, f"{encoded(stage)}.txt"), b"log")
            places.put_entry(name, stage, {"cmd": "x"})
    places.put_record(name, "run", record)


def keys(places, under=""):
    return {one["Key"].removeprefix("toy/gradworks/") for one in places.list(f"toy/{under}")}


def last(places):
    return max(places.list("toy/"), key=lambda one: one["LastModified"])


def run(*args):
    parser = argparse.ArgumentParser()
    verbs.add(parser.add_subparsers(dest="verb"))
    verbs.run(parser.parse_args(["artifacts", "prune", *args]))


def told(capsys, *args):
    run(*args, "--json")
    return json.loads(capsys.readouterr().out)


STAY = {"toy/files/md5/ab/c", "toy/runs/ab/c/d", "quarantine/x", "other"}


def test_an_old_run_goes_whole_and_what_is_not_a_runs_stays(places, at, capsys):
    submitted(places, "old")
    places.put(places.key("checkpoints", encoded("dvc.yaml"), "one", "state"), b"12345")
    before = keys(places)
    at(last(places), days=90)
    found = told(capsys, "--older-than", "90d", "--dry-run")
    assert keys(places) == before and found["dry_run"] and found["runs"] == ["old"]
    assert {kind: one["objects"] for kind, one in found["kinds"].items()} == {
        "code": 1, "checkpoints": 1, "logs": 2, "locks": 2, "runs": 3,
    }  # fmt: skip
    sizes = {one["Key"]: one["Size"] for one in places.list("toy/")}
    run("--older-than", "90d", "--dry-run")
    assert "would remove 9 objects, " in capsys.readouterr().out
    found = told(capsys, "--older-than", "90d")
    assert keys(places) == STAY and found["objects"] == 9 and not found["dry_run"]
    assert found["bytes"] == sum(sizes.values()) - 4 * len(b"stays")
    assert found["kinds"]["checkpoints"]["bytes"] == 5


def test_what_is_newer_than_the_bound_stays(places, at, capsys):
    submitted(places, "young")
    before = keys(places)
    at(min(places.list("toy/"), key=lambda one: one["LastModified"]), days=90, seconds=-1)
    assert told(capsys, "--older-than", "90d")["objects"] == 0 and keys(places) == before


def test_one_new_object_keeps_its_run_and_its_code(places, at, capsys, monkeypatch):
    submitted(places, "old")
    real = Places.list

    def later(self, prefix):  # S3 does not let a client choose the time
        for one in real(self, prefix):
            more = timedelta(days=80 if one["Key"].endswith("logs/old/one.txt") else 0)
            yield one | {"LastModified": one["LastModified"] + more}

    at(last(places), days=91)
    monkeypatch.setattr(Places, "list", later)
    assert told(capsys, "--older-than", "90d")["objects"] == 0


@pytest.mark.parametrize(
    ("state", "stages", "goes"),
    [
        ("submitted", ("succeeded", "running"), False),
        ("failed", ("failed", "running"), False),
        ("submitted", ("succeeded", None), False),
        ("submitting", (None, None), False),
        ("submitted", ("succeeded", "failed"), True),
        ("submitted", ("failed", None), True),
        ("refused", (None, None), True),
        ("stopped", ("succeeded", None), True),
    ],
)
def test_a_run_that_goes_on_stays_with_its_code_and_checkpoints(places, at, capsys, state, stages, goes):
    submitted(places, "run", state, stages)
    places.put(places.key("checkpoints", encoded("dvc.yaml"), "one", "state"), b"x")
    before = keys(places)
    at(last(places), days=900)
    found = told(capsys, "--older-than", "90d")
    assert keys(places) == (STAY if goes else before)
    assert found["running"] == ([] if goes else ["run"])
    if not goes:
        run("--older-than", "90d", "--dry-run")
        assert "still running by their records, so they stay: run; of one that is not: --ended RUN" in (
            capsys.readouterr().out
        )
        assert told(capsys, "--older-than", "90d", "--ended", "run")["objects"] and keys(places) == STAY


def test_a_bundle_of_code_stays_for_another_run(places, at, capsys):
    submitted(places, "old", code="shared")
    submitted(places, "done", code="own", pipeline="pipelines/x/dvc.yaml")
    submitted(places, "goes on", stages=("running", None), code="shared")
    for pipeline in ("dvc.yaml", "pipelines/x/dvc.yaml"):
        places.put(places.key("checkpoints", encoded(pipeline), "one", "state"), b"x")
    at(last(places), days=100)
    assert told(capsys, "--older-than", "90d")["runs"] == ["done", "old"]
    left = keys(places)
    assert f"code/shared-{'0' * 64}.tar.gz" in left and f"code/own-{'0' * 64}.tar.gz" not in left
    assert "checkpoints/dvc.yaml/one/state" in left and "checkpoints/pipelines%2Fx%2Fdvc.yaml/one/state" not in left


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"state": 3}'])
def test_a_run_with_a_damaged_record_stays_and_all_code(places, at, capsys, body):
    submitted(places, "old")
    submitted(places, "broken", code="b", stages=("succeeded", None))
    places.put(places.key("runs", "broken", "run.json"), body)
    at(last(places), days=100)
    found = told(capsys, "--older-than", "90d")
    assert found["runs"] == ["old"] and found["running"] == ["broken"] and found["kinds"]["code"]["objects"] == 0


def test_what_is_asked_for_is_checked(places):
    for given in ("soon", "9", "-1d", "90 d"):
        with pytest.raises(InputError, match="--older-than: found"):
            run(f"--older-than={given}")
    with pytest.raises(InputError, match="--ended x: no such run"):
        run("--older-than", "1d", "--ended", "x")
    with pytest.raises(InputError, match="not gradworks' own; nothing was removed"):
        prune.remove(places, {"objects": [{"Key": "toy/files/md5/ab/c"}]})
    with pytest.raises(SystemExit):
        run()
