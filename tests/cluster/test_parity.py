"""The default benchmark on small parameters, each stage in a container, equals `dvc repro` in one container."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gradworks.store.places import Places
from tests import docker
from tests.cluster import toy
from tests.small import SMALL

pytestmark = pytest.mark.slow("runs containers")

REMOTE = "s3://gradworks/dvc"
HARDWARE = ("measure", "report")  # their outputs hold times


def small() -> dict:
    """Each kind of stage, and two of what trains; as little training as there can be."""
    made = copy.deepcopy(SMALL)
    made["train"]["epochs"] = 1
    made["ensemble"] = [{"condition": "noise", "method": "erm", "encoders": ["gru"]}]
    return made


def environment() -> dict[str, str]:
    """Of a command that a user gives, in any checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def gradworks(root: Path, *args: str) -> str:
    """The command, with the code of that checkout."""
    done = subprocess.run(
        [sys.executable, "-c", "from gradworks.cli import main; main()", *args],
        cwd=root, env={**environment(), "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *args], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run in containers; (checkout, name of the run)."""
    docker.image()
    folder = tmp_path_factory.mktemp("parity")
    with toy.served(folder) as (_, patch):
        patch.setenv("MY_SECRET_TOKEN", "planted-in-the-environment")
        root = toy.tree(folder / "checkout", small())
        said = gradworks(root, "submit", "--runner", "docker")
        yield root, re.search(r"(?m)^run (\S+):", said).group(1)


@pytest.mark.timeout(1200)
def test_a_run_in_containers_equals_dvc_repro_in_one(world, tmp_path):
    root, run = world
    fresh = tmp_path / "fresh"
    toy.git(tmp_path, "clone", "-q", str(root), str(fresh))
    said = gradworks(fresh, "collect", run)
    assert f"entries of run {run}" in said
    assert "Data and pipelines are up to date" in dvc(fresh, "status", "dvc.yaml")
    assert "in sync" in dvc(fresh, "status", "-c", "dvc.yaml")
    assert (fresh / "report/report.html").is_file()

    plain = tmp_path / "plain"
    toy.git(tmp_path, "clone", "-q", str(root), str(plain))
    subprocess.run(["chmod", "-R", "a+rwX", str(plain)], check=True)
    docker.engine().containers.run(
        docker.image(), ["sh", "-c", "dvc config --local core.no_scm true && dvc repro -q"], user="10001:0",
        volumes={str(plain): {"bind": "/workspace/plain", "mode": "rw"}}, working_dir="/workspace/plain", remove=True,
        cap_drop=["ALL"], network_mode="none",
    )  # fmt: skip
    ours, theirs = (
        {name: entry for name, entry in yaml.safe_load((folder / "dvc.lock").read_text())["stages"].items()
         if name.partition("@")[0] not in HARDWARE}
        for folder in (fresh, plain)
    )  # fmt: skip
    assert ours == theirs and len(ours) == 9


def test_the_commands_that_look_at_runs(world):
    root, run = world
    (line,) = gradworks(root, "runs").splitlines()[1:]
    assert line.split()[0] == run and "12 succeeded" in line
    shown = gradworks(root, "runs", "show", run)
    assert len(re.findall(r"^\S+ +succeeded +1 +\d+", shown, re.MULTILINE)) == 12
    log = gradworks(root, "runs", "show", run, "--stage", "train@noise-erm-gru-0", "--log")
    assert "Running stage 'train@noise-erm-gru-0'" in log


def test_no_secret_stands_anywhere(world):
    root, _ = world
    keys = (toy.ROOT / Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])).read_text().split()
    secrets = [keys[-1].encode(), b"planted-in-the-environment"]
    places = Places(REMOTE)
    for one in places.list(places.key("") + "/"):
        if not one["Key"].endswith(".tar.gz"):
            body = places.get(one["Key"])
            assert not any(secret in body for secret in secrets), one["Key"]
    for file in (root / ".gradworks/docker").iterdir():
        assert not any(secret in file.read_bytes() for secret in secrets), file
    history = json.dumps(docker.engine().images.get(docker.image()).history())
    assert "SECRET" not in history
