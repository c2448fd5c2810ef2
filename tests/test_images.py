"""The environment images: their text, what `make images` asks of Docker, and what is in the one that it built."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from gradworks.pod.environment import digest
from tests.docker import engine, image
from tests.small import SMALL

pytestmark = pytest.mark.slow("builds and runs images")

ROOT = Path(__file__).parent.parent
KINDS = ("cpu", "gpu")
# as strict as a cluster can be: nothing of the image can be written, and no capability is held
RUN = ["docker", "run", "--rm", "--interactive", "--network=none"]
STRICT = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--tmpfs=/workspace"]


def docker(*command: str, given: bytes = b"") -> str:
    done = subprocess.run(command, input=given, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout.decode()[-2000:] + done.stderr.decode()[-4000:]
    return done.stdout.decode()


def python(code: str) -> str:
    return docker(*RUN, *STRICT, image(), "python", "-c", code)


@pytest.mark.parametrize(
    ("kind", "torch", "backend"),
    [("cpu", "", "cpu"), ("gpu", "", "cu130"), ("cpu", "pypi", ""), ("gpu", "pypi", ""), ("gpu", "cu128", "cu128")],
)
def test_the_kind_decides_the_build_of_torch(kind, torch, backend):
    """The lines of the Dockerfile that choose it, as its shell runs them."""
    text = (ROOT / "images/Dockerfile").read_text()
    lines = [line.strip("& \\") for line in text.splitlines() if "torch" in line and line.startswith(" && if ")]
    script = "; ".join([*lines, 'echo "${UV_TORCH_BACKEND-}"'])
    env = {"KIND": kind, "TORCH": torch, "PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-euc", script], env=env, capture_output=True, text=True, check=True)
    assert len(lines) == 2 and done.stdout.strip() == backend


class Build:
    """`make images` with a docker that notes what it was asked, and reads the context as the real one does."""

    def __init__(self, folder: Path):
        self.log = folder / "log"
        stub = folder / "bin/docker"
        stub.parent.mkdir()
        stub.write_text(
            f'#!/bin/sh\ncase $1 in build) files=$(tar -tf - | tr "\\n" " ");; esac\necho "$* links=$PIP_FIND_LINKS '
            f'$files" >>{self.log}\n[ "$1" != "$FAILS" ]\n'
        )
        stub.chmod(0o755)
        self.path = f"{stub.parent}:{os.environ['PATH']}"

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        self.log.write_text("")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE", "MFLAGS"))}
        done = subprocess.run(
            ["make", "images", *arguments],
            cwd=ROOT,
            env=clean | {"PATH": self.path} | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr, self.log.read_text().splitlines()[1:]


@pytest.fixture
def build(tmp_path):
    return Build(tmp_path)


def test_the_tag_is_the_digest_and_an_image_of_each_kind_is_built(build):
    code, said, asked = build()
    assert code == 0, said
    assert len(asked) == 2
    for kind, line in zip(KINDS, asked, strict=True):
        assert f"--build-arg KIND={kind} --build-arg DIGEST={digest(ROOT, kind)} -f images/Dockerfile -t " in line
        assert f"-t gradworks-{kind}:{digest(ROOT, kind)} - " in line
        assert line.endswith("pyproject.toml constraints.txt images/Dockerfile ")
        assert "--platform" not in line
        assert "TORCH" not in line


def test_a_platform_a_registry_and_a_push(build):
    tag = f"registry.example/team/gradworks-gpu:{digest(ROOT, 'gpu')}"
    code, said, asked = build(
        "KIND=gpu", "PLATFORM=linux/amd64", "REGISTRY=registry.example/team/", "PUSH=1", "TORCH=pypi"
    )
    assert code == 0, said
    assert asked[0].startswith("build --platform linux/amd64 --build-arg TORCH=pypi ")
    assert f"-t {tag} - " in asked[0]
    assert asked[1].startswith(f"push {tag} ")
    assert len(asked) == 2


def test_what_cannot_be_pushed_or_built_is_said(build):
    code, said, asked = build("PUSH=1")
    assert (code != 0, asked) == (True, [])
    assert "PUSH=1 needs a REGISTRY" in said
    code, said, asked = build(FAILS="info")
    assert (code != 0, asked) == (True, [])
    assert "a running Docker engine is needed" in said
    code, _, asked = build("REGISTRY=r.example", "PUSH=1", FAILS="build")
    assert code != 0
    assert len(asked) == 1, "an image that did not build is neither pushed nor followed by another"


def test_only_an_address_of_wheels_is_handed_on(build):
    for given, handed in (("/some/folder", ""), ("https://wheels.example/", "https://wheels.example/")):
        assert f"links={handed} " in build("KIND=cpu", PIP_FIND_LINKS=given)[2][0]


def test_the_image_says_which_environment_it_is():
    config = engine().images.get(image()).attrs["Config"]
    assert config["Labels"]["org.gradworks.environment"] == digest(ROOT, "cpu")
    assert f"GRADWORKS_IMAGE={digest(ROOT, 'cpu')}" in config["Env"]
    assert re.fullmatch(r"[1-9]\d*:0", config["User"]), "a number, as a cluster cannot tell that a name is not root"


def test_it_holds_the_pinned_environment_of_a_stage_and_nothing_else():
    listed = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(python(listed)).items()}
    pins = dict(line.split(" ;")[0].split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    wrong = {name: version for name, version in found.items() if version.split("+")[0] != pins.get(name)}
    assert wrong == {}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.match(r"[\w.-]+", line)[0].replace(".", "-").lower() for line in extras["stage"]}
    assert named <= set(found)
    assert not set(found) & {"gradworks", "kfp", "docker", "pytest", "ruff", "uv", "pip"}


def test_no_compiler_and_nothing_of_the_build_is_left():
    find = "for tool in cc gcc g++ clang ld as make git curl wget uv; do command -v $tool; done; ls -d /build /opt/uv"
    assert docker(*RUN, image(), "sh", "-c", f"{find} 2>/dev/null || true") == ""
    history = json.dumps(engine().images.get(image()).history())
    assert not re.search("PIP_|index|://", history, re.I), "where packages came from may hold a password"
    assert not [e for e in engine().images.get(image()).attrs["Config"]["Env"] if e.startswith(("PIP_", "UV_"))]


def code() -> bytes:
    """This checkout with small parameters as a tar, as a pod gets it: no lock, no runs, no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--",
         ".dvc", ".dvcignore", "*.py", "*.yaml", "*.json", "*.j2"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in listed:
            if not name.startswith("pipelines/") and name != "params.yaml" and (ROOT / name).exists():
                tar.add(ROOT / name, name)
        text = yaml.safe_dump(SMALL).encode()
        member = tarfile.TarInfo("params.yaml")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return packed.getvalue()


STAGE = """
set -e
tar -xf -
dvc config --local core.no_scm true
python -c 'from pathlib import Path; from gradworks.base import cells; cells.write(Path("params.yaml"))'
dvc repro -q {stage}
python -c 'import boto3, dvc_s3, torch, transformers; torch.ones(2) @ torch.ones(2)'
id -u
cat {out}
"""


@pytest.mark.parametrize(
    ("user", "stage", "out"),
    [("10001", "pretrain@gru", "runs/pretrain/gru/manifest.json"), ("1000660000:0", "cells", "runs/cells.json")],
    ids=["the image's", "one that a cluster chose"],
)
def test_stages_run_on_a_read_only_root(user, stage, out):
    script = STAGE.format(stage=stage, out=out)
    number, written = docker(*RUN, *STRICT, "--user", user, image(), "sh", "-c", script, given=code()).split("\n", 1)
    assert number == user.partition(":")[0]
    assert json.loads(written)


def test_the_work_folder_can_be_written_without_mounts_and_the_environment_cannot():
    script = "touch /workspace/x /tmp/x && ! touch /opt/venv/bin/x 2>/dev/null"
    for user in ("10001:0", "1000660000:0"):
        docker(*RUN, "--cap-drop=ALL", "--user", user, image(), "sh", "-c", script)
