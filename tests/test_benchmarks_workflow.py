"""benchmarks.yml: its steps, run in order against the embedded store on a branch that changes one method."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster import toy
from tests.small import SMALL

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name):
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())


def run(root, script, environment):
    """A step's script as a runner gives it to bash; the tools of .venv are those of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = """gradworks() { python -c 'from gradworks.cli import main; main()' "$@"; }\n"""
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command + script.replace(".venv/bin/", "")],
        cwd=root, env={**os.environ, "PATH": path, "PYTHONPATH": str(root), **environment}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def filled(text, values):
    """`${{ }}` as the runner fills it in; what is not in `values` must not be asked for."""
    return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", lambda found: values[found[1]], str(text))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkout whose base was run and pushed, on a branch that makes dotprod something else."""
    folder = tmp_path_factory.mktemp("workflow")
    with toy.served(folder) as (_, patch):
        credentials = dict(
            line.split(" = ") for line in (folder / "store" / "credentials").read_text().splitlines() if " = " in line
        )
        root = toy.tree(folder / "checkout", {**SMALL, "train": {**SMALL["train"], "epochs": 1}})
        params = root / "params.yaml"  # the other set's accuracy is that of a constant, whatever dotprod does
        params.write_text(params.read_text().replace("challenge", "in_distribution"))
        for script in (".venv/bin/gradworks run", ".venv/bin/dvc push --run-cache dvc.yaml"):
            code, said = run(root, script, {})
            assert code == 0, said
        toy.git(root, "add", "dvc.lock", "params.yaml")
        toy.git(root, "commit", "-q", "-m", "results")
        base = toy.git(root, "rev-parse", "HEAD").strip()
        fresh = folder / "fresh"
        toy.git(folder, "clone", "-q", str(root), str(fresh))
        file = fresh / "gradworks/methods/updates/dotprod.py"
        text = file.read_text()
        text = text.replace("factor = -self._weight", "factor = 90 * self._weight")
        file.write_text(text.replace("limit: float | None = 0.5", "limit: float | None = None"))
        assert file.read_text() != text
        toy.git(fresh, "checkout", "-q", "-b", "change")
        toy.git(fresh, "commit", "-q", "-a", "-m", "change")
        patch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
        keys = {"AWS_ACCESS_KEY_ID": credentials["aws_access_key_id"],
                "AWS_SECRET_ACCESS_KEY": credentials["aws_secret_access_key"]}  # fmt: skip
        yield fresh, base, keys


@pytest.mark.slow("runs a pipeline")
@pytest.mark.timeout(900)
def test_the_steps_rerun_one_method_and_write_the_comment(world, tmp_path):
    root, base, keys = world
    values = {"github.event.pull_request.base.sha": base}
    summary = tmp_path / "summary.md"
    runner = {"GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(tmp_path)}
    said = {}
    for step in workflow("benchmarks")["jobs"]["compare"]["steps"]:
        if "name" in step:
            environment = {k: filled(v, values) for k, v in step.get("env", {}).items()}
            code, said[step["name"]] = run(root, step["run"], {**runner, **keys, **environment})
            assert code == 0, said[step["name"]]
    assert list(said) == ["restore", "reproduce", "compare"] and "::warning::" not in said["restore"]
    log = (root / ".gradworks" / "run.log").read_text()
    ran = set(re.findall(r"Running stage '([^']+)'", log))
    again = {f"{stage}@noise-dotprod-gru-0" for stage in ("train", "evaluate")}
    assert ran == again | {"measure@gru-dotprod", "report"}
    body = (root / "comment" / "body.md").read_text()
    assert body.startswith(f"### Against `{base[:12]}`: ") and "| noise |" in body and "## Cost" in body
    assert summary.read_text() == body


@pytest.mark.slow("runs a pipeline")
def test_a_fork_has_no_credentials_and_is_told(world):
    root, _, _ = world
    step = next(s for s in workflow("benchmarks")["jobs"]["compare"]["steps"] if s.get("name") == "restore")
    code, said = run(root, step["run"], {"AWS_ACCESS_KEY_ID": ""})
    assert code == 0 and "no credentials of the store" in said


def test_what_a_pull_request_may_do():
    """A token that reads, no secret in a script; what writes comments checks out nothing and runs no code of theirs."""
    made, comment = workflow("benchmarks"), workflow("benchmarks-comment")
    assert made["permissions"] == {"contents": "read"} and "permissions" not in made["jobs"]["compare"]
    assert "pull_request_target" not in made[True]
    assert comment["permissions"] == {} and set(comment[True]) == {"workflow_run"}
    steps = comment["jobs"]["comment"]["steps"]
    assert not [s for s in steps if "uses" in s]
    for text in (WORKFLOWS / "benchmarks.yml", WORKFLOWS / "benchmarks-comment.yml"):
        for job in yaml.safe_load(text.read_text())["jobs"].values():
            assert not [
                s for s in job["steps"] if "${{" in s.get("run", "")
            ]  # a branch's name would be a script's text
            assert all(re.search(r"@[0-9a-f]{40}$", s["uses"]) for s in job["steps"] if "uses" in s)


def test_a_comment_mentions_nobody(tmp_path):
    clean = next(s for s in workflow("benchmarks-comment")["jobs"]["comment"]["steps"] if s["name"] == "clean")
    (tmp_path / "comment").mkdir()
    (tmp_path / "comment" / "body.md").write_text("| @everyone |\0" + "x" * 70_000)
    code, _ = run(tmp_path, clean["run"], {})
    body = (tmp_path / "body.md").read_text()
    assert code == 0 and body.startswith("| &#64;everyone |x") and "@" not in body and len(body) < 65_536
