"""The default benchmark on a cluster: pods and seconds from an empty store, unchanged, and with one method changed.

`python -m benchmarks.pods` commits this tree with little training to a checkout of its own and submits it three times
to a server of Kubeflow's published API, which runs each pipeline in containers of Docker against the local S3 server:
the figures are of the pods, not of a scheduler. Kubeflow's local runner starts tasks that are in no loop one after the
other. Writes benchmarks/PODS.md; fails where a run does or `collect` misses an entry. Needs Docker and `make images`.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradworks.cluster import local
from gradworks.cost import hardware
from gradworks.store.places import Places
from tests.cluster import toy
from tests.cluster.api_server import Api

REMOTE = "s3://gradworks/dvc"
CHANGED = "dotprod"
RUNS = ("empty store", "unchanged", f"{CHANGED} changed")


@dataclass(frozen=True)
class Run:
    """One submitted run.

    Attributes:
        name: of RUNS. stages: of the pipeline; restored: of them before the start; tasks: of Kubeflow's pipeline.
        submit, wall: seconds until it was submitted, and until it had ended.
        own: median of the seconds in which a pod's stages did their own work; around: of all else in the pod.
    """

    name: str
    stages: int
    restored: int
    tasks: int
    pods: int
    submit: float
    wall: float
    own: float
    around: float


def small() -> dict[str, Any]:
    """The default benchmark with its cells, and as little in each as there can be."""
    values = yaml.safe_load((toy.ROOT / "params.yaml").read_text())
    values["fetch"]["synthetic"]["rows"] = {"train": 480, "validation": 400, "test": 160}
    values["corrupt"]["splits"]["clean"]["size"], values["corrupt"]["splits"]["selection"]["size"] = 60, 120
    for one in values["pretrain"].values():
        if "pretrain" in one:
            one["pretrain"] = {**one["pretrain"], "steps": 4}
    values["train"] |= {"epochs": 1, "select": {"metric": "accuracy", "every": 0.5}}
    values["measure"] = {"pairs": [9, 9], "half_width": 1.0}
    return values


def gradworks(root: Path, *args: str) -> str:
    """The command with the code of a checkout. Raises SystemExit with what it said where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", "from gradworks.cli import main; main()", *args], cwd=root, check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"gradworks {' '.join(args)}: ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def submitted(name: str, root: Path, profile: Path, api: Api) -> Run:
    """Submit a checkout, wait for the end, and collect it."""
    asked, begun = len(api.bodies), time.monotonic()
    run = re.search(r"(?m)^run (\S+):", gradworks(root, "submit", "--cluster", str(profile))).group(1)  # type: ignore[union-attr]
    submit = time.monotonic() - begun
    specs = [body["pipeline_spec"] for body in api.bodies[asked:] if "pipeline_spec" in body]
    tasks = sum(len(spec.get("pipeline_spec", spec)["root"]["dag"]["tasks"]) for spec in specs)
    while any(one["state"] not in ("SUCCEEDED", "FAILED") for one in api.runs.values()):
        time.sleep(0.5)
    wall = time.monotonic() - begun
    places = Places(REMOTE)
    record = places.record(run, "run")
    if specs and any(one["state"] == "FAILED" for one in api.runs.values()):
        raise SystemExit(f"run {run} failed:\n{gradworks(root, 'runs', 'show', run)}")
    entries = places.entries(run)
    gradworks(root, "collect", run)
    toy.git(root, "add", "dvc.lock")  # as a person would, or the next `collect` refuses to replace it
    toy.git(root, "commit", "-q", "--allow-empty", "-m", f"results of {run}")
    spent = [places.record(run, f"stages/{stage}")["seconds"] for stage in entries if stage not in record["restored"]]
    own = sorted(one["run"] for one in spent)
    around = sorted(one["total"] - one["run"] for one in spent)
    middle = len(spent) // 2
    return Run(name, len(entries), len(record["restored"]), tasks, record.get("pods", 0) if specs else 0, submit, wall,
               own[middle] if own else 0.0, around[middle] if around else 0.0)  # fmt: skip


def written(runs: list[Run]) -> str:
    """The table as Markdown."""
    lines = [
        "# Pods", "",
        f"The default benchmark with its {runs[0].stages} stages and little training in each, submitted to a server of",
        "Kubeflow's published API that runs the pipelines in containers of Docker, as many at once as Kubeflow's local",
        f"runner chooses; {hardware.processor()}. A pod runs one stage, or those that wait for each other alone.",
        "Own: median of the seconds in which a stage's program ran, its start included. Around: of all else in the",
        "pod (code, inputs, outputs, S3).",
        "", "| run | stages | restored | pods | tasks | submitted after | ended after | own | around |",
        "|---" + "|---:" * 8 + "|",
    ]  # fmt: skip
    for one in runs:
        lines.append(
            f"| {one.name} | {one.stages} | {one.restored} | {one.pods} | {one.tasks} | {one.submit:.1f} s | "
            f"{one.wall:.0f} s | {one.own:.1f} s | {one.around:.1f} s |"
        )
    return "\n".join([*lines, "", "Made by `python -m benchmarks.pods`.", ""])


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with toy.served(folder) as (_, patch):
            patch.setenv("OMP_NUM_THREADS", "1")
            root = toy.tree(folder / "checkout", small())
            logs = iter(range(9))

            def run(ir: str, parameters: dict[str, Any]) -> bool:
                try:
                    return local.run_ir(ir, parameters, folder / f"run-{next(logs)}.log")
                finally:  # kfp's runner leaves a handler whose stream is closed
                    logging.root.handlers.clear()
                    logging.root.setLevel(logging.WARNING)

            with Api(run) as api:
                profile = folder / "cluster.yaml"
                images = {"cpu": "gradworks-cpu", "gpu": "gradworks-gpu"}
                profile.write_text(yaml.safe_dump({"endpoint": api.url, "images": images}))
                found = []
                for name in RUNS:
                    if name.endswith("changed") and name != "unchanged":
                        values = yaml.safe_load((root / "params.yaml").read_text())
                        values["methods"][CHANGED]["update"][CHANGED]["weight"] = 0.2
                        (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
                        toy.git(root, "commit", "-q", "-a", "-m", name)
                    found.append(submitted(name, root, profile, api))
                    print(found[-1], flush=True)
                assert api.wrong == [], api.wrong
    Path(__file__).with_name("PODS.md").write_text(written(found), encoding="utf-8")


if __name__ == "__main__":
    main()
