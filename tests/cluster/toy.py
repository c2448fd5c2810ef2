"""A checkout with a small pipeline of its own, run stage by stage as pods do, without containers."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradworks.base import cells
from gradworks.pod import environment
from gradworks.store import chains, code, stages, storage
from gradworks.store.places import Places, encoded
from tests.cluster import backend

ROOT = Path(__file__).parent.parent.parent
REMOTE = "s3://gradworks/toy"
DVC_YAML = """
stages:
  make:
    cmd: python work.py make made
    deps: [work.py]
    outs: [made]
  double:
    foreach: ${numbers}
    do:
      cmd: python work.py double made/${key}.txt out/${key}
      deps: [work.py, made]
      params: [sleep]
      outs:
        - out/${key}: {type: model}
      metrics: ["metrics/${key}.json"]
  join:
    cmd: python work.py join out page.html page.md
    deps: [work.py, out]
    outs: [page.html, page.md]
"""
WORK = """
import json, os, signal, sys, time
from pathlib import Path
what, args = sys.argv[1], [Path(a) for a in sys.argv[2:]]
print("the secret is", os.environ.get("MY_SECRET_KEY"), flush=True)
if what == "make":
    args[0].mkdir()
    for name in "ab":
        (args[0] / f"{name}.txt").write_text(str(ord(name)))
elif what == "double":
    mark = Path(".gradworks/checkpoints") / args[1].name / "state"
    mark.parent.mkdir(parents=True, exist_ok=True)
    begun = int(mark.read_text()) if mark.exists() else 0
    print("begins at", begun, flush=True)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    for step in range(begun, int(Path("params.yaml").read_text().split("sleep:")[1].split()[0])):
        mark.write_text(str(step + 1))
        time.sleep(0.1)
        if stopped:
            sys.exit(143)
    mark.unlink(missing_ok=True)
    mark.parent.rmdir()
    number = int(args[0].read_text()) * 2
    args[1].mkdir(parents=True)
    (args[1] / "model.txt").write_text(f"{number}\\n")
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics", f"{args[1].name}.json").write_text(json.dumps({"overall": {"accuracy": {"value": number / 1000}}}))
elif what == "join":
    text = " ".join(p.read_text().strip() for p in sorted(args[0].glob("*/model.txt")))
    args[1].write_text(f"<p>{text}</p>")
    args[2].write_text(text)
"""
PARAMS = "sleep: 0\nnumbers: {a: {}, b: {}}\n"


def git(root: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def checkout(root: Path, params: str = PARAMS, work: tuple[str, str] = ("", "")) -> Path:
    """A git checkout of the toy pipeline: the library, what an image is made from, dvc.yaml.

    Args:
        work: a line of WORK, and lines that follow it here.
    """
    root.mkdir(parents=True)
    shutil.copytree(ROOT / "gradworks", root / "gradworks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*environment.FILES, "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {REMOTE}\n")
    (root / ".gitignore").write_text("/made\n/out\n/metrics\n/page.*\n.gradworks\n.dvc/*\n!.dvc/config\n__pycache__\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "work.py").write_text(WORK.replace(work[0], "".join(work)) if work[0] else WORK)
    (root / "params.yaml").write_text(params)
    git(root, "init", "-q")
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "toy")
    return root


def tree(root: Path, values: dict[str, Any]) -> Path:
    """This tree with other parameters, committed; without its tests, further pipelines and results."""
    for name in git(ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        source = ROOT / name
        if name and source.is_file() and not name.startswith(("pipelines/", "tests/")) and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(source.read_bytes())
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    cells.write(root / "params.yaml")
    git(root, "init", "-q")
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "base")
    return root


@dataclass
class Runs:
    """Runs of one checkout against one store."""

    root: Path
    folder: Path
    environment: dict[str, str]
    uri: str = ""
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = Places(REMOTE)
        self.stages = stages.load(self.root / "dvc.yaml")
        self.uri = code.upload(code.bundle(self.root), self.places)

    def given(self, run: str, stage: str) -> dict[str, Any]:
        """The executor input that Kubeflow would make. `stage`: or a chain of some."""
        at, names = self.folder / run / encoded(stage), chains.split(stage)
        owned = list(zip(names, chains.owners(names), strict=True))
        outs = [chains.output(out.name, owner) for name, owner in owned for out in self.stages[name].outs]
        artifacts = {
            name: {"artifacts": [{"name": name, "uri": str(at / name), "metadata": {}}]}
            for name in (*outs, backend.LOGS)
        }
        locks = [chains.output("lock", owner) for _, owner in owned]
        values = {"run": run, "stage": stage, "pipeline": "dvc.yaml", "remote": REMOTE, "code": self.uri}
        return {
            "inputs": {"parameterValues": values},
            "outputs": {
                "outputFile": str(at / "executor_output.json"),
                "parameters": {name: {"outputFile": str(at / name)} for name in locks},
                "artifacts": artifacts,
            },
        }

    def begin(self, run: str, stage: str, **more: str) -> subprocess.Popen[str]:
        """Start the pod's program."""
        boot = (ROOT / "gradworks/pod/boot.py").read_text()
        work = self.folder / run / encoded(stage) / "code"
        work.parent.mkdir(parents=True, exist_ok=True)
        image = environment.digest(self.root, "cpu")
        return subprocess.Popen(
            [sys.executable, "-c", boot, json.dumps(self.given(run, stage))],
            env={**self.environment, "GRADWORKS_IMAGE": image, "GRADWORKS_WORK": str(work), **more},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, process_group=0,
        )  # fmt: skip

    def pod(self, run: str, stage: str, **more: str) -> tuple[int, str]:
        """Run one stage, or a chain; exit code and what it printed."""
        process = self.begin(run, stage, **more)
        said, _ = process.communicate(timeout=240)
        return process.returncode, said

    def all(self, run: str) -> None:
        """Run every stage; each has to succeed."""
        for stage in self.stages:
            ended, said = self.pod(run, stage)
            assert ended == 0, said

    def record(self, run: str, stage: str) -> dict[str, Any]:
        return self.places.record(run, f"stages/{encoded(stage)}")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[dict[str, str], pytest.MonkeyPatch]]:
    """An S3 server in folder / "store" that this process is a client of.

    Yields:
        The environment of other clients, with a secret planted in it; and what undoes patches when the server goes.
    """
    at = folder / "store"
    with pytest.MonkeyPatch.context() as patch:
        try:
            at.mkdir(parents=True)
            # drawn, as a store that is killed and comes back must find its port free beside other tests' stores
            storage.write_json(at / "ports.json", {"s3": 0})
            clients = storage.client_environment(storage.up(at), at)
            for name in storage._UNSET:
                patch.delenv(name, raising=False)
            for name, value in clients.items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            yield {**clients, "MY_SECRET_KEY": "planted-secret-value"}, patch
        finally:
            storage.down(at)
