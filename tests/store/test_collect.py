"""`gradworks collect` and `gradworks runs`, with a real S3 server; the data was pushed by a plain `dvc repro`."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks import run
from gradworks.base.errors import InputError
from gradworks.cluster import history
from gradworks.store import collect, runs
from gradworks.store.places import Places
from tests.cluster import toy
from tests.small import SMALL

pytestmark = pytest.mark.slow("an S3 server, DVC in processes")


def dvc(root, *args):
    subprocess.run([sys.executable, "-m", "dvc", *args], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout, and the lock entries of its pipeline with their objects in the store."""
    folder = tmp_path_factory.mktemp("collect")
    with toy.served(folder) as (_, _):
        root = toy.checkout(folder / "checkout")
        work = folder / "work"
        shutil.copytree(root, work)
        dvc(work, "repro", "-q")
        dvc(work, "push", "-q")
        yield root, yaml.safe_load((work / "dvc.lock").read_text())["stages"]


@pytest.fixture
def clone(made, tmp_path, monkeypatch):
    root = tmp_path / "clone"
    toy.git(tmp_path, "clone", "-q", str(made[0]), str(root))
    monkeypatch.chdir(root)
    return root


def submitted(made, name, sets=(), without=(), **more):
    root, entries = made
    places = Places(toy.REMOTE)
    commit = toy.git(root, "rev-parse", "HEAD").strip()
    record = {"run": name, "pipeline": "dvc.yaml", "commit": commit, "base": commit, "sets": list(sets),
              "stages": list(entries), "state": "submitted", **more}  # fmt: skip
    places.put_record(name, "run", record)
    for stage, entry in entries.items():
        if stage not in without:
            places.put_entry(name, stage, entry)
    return places


def test_the_files_of_a_run_come_into_a_fresh_clone(made, clone, capsys):
    submitted(made, "whole")
    collect.collect("whole")
    assert (clone / "page.md").read_text() == "194 196"
    dvc(clone, "status", "-q")  # its exit code says whether anything changed
    dvc(clone, "status", "-q", "-c")
    assert capsys.readouterr().out == "dvc.lock: 4 entries of run whole; pulling their files\n"


def test_dvc_is_asked_for_files_and_groups_as_it_reads_all_stages_for_each_target(clone):
    everything = ["make", "double@a", "double@b", "join"]
    assert collect._targets(Path("dvc.yaml"), everything) == ["dvc.yaml"]
    assert collect._targets(Path("dvc.yaml"), everything[:3]) == ["dvc.yaml:make", "dvc.yaml:double"]
    assert collect._targets(Path("dvc.yaml"), ["make", "double@b"]) == ["dvc.yaml:make", "dvc.yaml:double@b"]
    asked = [*everything, "double@c"]  # of another checkout
    assert collect._targets(Path("dvc.yaml"), asked) == [
        f"dvc.yaml:{n}" for n in ("make", "double", "join", "double@c")
    ]


def test_what_differs_from_this_checkout_is_said(made, clone, capsys):
    submitted(made, "set", sets=["sleep=0"])
    (clone / "new").write_text("x")
    toy.git(clone, "add", "new")
    toy.git(clone, "commit", "-q", "-m", "later")
    collect.collect("set")
    said = capsys.readouterr().out
    assert "the run had sleep=0: set it in params.yaml" in said and "this checkout is at" in said


def test_a_run_that_has_not_ended(made, clone):
    submitted(made, "half", without=["join", "double@b"])
    with pytest.raises(InputError, match=r"2 of 4 stages have not finished: double@b, join\n.*runs show half"):
        collect.collect("half")
    assert not (clone / "dvc.lock").exists()


def test_what_there_is_of_a_run_that_failed(made, clone, capsys):
    submitted(made, "some", without=["join", "double@b"])
    collect.collect("some", some=True)
    assert yaml.safe_load((clone / "dvc.lock").read_text())["stages"] == {n: made[1][n] for n in ("make", "double@a")}
    assert (clone / "out/a/model.txt").read_text() == "194\n" and not (clone / "out/b").exists()
    assert "2 of 4 stages have not finished: double@b, join\n" in capsys.readouterr().out
    submitted(made, "none", without=list(made[1]))
    with pytest.raises(InputError, match="4 of 4 stages have not finished"):
        collect.collect("none", some=True)


def test_entries_of_two_states_of_the_world(made, clone):
    places = submitted(made, "mixed")
    entry = copy.deepcopy(made[1]["double@a"])
    next(dep for dep in entry["deps"] if dep["path"] == "made")["md5"] = "0" * 32 + ".dir"
    places.put_entry("mixed", "double@a", entry)
    with pytest.raises(InputError, match=r"double@a read made with md5 0+.dir\nbut make wrote it with md5 "):
        collect.collect("mixed")
    assert not (clone / "dvc.lock").exists()


def test_results_that_only_this_checkout_has_are_not_lost(made, clone):
    submitted(made, "other")
    own = copy.deepcopy(made[1])
    own["join"]["outs"][0]["md5"] = "1" * 32
    text = yaml.safe_dump({"schema": "2.0", "stages": {"join": own["join"]}})
    (clone / "dvc.lock").write_text(text)
    with pytest.raises(InputError, match=r"dvc.lock: join: changed here and not committed.*\n.*--force other"):
        collect.collect("other")
    assert (clone / "dvc.lock").read_text() == text
    toy.git(clone, "add", "dvc.lock")
    toy.git(clone, "commit", "-q", "-m", "kept")  # now git has it
    collect.collect("other")
    (clone / "dvc.lock").write_text(text.replace("1" * 32, "2" * 32))
    collect.collect("other", force=True)
    assert yaml.safe_load((clone / "dvc.lock").read_text())["stages"] == made[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a: {}\n=======\n  b: {}\n>>>>>>> theirs\n",
         "dvc.lock: line 3: found the marks of a merge conflict.*\nkeep one side: git checkout --ours dvc.lock"),
        ("stages: {a: {}, a: {}}\n", "dvc.lock: line 1: not valid YAML: duplicate key"),
        ("stages: [", "dvc.lock: line 2: not valid YAML"),
        ("stages: [a]\n", "dvc.lock: found no mapping of stages"),
        ("- a\n", "dvc.lock: found no mapping of stages"),
        ("stages: {a: 1}\n", "dvc.lock: found no mapping of stages"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("force", [False, True])
def test_a_lock_that_cannot_be_read_is_named_and_kept(made, clone, monkeypatch, text, said, force):
    submitted(made, "broken")
    (clone / "dvc.lock").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        collect.collect("broken", force)
    assert len(str(caught.value).splitlines()) <= 3 and (clone / "dvc.lock").read_text() == text
    toy.git(clone, "add", "dvc.lock")
    toy.git(clone, "commit", "-q", "-m", "damaged")
    (clone / "dvc.lock").unlink()
    pulled = []
    monkeypatch.setattr(collect, "_pull", lambda pipeline, stages: pulled.append(stages))  # DVC takes seconds to start
    collect.collect("broken", force)  # nothing here that could be lost
    assert pulled == [list(made[1])] and yaml.safe_load((clone / "dvc.lock").read_text())["stages"] == made[1]


def test_a_benchmark_does_not_begin_on_a_lock_with_a_conflict(tmp_path, monkeypatch):
    toy.git(tmp_path, "init", "-q")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> theirs\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^dvc.lock: line 2: found the marks of a merge conflict.*\nkeep one side"):
        run.run(Path("params.yaml"), 1)


def test_settings_of_dvc_with_a_conflict_are_named(made, clone):
    config = clone / ".dvc/config"
    config.write_text(f"<<<<<<< HEAD\n{config.read_text()}=======\n>>>>>>> theirs\n")
    with pytest.raises(InputError, match=r"\.dvc/config: .*line 1.*\nexpected DVC's settings: .*merge conflict"):
        runs.places()


def test_values_that_yaml_1_1_would_change_stay(made, clone):
    submitted(made, "words")
    kept = "stages:\n  mine:\n    cmd: x\n    params:\n      params.yaml: {a: on, b: 012, c: 1e-3}\n"
    (clone / "dvc.lock").write_text(f"schema: '2.0'\n{kept}")
    collect.collect("words")
    from dvc.utils.serialize import load_yaml

    assert load_yaml(str(clone / "dvc.lock"))["stages"]["mine"]["params"]["params.yaml"] == {
        "a": "on", "b": 12, "c": 0.001,
    }  # fmt: skip


def test_runs_are_listed_and_shown(made, clone):
    places = submitted(made, "listed", without=["join"])
    good = {"state": "succeeded", "ran": True, "attempt": 1, "seconds": {"total": 3.2}}
    bad = {"state": "failed", "attempt": 2, "seconds": {"total": 1}, "error": "double@a: <b>"}
    places.put_record("listed", "stages/make", good)
    places.put_record("listed", "stages/double@a", bad)
    assert "listed" in runs.names(places)
    (line,) = [line for line in history.listing(places).splitlines() if line.startswith("listed ")]
    assert line.split()[:2] == ["listed", "dvc.yaml"] and "1 succeeded, 1 failed, 2 waiting" in line
    shown = history.shown(places, "listed").splitlines()
    assert shown[1].startswith("the report of what is there: ")
    assert shown[4].split() == ["make", "succeeded", "1", "3"]
    assert shown[5].split() == ["double@a", "failed", "2", "1", "double@a:", "<b>"]
    assert "attempt: 2" in history.shown(places, "listed", "double@a")
    assert history.failed(places, "listed") == ["double@a"]


RECORD = b'{"run": "x", "pipeline": "dvc.yaml", "base": "0", "stages": ["a"], "sets": []}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "damaged"), (b"not JSON", "damaged"), (b"[]", "damaged"), (b"\xff", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"{}", "not the record of a run"), (RECORD.replace(b'["a"]', b"3"), "not the record of a run"),
        (RECORD.replace(b'["a"]', b"[3]"), "not the record of a run"),
        (b"2a\r\n" + RECORD + b"\r\n0\r\nx-amz-checksum-crc32:sOO8/Q==\r\n\r\n", "damaged"),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(made, clone, body, said):
    places = submitted(made, "sound")
    key = places.key("runs", "bitten", "run.json")
    places.put(key, body)
    try:
        lines = history.listing(places).splitlines()
        assert [line.split()[:2] for line in lines if line.startswith("bitten")] == [["bitten", "damaged"]]
        assert any(line.startswith("bitten") and f"s3://gradworks/{key}: {said}" in line for line in lines)
        assert any(line.startswith("sound ") and "4 waiting" in line for line in lines)
        for act in (lambda: history.shown(places, "bitten"), lambda: collect.collect("bitten")):
            with pytest.raises(InputError, match=f"bitten/run.json: {said}\n") as caught:
                act()
            assert len(str(caught.value).splitlines()) <= 3
            assert ("AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in str(caught.value)) is (b"x-amz" in body)
        assert "sound" in history.shown(places, "sound")
    finally:
        places.delete([key])


def test_what_no_run_wrote_is_skipped_and_named(made, clone):
    places = submitted(made, "sound")
    strange = ["readme.txt", "a/b/run.json", "sound/note", "sound/stages/a/b.json", "\x1b[2Jrun.json"]
    keys = [f"{places.key('runs')}/{name}" for name in strange]
    for key in keys:
        places.put(key, b"{}")
    try:
        lines = history.listing(places).splitlines()
        assert any(line.startswith("sound ") for line in lines) and not any(line.startswith("a/b") for line in lines)
        assert [line.partition(":")[0] for line in lines[-4:]] == ["skipped, as no run wrote it"] * 3 + ["and 2 more"]
        assert "\x1b" not in "".join(lines) and "a/b" not in runs.names(places)
    finally:
        for key in keys:  # one of them is more than XML can hold
            places.client.delete_object(Bucket=places.bucket, Key=key)


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"state": 3}', b'{"state": "succeeded", "seconds": 3}'])
def test_a_stages_record_that_cannot_be_read_hides_no_other(made, clone, body):
    places = submitted(made, "partly")
    places.put(places.key("runs", "partly", "stages/make.json"), body)
    places.put_record("partly", "stages/double@a", {"state": "succeeded", "seconds": {"total": 3}, "attempt": 1})
    lines = {line.split()[0]: line.split()[1] for line in history.shown(places, "partly").splitlines() if line}
    assert lines["make"] == "damaged" and lines["double@a"] == "succeeded" and lines["join"] == "waiting"
    assert "1 succeeded, 2 waiting, 1 damaged" in history.listing(places)


def test_the_end_of_what_is_shown_of_a_failed_run_is_what_why_and_where(made, clone):
    places = submitted(made, "fails")
    said = "double@a: params.yaml: train.epochs: found -1\nexpected 1 or more"
    places.put_record("fails", "stages/double@a", {"state": "failed", "attempt": 1, "error": said})
    places.put_record("fails", "stages/double@b", {"state": "failed", "attempt": 1, "error": "double@b: x"})
    places.put_record("fails", "stages/make", {"state": "retrying", "attempt": 1, "error": "make: y\nz"})
    lines = history.shown(places, "fails").splitlines()
    assert lines[-3:] == [
        "run fails failed: double@a: params.yaml: train.epochs: found -1", "expected 1 or more",
        "its log: gradworks runs show fails --stage double@a --log   (failed too: double@b)",
    ]  # fmt: skip
    assert any(line.split()[:2] == ["make", "retrying"] and line.endswith("make: y") for line in lines)
    assert not any("--some" in line for line in lines)
    places.put_record("fails", "stages/join", {"state": "succeeded"})
    asked = "gradworks collect fails --some && gradworks report params.yaml"
    assert f"the report of what is there: {asked}" in history.shown(places, "fails").splitlines()
    assert "1 retrying" in history.listing(places) and history.failed(places, "fails") == [
        "make",
        "double@a",
        "double@b",
    ]


def test_what_a_run_cost_is_shown_where_the_profile_knew_a_price(made, clone):
    """By hand: 2 GPUs for 1800 s and 1 for 360 s are 1.1 hours, 2.75 at 2.5 an hour; the other kind has no price."""
    gpus = {"make": {"kind": "a100", "count": 2}, "double@a": {"kind": "a100", "count": 1}}
    gpus["double@b"] = {"kind": "slice", "count": 1}  # has not begun
    places = submitted(made, "dear", gpus=gpus, price_per_gpu_hour={"a100": 2.5})
    for stage, seconds in (("make", 1800), ("double@a", 360)):
        places.put_record("dear", f"stages/{stage}", {"state": "succeeded", "seconds": {"total": seconds}})
    assert "\nGPU hours: a100 1.10 (2.75 at 2.5 an hour), slice 0.00\n" in history.shown(places, "dear")
    assert "GPU hours" not in history.shown(submitted(made, "cheap"), "cheap")


def test_what_is_not_there_is_said(made, clone):
    places = submitted(made, "there")
    with pytest.raises(InputError, match=r"no run 'other-one'\nthe latest ones: .+"):
        runs.record(places, "other-one")
    with pytest.raises(InputError, match="no stage 'nope'\nfound: make, double@a"):
        history.shown(places, "there", "nope")
    with pytest.raises(InputError, match="no log of make: its pod has not started; see: kubectl get events"):
        history.log(places, "there", "make")
    with pytest.raises(InputError, match="no stage has failed"):
        history.failed(places, "there")
    (clone / ".dvc/config").write_text("[core]\n    remote = here\n['remote \"here\"']\n    url = ../other\n")
    with pytest.raises(InputError, match=r"the default remote is \S*other\nexpected one on S3"):
        runs.places()
