"""A run on a cluster: a real HTTP server with the API's rules, a real store, and the stages in containers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import follow, plan, submit
from gradworks.cluster.answers import ApiError
from gradworks.cluster.profile import read, store
from gradworks.store import code, s3
from gradworks.store.places import Places, encoded
from tests import docker
from tests.cluster import toy
from tests.cluster.api_server import Api, Refusal

pytestmark = pytest.mark.slow("an S3 server, an API server")

TOKEN = "planted-token-4711"
STAGES = ["make", "double@a", "double@b", "join"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout of the toy pipeline, the current folder, and a store that this process is a client of."""
    folder = tmp_path_factory.mktemp("submit")
    with toy.served(folder) as (_, patch):
        root = toy.checkout(folder / "checkout")
        patch.chdir(root)
        yield root


@pytest.fixture
def api():
    with Api() as serving:
        serving.token = TOKEN
        yield serving
        assert serving.wrong == []


def profile(folder: Path, api: Api, **more: object) -> Path:
    (folder / "token").write_text(TOKEN)
    given = {
        "endpoint": api.url, "images": {"cpu": "gradworks-cpu", "gpu": "gradworks-gpu"},
        "auth": {"tokenFile": str(folder / "token")}, **more,
    }  # fmt: skip
    (folder / "cluster.yaml").write_text(yaml.safe_dump(given))
    return folder / "cluster.yaml"


def record(run: str, name: str = "run") -> dict:
    return Places(toy.REMOTE).record(run, name)


def pods(states: dict[str, dict]):
    """What stands for the pods of a run: writes their records, as they would."""

    def run(_: str, parameters: dict) -> bool:
        places = Places(parameters["remote"])
        for name, state in states.items():
            places.put_record(
                parameters["run"], f"stages/{encoded(name)}", {"begun": time.time(), "seconds": {}, **state}
            )
        return all(state["state"] == "succeeded" for state in states.values())

    return run


def well(seconds: float = 2.0, **more: object) -> dict:
    return {"state": "succeeded", "seconds": {"total": seconds}, "attempt": 1, "ran": True, **more}


def in_containers(log: Path):
    """Runs a pipeline with kfp's DockerRunner, in a process of its own, as that redirects what is printed."""
    program = (
        "import json, sys; from pathlib import Path; from gradworks.cluster import local\n"
        "sys.exit(not local.run_ir(Path(sys.argv[1]).read_text(), json.loads(sys.argv[2]), Path(sys.argv[3])))"
    )

    def run(ir: str, parameters: dict) -> bool:
        file = log.with_name("ir.yaml")
        file.write_text(ir)
        command = [sys.executable, "-c", program, str(file), json.dumps(parameters), str(log)]
        return subprocess.run(command, cwd=toy.ROOT, check=False).returncode == 0

    return run


@pytest.mark.slow("runs containers")
def test_a_run_from_the_checkout_to_its_lock_entries(world, api, tmp_path, monkeypatch, capfd):
    docker.image()
    monkeypatch.setattr(follow, "_LOOK", 0.5)
    api.run, log = in_containers(tmp_path / "log.txt"), tmp_path / "log.txt"
    api.spaces = {"team"}
    file = profile(tmp_path, api, namespace="team", experiment="trial", pipelineRoot="s3://gradworks/root",
                   serviceAccount="runner")  # fmt: skip
    before = toy.git(world, "rev-parse", "HEAD"), toy.git(world, "status", "--porcelain")
    run = submit.submit(Path("dvc.yaml"), file, ["sleep=1", "numbers={a: {}}"], wait=True)
    printed = capfd.readouterr().out
    places = Places(toy.REMOTE)
    entries = places.entries(run)
    assert list(entries) == ["double@a", "join", "make"], log.read_text()
    assert entries["double@a"]["params"] == {"params.yaml": {"sleep": 1}}
    assert (toy.git(world, "rev-parse", "HEAD"), toy.git(world, "status", "--porcelain")) == before
    for name in entries:
        assert f"\n{name}: succeeded in 0:0" in printed
    assert f"run {run} succeeded: 3 stages, 0 of them restored" in printed and f"gradworks collect {run}" in printed
    (sent,) = [body for body in api.bodies if "pipeline_spec" in body]
    assert sent["service_account"] == "runner" and sent["display_name"] == run
    assert sent["runtime_config"]["pipeline_root"] == "s3://gradworks/root"
    assert api.asked[:3] == ["GET /experiments", "POST /experiments", "POST /runs"]
    told = record(run)
    assert told["stages"] == ["make", "double@a", "join"]
    assert told["run_id"] in api.runs and told["url"] == f"{api.url}/#/runs/details/{told['run_id']}"
    assert told["url"] in printed and told["state"] == "submitted" and told["sets"][0] == "sleep=1"
    assert told["base"] == before[0].strip() != told["commit"] and told["dirty"] is False
    for text in (printed, json.dumps(told), json.dumps(api.bodies), log.read_text()):
        assert TOKEN not in text and "planted" not in text


def test_the_pipeline_is_that_of_the_code_that_is_sent(world, api, tmp_path, capsys):
    file, changed = profile(tmp_path, api), world / "dvc.yaml"
    whole = changed.read_text()
    try:
        changed.write_text(whole + "  last: {cmd: cp page.md last, deps: [page.md], outs: [last]}\n")
        with pytest.raises(InputError, match=r"^dvc.yaml: changed, but not committed\n.*--dirty"):
            submit.submit(Path("dvc.yaml"), file)
        assert api.asked == []
        run = submit.submit(Path("dvc.yaml"), file, ["numbers={c: {}}"], dirty=True, everything=True)
    finally:
        changed.write_text(whole)
    told = record(run)
    assert told["stages"] == ["make", "double@c", "join", "last"] and told["dirty"] is True
    spec = api.bodies[-1]["pipeline_spec"]["pipeline_spec"]
    (task,) = spec["root"]["dag"]["tasks"].values()
    assert task["taskInfo"]["name"] == "make -> double@c -> join -> last"
    assert list(told["tasks"].values()) == [told["stages"]]
    assert api.bodies[-1]["runtime_config"]["parameters"] == {"run": run, "code": told["code"], "remote": toy.REMOTE}
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"status: gradworks runs show {run}", f"its results, when it has ended: gradworks collect {run}"
    ]  # fmt: skip


def test_experiment_and_code_that_are_there_are_used_again(world, api, tmp_path):
    file = profile(tmp_path, api)
    for _ in range(2):
        submit.submit(Path("dvc.yaml"), file)
    assert api.asked == ["GET /experiments", "POST /experiments", "POST /runs", "GET /experiments", "POST /runs"]
    assert len({body["experiment_id"] for body in api.bodies if "experiment_id" in body}) == 1
    name = code.bundle(world).name
    assert [one["Key"] for one in Places(toy.REMOTE).list("") if name in one["Key"]] == [f"toy/gradworks/code/{name}"]


def test_a_login_that_does_not_work_is_found_out_before_anything_is_written(world, api, tmp_path):
    api.token, before = "another", list(Places(toy.REMOTE).list(""))
    with pytest.raises(ApiError, match="found 401"):
        submit.submit(Path("dvc.yaml"), profile(tmp_path, api))
    assert list(Places(toy.REMOTE).list("")) == before


def test_a_run_that_the_cluster_refuses_is_written_down(world, api, tmp_path, monkeypatch):
    monkeypatch.setattr(plan.secrets, "token_hex", lambda _: "refuse")

    def refuse(_):
        raise Refusal(400, "pipeline is too large")

    monkeypatch.setattr(api, "run_service_create_run", refuse)
    with pytest.raises(ApiError, match="found 400: pipeline is too large, in answer to POST /runs"):
        submit.submit(Path("dvc.yaml"), profile(tmp_path, api))
    (key,) = [one["Key"] for one in Places(toy.REMOTE).list("") if "refuse/run.json" in one["Key"]]
    told = json.loads(Places(toy.REMOTE).get(key))
    assert told["state"] == "refused" and "too large" in told["error"]


def test_the_store_is_the_profiles_where_the_environment_names_none(world, api, tmp_path, monkeypatch):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    given = {"endpoint": endpoint, "region": "eu-central-1", "ca": {"configMap": "ca", "key": "ca.crt"}}
    run = submit.submit(Path("dvc.yaml"), profile(tmp_path, api, s3=given))
    with store(read(profile(tmp_path, api, s3={**given, "sse": "AES256"}))):
        assert s3.encryption() == {"ServerSideEncryption": "AES256"} and "AWS_CA_BUNDLE" not in os.environ
    assert not {"AWS_ENDPOINT_URL", "GRADWORKS_S3_SSE"} & set(os.environ)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert record(run)["state"] == "submitted"
    submit.submit(Path("dvc.yaml"), profile(tmp_path, api, s3={"endpoint": "http://127.0.0.1:9"}))


def test_what_a_pod_could_not_run_or_reach_is_named_as_in_the_checkout(world, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(world, other)
    (other / "dvc.yaml").write_text("stages: {x: {cmd: cp a b, deps: [made], outs: [b]}}\n")
    toy.git(other, "commit", "-qam", "x")
    with pytest.raises(InputError, match=r"^dvc.yaml: stage x: made: no stage makes it"):
        plan.plan(other / "dvc.yaml", None)
    config = other / ".dvc/config"
    config.write_text(config.read_text().replace(toy.REMOTE, "/mnt/share"))
    toy.git(other, "commit", "-qam", "remote")
    with pytest.raises(InputError, match="the default remote is /mnt/share\nexpected one on S3"):
        plan.plan(other / "dvc.yaml", None)


def followed(api: Api, folder: Path, monkeypatch, capsys, **more: float) -> list[str]:
    monkeypatch.setattr(follow, "_LOOK", 0.05)
    submit.submit(Path("dvc.yaml"), profile(folder, api), wait=True, everything=True, **more)
    return capsys.readouterr().out.splitlines()[2:]


def test_a_line_for_each_stage_with_rate_and_time_left(world, api, tmp_path, monkeypatch, capsys):
    def run(ir: str, parameters: dict) -> bool:
        for name in STAGES:
            for state in ({"state": "running", "attempt": 1}, well(75, ran=name != "join")):
                pods({name: state})(ir, parameters)
                time.sleep(0.3)
        return True

    api.run = run
    lines = followed(api, tmp_path, monkeypatch, capsys)
    assert lines[:2] == ["make: running   [0 of 4]", lines[1]]
    assert lines[1].startswith("make: succeeded in 0:01:15   [1 of 4, ") and " a minute, about 0:0" in lines[1]
    assert lines[7] == "join: restored in 0:01:15   [4 of 4]" and len(lines) == 10
    assert lines[8].endswith("succeeded: 4 stages, 1 of them restored")


def test_a_failed_run_names_its_stages_and_how_to_see_why(world, api, tmp_path, monkeypatch, capsys):
    api.run = pods({
        "make": well(),
        "double@a": {"state": "failed", "attempt": 2, "error": "double@a: python work.py, exited with 3\nits log"},
    })  # fmt: skip
    with pytest.raises(InputError) as raised:
        followed(api, tmp_path, monkeypatch, capsys)
    said = str(raised.value).splitlines()
    assert said[0].endswith(" failed: double@a: python work.py, exited with 3") and said[1] == "its log"
    assert said[2].startswith("its log: gradworks runs show 20") and said[2].endswith("--stage double@a --log")
    assert "double@a: failed (try 2): double@a: python work.py, " in capsys.readouterr().out


def test_a_pod_that_never_began_is_known_from_the_api(world, api, tmp_path, monkeypatch, capsys):
    api.run = pods({"make": well(), "double@b": {"state": "failed", "error": ""}})
    api.tasks = [
        {"display_name": "make", "state": "SUCCEEDED"},
        {"display_name": "double@a", "state": "FAILED", "error": {"code": 13, "message": "ImagePullBackOff"}},
        {"display_name": "double@b", "state": "FAILED", "error": {"code": 13, "message": "exit 2"}},
        {"display_name": "root", "state": "FAILED"},
    ]
    with pytest.raises(InputError, match=r"double@b: it ended without a word: .*\n.*--log   \(failed too: double@a\)"):
        followed(api, tmp_path, monkeypatch, capsys)
    api.run = pods({"make": {"state": "failed", "error": "x"}} | {})
    api.tasks = [{"display_name": "make", "state": "FAILED"}]
    with pytest.raises(InputError, match=r"failed: make: x\nits log"):
        followed(api, tmp_path, monkeypatch, capsys)
    api.run, api.tasks = (lambda *_: False), api.tasks
    with pytest.raises(InputError, match=r"failed: make: its pod never began, and Kubeflow does not say why: kubectl"):
        followed(api, tmp_path, monkeypatch, capsys)


@pytest.mark.timeout(60)
def test_a_run_that_was_cancelled(world, api, tmp_path, monkeypatch, capsys):
    def run(*_: object) -> bool:
        next(iter(api.runs.values()))["state"] = "CANCELED"
        return True

    api.run = run
    with pytest.raises(InputError, match="was cancelled\nno stage wrote why"):
        followed(api, tmp_path, monkeypatch, capsys)


@pytest.mark.timeout(60)
def test_an_api_that_is_away_for_a_while_is_asked_again(world, api, tmp_path, monkeypatch, capsys):
    def run(ir: str, parameters: dict) -> bool:
        api.page, until = "gateway", time.monotonic() + 20
        while api.page and time.monotonic() < until:
            time.sleep(0.1)
        return pods({name: well() for name in STAGES})(ir, parameters)

    api.run = run

    def seen(*args: object, **more: object) -> None:
        if "asking again" in str(args[0]):
            api.page = None
        print(*args, **more)

    monkeypatch.setattr(follow, "print", seen, raising=False)
    lines = followed(api, tmp_path, monkeypatch, capsys)
    assert f"{api.url}: found 503: upstream connect error, in answer to GET /runs/" in lines[0]
    assert lines[0].endswith("; asking again") and "succeeded: 4 stages" in lines[-2]


@pytest.mark.timeout(60)
def test_an_api_that_stays_away_or_ends_the_login_is_left(world, api, tmp_path, monkeypatch, capsys):
    going = threading.Event()

    def run(*_: object) -> bool:
        api.page = "gateway" if patient else "login redirect"
        going.wait(20)
        return True

    api.run, patient = run, False
    try:
        with pytest.raises(ApiError, match="login page"):
            followed(api, tmp_path, monkeypatch, capsys)
        api.page, patient = None, True
        monkeypatch.setattr(follow, "_AWAY", 0.2)
        with pytest.raises(ApiError, match="found 503"):
            followed(api, tmp_path, monkeypatch, capsys)
    finally:
        going.set()


def test_ctrl_c_stops_following_and_not_the_run(world, tmp_path):
    going = threading.Event()

    def run(ir: str, parameters: dict) -> bool:
        pods({"make": {"state": "running"}})(ir, parameters)
        return going.wait(20)

    with Api(run) as api:
        file = profile(tmp_path, api)
        api.token = TOKEN
        program = (
            "import sys; from pathlib import Path; from gradworks import base; from gradworks.cluster import submit\n"
            "base.run(lambda: submit.submit(Path('dvc.yaml'), Path(sys.argv[1]), wait=True))"
        )
        env = {**os.environ, "PYTHONPATH": str(toy.ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(file)], cwd=world, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("make: running"):
                process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and process.stderr.read() == ""
        assert lines[-1].startswith("no longer followed; the run goes on: gradworks runs show ")
        assert [run["state"] for run in api.runs.values()] == ["RUNNING"]
        going.set()
    assert api.wrong == []
