"""`gradworks artifacts` on what a plain `dvc repro` and `dvc push` left in a real S3 server."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3
import yaml

from gradworks.base import progress
from gradworks.base.errors import InputError
from gradworks.cluster import artifacts as verbs
from gradworks.store.artifacts.store import Fault, Store
from gradworks.store.places import BEFORE, Places
from tests.cluster import toy

pytestmark = pytest.mark.slow("an S3 server")

ROOT = Path(__file__).parents[2]


def dvc(root, *args):
    subprocess.run([sys.executable, "-m", "dvc", *args], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout whose pipeline ran twice, with other parameters, each time committed and pushed."""
    folder = tmp_path_factory.mktemp("artifacts")
    with toy.served(folder):
        root = toy.checkout(
            folder / "checkout", work=("    number = int(args[0].read_text()) * 2\n", "    number += 5\n")
        )
        for sleep in (0, 1):
            if sleep:
                (root / "params.yaml").write_text(toy.PARAMS.replace("sleep: 0", "sleep: 1"))
                (root / "work.py").write_text((root / "work.py").read_text().replace("+= 5", "+= 25"))
            dvc(root, "repro", "-q")
            dvc(root, "push", "-q")
            toy.git(root, "add", "-f", "dvc.lock")
            toy.git(root, "commit", "-q", "-a", "-m", f"sleep {sleep}")
        yield root


@pytest.fixture
def checkout(made, tmp_path, monkeypatch):
    """A copy of the checkout as the current folder; the store is put back as it was."""
    root = tmp_path / "copy"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("gradworks", "cache"))
    monkeypatch.chdir(root)
    places = Places(toy.REMOTE)
    before = {one["Key"]: places.get(one["Key"]) for one in places.list("toy/")}
    yield root
    after = {one["Key"]: one["ETag"] for one in places.list("toy/")}
    places.delete([key for key in after if key not in before])
    for key, body in before.items():
        if after.get(key, "").strip('"') != md5(body):
            places.put(key, body)


def md5(body):
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def run(*args):
    parser = argparse.ArgumentParser()
    verbs.add(parser.add_subparsers(dest="verb"))
    verbs.run(parser.parse_args(["artifacts", *args]))


def told(capsys, *args):
    run(*args, "--json")
    return json.loads(capsys.readouterr().out)


def said(capsys, *args):
    run(*args)
    return capsys.readouterr().out


def entries():
    return yaml.safe_load(Path("dvc.lock").read_text())["stages"]


def out(stage, path):
    return next(one for one in entries()[stage]["outs"] if one["path"] == path)


def test_ls_names_what_dvc_made(checkout, capsys):
    found = told(capsys, "ls")["artifacts"]
    assert {(one["stage"], one["path"], one["md5"], one["bytes"], one["files"]) for one in found} == {
        (stage, one["path"], one["md5"], one["size"], one.get("nfiles"))
        for stage, entry in entries().items()
        for one in entry["outs"]
    }
    assert {one["state"] for one in found} == {"ok"} and {one["cell"] for one in found} == {"", "a", "b"}
    assert all(one["modified"] for one in found)


def test_ls_opens_folders(checkout, capsys):
    found = {one["path"]: one for one in told(capsys, "ls", "--files")["artifacts"]}
    assert set(found) == {
        "made/a.txt", "made/b.txt", "out/a/model.txt", "out/b/model.txt", "metrics/a.json", "metrics/b.json",
        "page.html", "page.md",
    }  # fmt: skip
    assert found["out/a/model.txt"]["md5"] == md5(b"219\n")
    assert found["out/a/model.txt"]["bytes"] == 4


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("double@a", {"out/a", "metrics/a.json"}),
        ("double", {"out/a", "metrics/a.json", "out/b", "metrics/b.json"}),
        ("b", {"out/b", "metrics/b.json"}),
        ("*.json", {"metrics/a.json", "metrics/b.json"}),
        ("out", {"out/a", "out/b"}),
        ("out/", {"out/a", "out/b"}),
        ("ou", set()),
        ("A", set()),
    ],
)
def test_a_pattern_is_of_stage_group_cell_path_or_folder(checkout, capsys, pattern, paths):
    assert {one["path"] for one in told(capsys, "ls", pattern)["artifacts"]} == paths


def test_ls_says_what_the_store_lacks(checkout, capsys):
    places = Places(toy.REMOTE)
    places.delete([places.data_key(out("join", "page.md")["md5"])])
    places.put(places.data_key(out("join", "page.html")["md5"]), b"shorter")
    found = {one["path"]: one["state"] for one in told(capsys, "ls", "join")["artifacts"]}
    assert found == {"page.md": "missing", "page.html": "damaged"}
    assert "2 not as they should be: gradworks artifacts verify" in said(capsys, "ls")
    for given in ("{cache: false}", "{push: false}"):  # what is not kept is not missing
        text = (ROOT / "tests/cluster/toy.py").read_text().split('DVC_YAML = """')[1].split('"""')[0]
        Path("dvc.yaml").write_text(text.replace("outs: [page.html, page.md]", f"outs: [page.html, page.md: {given}]"))
        assert {one["path"]: one["state"] for one in told(capsys, "ls", "join")["artifacts"]}["page.md"] == "not kept"


def test_a_revision_and_a_run_are_read_as_the_work_tree_is(checkout, capsys):
    places = Places(toy.REMOTE)
    for stage, entry in entries().items():
        places.put_entry("one", stage, entry)
    here = told(capsys, "ls")["artifacts"]
    Path("dvc.lock").unlink()
    assert told(capsys, "ls", "--rev", "HEAD")["artifacts"] == here
    key = lambda one: (one["stage"], one["path"])  # noqa: E731
    assert sorted(told(capsys, "ls", "--run", "one")["artifacts"], key=key) == sorted(here, key=key)
    earlier = {one["path"]: one["md5"] for one in told(capsys, "ls", "--rev", "HEAD~1")["artifacts"]}
    assert earlier["made"] == out_of(here, "made") and earlier["page.md"] != out_of(here, "page.md")
    with pytest.raises(InputError, match=r"dvc.lock: no such file\n.*--rev REV"):
        run("ls")
    for rev in ("nowhere", "--output=x"):
        with pytest.raises(InputError, match=r"no such revision"):
            run("ls", f"--rev={rev}")
    assert not Path("x").exists()
    with pytest.raises(InputError, match=r"run two has no lock entry"):
        run("ls", "--run", "two")


def out_of(found, path):
    return next(one["md5"] for one in found if one["path"] == path)


def test_show_has_the_parameters_of_the_stage(checkout, capsys):
    found = told(capsys, "show", "metrics/a.json")
    assert found["stage"] == "double@a" and found["parameters"] == {"params.yaml: sleep": 1}
    assert found["preview"] == {"kind": "JSON", "value": {"overall": {"accuracy": {"value": 0.219}}}}
    text = said(capsys, "show", "out/a")
    assert "params.yaml: sleep  1" in text and "model.txt" in text
    assert "out/a" in said(capsys, "show", "double@a")
    assert said(capsys, "show", "out/b/model.txt").splitlines()[-1] == "221"


def test_a_name_that_is_none_gets_what_is_near(checkout):
    with pytest.raises(InputError, match=r"nothing at page.mdd\nfound: page.md"):
        run("show", "page.mdd")
    with pytest.raises(InputError, match=r"nothing at out/a/modl.txt\nfound: out/a/model.txt"):
        run("cat", "out/a/modl.txt")
    with pytest.raises(InputError, match=r"double@a has 2 outputs\nname one: "):
        run("cat", "double@a")
    with pytest.raises(InputError, match=r"made: a folder\nname one of its files: a.txt, b.txt"):
        run("cat", "make")


def test_cat_gives_the_bytes_or_ends_with_what_is_wrong(checkout, capsysbinary):
    run("cat", "made/a.txt")
    assert capsysbinary.readouterr().out == b"97"
    places = Places(toy.REMOTE)
    places.put(places.data_key(out("join", "page.md")["md5"]), b"219 221!"[::-1])
    with pytest.raises(Fault, match=r"damaged\nfound md5 "):
        run("cat", "page.md")


def test_a_link_holds_until_it_expires(checkout, capsys):
    link = told(capsys, "url", "out/a/model.txt", "--expires", "1s")
    answer = urllib3.request("GET", link["url"])
    assert answer.data == b"219\n" and "model.txt" in answer.headers["Content-Disposition"]
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link["url"]
    time.sleep(2.1)
    assert urllib3.request("GET", link["url"]).status == 403
    for wrong in ("8d", "0s"):
        with pytest.raises(InputError, match="between 1s and 7d"):
            run("url", "page.md", "--expires", wrong)
    with pytest.raises(InputError, match=r"--expires: found soon\nexpected a number and one of s, m, h, d"):
        run("url", "page.md", "--expires", "soon")


def test_verify_finds_nothing_where_all_is_good(checkout, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_QUIET", 0.0)
    found = told(capsys, "verify")
    assert found["faults"] == [] and found["objects"] == 11
    run("verify")
    captured = capsys.readouterr()
    assert captured.out.endswith("all good\n")
    assert f"verify: {found['bytes']} B of {found['bytes']} B" in captured.err and "B/s" in captured.err


def test_verify_names_a_planted_corruption_and_a_planted_deletion(checkout, capsys):
    places, store = Places(toy.REMOTE), Store(Places(toy.REMOTE))
    files = dict(store.folder(out("make", "made")["md5"]))
    good = places.get(places.data_key(files["a.txt"]))
    places.put(places.data_key(files["a.txt"]), good[:-1] + b"8")  # one bit, the same length
    places.delete([places.data_key(files["b.txt"])])
    places.delete([places.data_key(out("join", "page.md")["md5"])])
    with pytest.raises(SystemExit) as ended:
        run("verify", "--json")
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)["faults"]
    assert [(one["state"], one["stage"], one["path"]) for one in found] == [
        ("missing", "join", "page.md"), ("damaged", "make", "made/a.txt"), ("missing", "make", "made/b.txt"),
    ]  # fmt: skip
    assert found[1]["object"] == store.uri(files["a.txt"]) and "found md5" in found[1]["said"]
    with pytest.raises(SystemExit):
        run("verify")
    assert "damaged: make: made/a.txt" in capsys.readouterr().out


def test_an_object_of_two_stages_is_named_for_both(checkout, capsys):
    found = yaml.safe_load(Path("dvc.lock").read_text())
    found["stages"]["twin"] = {"cmd": "x", "outs": [{**out("join", "page.md"), "path": "twin.md"}]}
    Path("dvc.lock").write_text(yaml.safe_dump(found))
    places = Places(toy.REMOTE)
    places.delete([places.data_key(out("join", "page.md")["md5"])])
    with pytest.raises(SystemExit):
        run("verify", "--json")
    found = json.loads(capsys.readouterr().out)["faults"]
    assert [(one["stage"], one["path"]) for one in found] == [("join", "page.md"), ("twin", "twin.md")]


def test_verify_reads_what_gradworks_itself_keeps(checkout, capsys):
    places = Places(toy.REMOTE)
    for run_ in ("one", "two"):
        for stage, entry in entries().items():
            places.put_entry(run_, stage, entry)
    places.put_before("three", entries())
    body = b"bundle"
    digest = hashlib.sha256(body).hexdigest()
    places.put(places.key("code", f"abc-{digest}.tar.gz"), body)
    assert told(capsys, "verify")["objects"] == 11 + 2 * 4 + 1 + 1
    assert told(capsys, "verify", "--run", "one")["objects"] == 11 + 4 + 1
    assert told(capsys, "verify", "--run", "three")["objects"] == 11 + 1 + 1
    places.put(places.key("code", f"abc-{digest}.tar.gz"), b"Bundle")
    entry = places.get(places.key("locks", "one", "double@a.json"))
    places.put(places.key("locks", "one", "double@a.json"), entry.replace(b"sleep: 1", b"sleep: 2"))
    for args in ((), ("--run", "one")):
        with pytest.raises(SystemExit):
            run("verify", "--json", *args)
        found = json.loads(capsys.readouterr().out)["faults"]
        assert [(one["stage"], one["path"]) for one in found] == [
            ("", "bundle of code"), ("double@a", "lock entry of run one"),
        ]  # fmt: skip
    with pytest.raises(InputError, match=r"double@a.json: damaged\n.*verify --run one"):
        run("ls", "--run", "one")

    def listed(name):  # but for the name and the ages
        return sorted(re.sub(rf"{name}|\d+ s", "", said(capsys, "ls", "--run", name)).splitlines())

    assert listed("two") == listed("three") and len(listed("two")) > 7
    begun = places.key("locks", "three", BEFORE)
    places.put(begun, places.get(begun).replace(b"sleep: 1", b"sleep: 2"))
    with pytest.raises(SystemExit):
        run("verify", "--json", "--run", "three")
    found = json.loads(capsys.readouterr().out)["faults"]
    assert [(one["stage"], one["path"]) for one in found][1:] == [("before/start", "lock entry of run three")]


def test_diff_of_two_revisions(checkout, capsys):
    found = told(capsys, "diff", "HEAD~1", "HEAD")
    assert set(found["stages"]) == {"double@a", "double@b"} and not found["only_a"] + found["only_b"]
    a = found["stages"]["double@a"]
    assert a["parameters"] == {"params.yaml: sleep": [0, 1]}
    (numbers,) = a["metrics"].values()
    assert numbers["overall.accuracy"] == pytest.approx([0.199, 0.219, 0.02])
    text = said(capsys, "diff", "HEAD~1")  # with the work tree
    assert "b: dvc.lock" in text and "params.yaml: sleep" in text and "+0.02" in text
    assert said(capsys, "diff", "HEAD~1", "--lines", "3").splitlines()[3].startswith("... ")
    assert "no difference" in said(capsys, "diff", "HEAD")


def test_diff_of_runs_and_what_only_one_has(checkout, capsys):
    places = Places(toy.REMOTE)
    for stage, entry in entries().items():
        places.put_entry("HEAD~1", stage, entry)  # a run that is called as a revision is
    places.put_entry("less", "make", entries()["make"])
    assert told(capsys, "diff", "HEAD~1", "HEAD")["stages"]
    found = told(capsys, "diff", "--runs", "HEAD~1", "less")
    assert sorted(found["only_a"]) == ["double@a", "double@b", "join"] and not found["stages"]
    assert found["a"] == "run HEAD~1"
    with pytest.raises(InputError, match="nothing: neither a revision of this checkout nor a run"):
        run("diff", "nothing")
    places.delete([places.data_key(out("double@a", "metrics/a.json")["md5"])])
    text = said(capsys, "diff", "HEAD~1", "HEAD")
    assert "not compared: double@a: metrics/a.json: missing in the store" in text and "double@b" in text


def test_ls_needs_neither_torch_nor_dvcs_index(checkout):
    program = (
        "import argparse, sys; from gradworks.cluster import artifacts as verbs; p = argparse.ArgumentParser();"
        "verbs.add(p.add_subparsers()); verbs.run(p.parse_args(['artifacts', 'ls', '--files']));"
        "print([m for m in ('torch', 'dvc.repo', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_a_listing_is_what_boto3_reads_of_it(made):
    places, plain = Places(toy.REMOTE), Places(toy.REMOTE)
    Store(places), Store(places)  # of one client
    for name in ("a b+c", "ü&<>", "%25", "line\nend", ""):
        places.put(f"odd/{name}/x", b"12")
    with_pages = places.client.get_paginator("list_objects_v2").paginate(
        Bucket="gradworks", Prefix="odd/", PaginationConfig={"PageSize": 2}
    )
    found = [one for page in with_pages for one in page["Contents"]]
    expected = [{k: one[k] for k in ("Key", "Size", "ETag", "LastModified")} for one in plain.list("odd/")]
    assert found == expected and len(found) == 5
    assert list(places.list("nothing/")) == []
    with pytest.raises(InputError, match=r"nowhere|may not"):
        list(Places("s3://nowhere", places.client).list(""))
