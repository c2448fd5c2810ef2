"""What goes wrong while stages run in containers: no lock entry without its objects, and a plain retry mends it."""

from __future__ import annotations

import builtins
import hashlib
import json
import threading
import time

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import compile, local
from gradworks.store import storage
from tests import docker
from tests.cluster import toy

pytestmark = pytest.mark.slow("runs containers")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout whose stage `make` writes many files, a store, and the lock entries of a run without faults."""
    docker.image()
    folder = tmp_path_factory.mktemp("faults")
    with toy.served(folder) as (clients, _):
        many = "    for i in range(400):\n        (args[0] / f\"{i}.bin\").write_bytes(i.to_bytes(2, 'big') * 30000)\n"
        root = toy.checkout(folder / "checkout", toy.PARAMS, work=("    args[0].mkdir()\n", many))
        runs = toy.Runs(root, folder, clients)
        runs.store = folder / "store"
        yield runs


def run(world, name, *, expected, monkeypatch=None):
    ir = compile.text(world.root / "dvc.yaml")
    parameters = {"run": name, "code": world.uri, "remote": toy.REMOTE}
    assert local.run_ir(ir, parameters, world.folder / f"{name}.log") is expected, (
        world.folder / f"{name}.log"
    ).read_text()[-3000:]


def sound(world, name):
    """Every object that a lock entry of the run names is there and has the bytes of its name; returns the entries."""
    entries = world.places.entries(name)
    for entry in entries.values():
        for out in entry["outs"]:
            body = world.places.get(world.places.data_key(out["md5"]))
            assert hashlib.md5(body, usedforsecurity=False).hexdigest() == out["md5"].removesuffix(".dir")
            for one in json.loads(body) if out["md5"].endswith(".dir") else []:
                data = world.places.get(world.places.data_key(one["md5"]))
                assert hashlib.md5(data, usedforsecurity=False).hexdigest() == one["md5"], one["relpath"]
    return entries


def log(world, name, stage):
    return world.places.get(world.places.key("logs", name, f"{stage}.txt")).decode()


def wait(condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_a_store_that_is_killed_during_a_push_and_comes_back(world):
    def kill():
        prefix = "toy/files/md5/"
        wait(lambda: sum(1 for _ in world.places.list(prefix)) > 5)
        storage.running(world.store).process().kill()

    killer = threading.Thread(target=kill)
    killer.start()
    run(world, "cut", expected=False)
    killer.join()
    said = (world.folder / "cut.log").read_text()
    assert "error: make:" in said and "s3://gradworks/toy" in said
    storage.up(world.store)
    assert sound(world, "cut") == {}
    run(world, "cut", expected=True)
    assert len(sound(world, "cut")) == 4


@pytest.mark.timeout(900)
def test_a_task_that_is_killed_goes_on_from_its_checkpoint(world, tmp_path):
    root = toy.checkout(tmp_path / "slow", toy.PARAMS.replace("sleep: 0", "sleep: 80"))
    slow = toy.Runs(root, tmp_path, world.environment)
    prefix = slow.places.key("checkpoints", "dvc.yaml", "double@a") + "/"

    def kill():
        wait(lambda: any(int(slow.places.get(one["Key"]) or 0) > 10 for one in slow.places.list(prefix)))
        (container,) = docker.engine().containers.list(filters={"label": "gradworks.run=killed"})
        container.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    run(slow, "killed", expected=False)
    killer.join()
    assert "make" in sound(slow, "killed") and not {"double@a", "sum"} & set(sound(slow, "killed"))
    run(slow, "killed", expected=True)
    assert len(sound(slow, "killed")) == 4
    begun = [int(line.split()[-1]) for line in log(slow, "killed", "double@a").splitlines() if "begins at" in line]
    assert begun[-1] > 10 and list(slow.places.list(prefix)) == []
    assert slow.record("killed", "double@a")["attempt"] == 2


def test_wrong_credentials_and_a_missing_bucket(world, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    run(world, "stranger", expected=False)
    said = (world.folder / "stranger.log").read_text()
    assert "error: make: s3://gradworks" in said and "InvalidAccessKeyId" in said
    monkeypatch.undo()
    ir = compile.text(world.root / "dvc.yaml")
    parameters = {"run": "stranger", "code": world.uri, "remote": "s3://no-such-bucket/toy"}
    assert not local.run_ir(ir, parameters, world.folder / "bucket.log")
    assert "error: make: s3://no-such-bucket/toy" in (world.folder / "bucket.log").read_text()
    assert world.places.entries("stranger") == {}


@pytest.mark.timeout(900)
def test_stages_that_are_folded_into_loops_run_the_same(world, monkeypatch):
    world.all("single")
    monkeypatch.setattr(compile, "TASKS", 3)
    assert "parameterIterator" in compile.text(world.root / "dvc.yaml")
    before = builtins.print
    run(world, "folded", expected=True)
    assert builtins.print is before  # kfp's loops leave their own in its place
    assert sound(world, "folded") == world.places.entries("single")
    assert "double@b" in log(world, "folded", "double@b")


def test_what_the_runner_needs_is_said_in_a_line(world, tmp_path, monkeypatch):
    ir = compile.text(world.root / "dvc.yaml")
    with pytest.raises(InputError, match="found no image gradworks-cpu:none\nbuild it: make images"):
        local.run_ir(ir.replace(docker.image(), "gradworks-cpu:none"), {}, tmp_path / "log")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(InputError, match="no Docker engine answers: "):
        local.run_ir(ir, {}, tmp_path / "log")


@pytest.mark.parametrize(
    ("gateway", "seen"),
    [
        ("http://gateway.example.org:9091", {"PROMETHEUS_PUSHGATEWAY": "http://gateway.example.org:9091"}),
        ("http://me:secret@gateway.example.org:9091", None),
        ("", None),
    ],
)
def test_containers_push_where_this_process_would_but_get_no_password(gateway, seen, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_PUSHGATEWAY", gateway)
    options = local._options(tmp_path)
    assert options.get("environment") == seen and "secret" not in str(options)


@pytest.mark.parametrize(
    ("endpoint", "platform", "seen"),
    [
        ("http://127.0.0.1:28333", "linux", "http://127.0.0.1:28333"),
        ("http://127.0.0.1:28333", "darwin", "http://host.docker.internal:28333"),
        ("http://localhost", "darwin", "http://host.docker.internal"),
        ("https://s3.example.org/x", "darwin", "https://s3.example.org/x"),
    ],
)
def test_the_endpoint_as_a_container_calls_it(endpoint, platform, seen):
    assert local.seen_from_container(endpoint, platform) == seen
