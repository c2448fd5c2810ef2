"""The whole pipeline through DVC in a copy of the checkout: results, narrow re-runs, kills, out of memory."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from gradworks.base import artifacts, cells, grid
from gradworks.cost import hardware
from gradworks.store import stages
from tests.components import test_mixture
from tests.small import PROGRAMS, SMALL, run_all

pytestmark = pytest.mark.slow("runs whole pipelines")

ROOT = Path(__file__).parent.parent
BERT = {
    "model": "transformer", "lowercase": True, "vocabulary": 400, "layers": 1, "width": 16, "heads": 2,
    "pretrain": {"steps": 200, "batch": 8, "learning_rate": 1e-3},
}  # fmt: skip
UNMEASURED = {name: section for name, section in SMALL.items() if name != "measure"}


class Project:
    """A copy of the checkout with small parameters and an own DVC cache."""

    def __init__(self, folder, values):
        self.folder, self.values = folder, yaml.safe_load(yaml.safe_dump(values))
        shutil.copytree(ROOT / "gradworks", folder / "gradworks", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "versions.json"):
            shutil.copy(ROOT / name, folder / name)
        self.write()
        self.dvc("init", "--no-scm", "-q")
        shutil.copy(ROOT / ".dvcignore", folder / ".dvcignore")  # without it __pycache__ would be a dependency

    def write(self):
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.values))
        cells.write(self.folder / "params.yaml")
        hardware.write(self.folder / "params.yaml")

    def dvc(self, *args, code=0):
        command = [sys.executable, "-m", "dvc", *args]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, env=self.env())
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def env(self):
        # the copy's gradworks, not the checkout's that is installed
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def lock(self):
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def changed(self):
        """Stages that `dvc status` names."""
        return set(re.findall(r"^(\S+):$", self.dvc("status"), re.M))

    def ran(self, text):
        """Stages that `dvc repro` ran, by its output."""
        return set(re.findall(r"Running stage '(.+)':", text))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run by `gradworks run`, stopped with Ctrl-C after its first cell, and run again."""
    project = Project(tmp_path_factory.mktemp("whole"), SMALL)
    command = [sys.executable, "-c", "from gradworks.cli import main; main()", "run", "--jobs", "1"]
    options = {"cwd": project.folder, "env": project.env(), "text": True, "start_new_session": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process, lines = subprocess.Popen(command, **options), []
    for line in process.stdout:
        lines.append(line)
        if "[1/2," in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    rest, _ = process.communicate(timeout=120)
    project.stopped = (process.returncode, "".join(lines) + rest)
    project.partial = artifacts.read_json(project.folder / "report/results.json")
    again = subprocess.run(command, timeout=300, **options)
    project.again = (again.returncode, again.stdout)
    return project


def test_stopped_run_leaves_a_report_and_the_next_goes_on(whole):
    code, text = whole.stopped
    assert code == 130, text
    assert "Traceback" not in text
    assert "report so far" in text
    states = sorted(c["state"] for c in whole.partial["cells"])
    assert states in (["not run", "ok"], ["not converged", "not run"])
    code, text = whole.again
    assert code == 0, text
    assert "noise/erm" not in text.split("report:")[0].split("first cell")[0]  # the finished cell was not run again
    assert "next:" in text
    assert "\r" not in text


def test_it_ends_with_a_report(whole):
    assert len(whole.lock()) == 1 + 1 + 1 + 1 + 2 + 2 + 2 + 1
    results = artifacts.read_json(whole.folder / "report/results.json")
    assert {"cells", "summaries"} <= set(results)
    page = (whole.folder / "report/report.html").read_text()
    assert "dotprod" in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    assert whole.changed() == set()


def test_an_edit_names_only_the_cells_that_use_it(whole):
    mine = {"train@noise-dotprod-gru-0", "measure@gru-dotprod"}
    file = whole.folder / "gradworks/methods/updates/dotprod.py"
    before = file.read_text()
    file.write_text(before + "\n# an edit\n")
    assert whole.changed() == mine
    file.write_text(before)
    whole.values["methods"]["dotprod"]["update"]["dotprod"]["weight"] = 0.2
    whole.write()
    assert whole.changed() == {*mine, "cells", "report"}  # the grid is checked, the report tells the value
    whole.values["methods"]["dotprod"]["update"]["dotprod"]["weight"] = 0.1
    whole.write()
    assert whole.changed() == set()


def test_gpus_that_the_definition_does_not_know_of_stop_a_plain_repro(whole):
    params = whole.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("count: 0", "count: 2"))
    text = whole.dvc("repro", code=255)
    assert "dvc.yaml: not what params.yaml asks for" in text and not whole.ran(text) - {"cells"}
    params.write_text(before)
    whole.dvc("repro", "-s", "cells")
    assert whole.changed() == set()


def test_a_new_seed_and_a_new_method_run_no_existing_cell(whole):
    old = {key: value for key, value in whole.lock().items() if key.startswith(("train@", "evaluate@"))}
    whole.values["methods"]["random"] = {"weighting": "random"}
    whole.values["cells"]["grid"] += [
        {"condition": ["noise"], "method": ["erm"], "encoder": ["gru"], "seed": [1]},
        {"condition": ["noise"], "method": ["random"], "encoder": ["gru"], "seed": [0]},
    ]
    whole.write()
    ran = whole.ran(whole.dvc("repro"))
    trained = {name for name in ran if name.startswith("train@")}
    assert trained == {"train@noise-erm-gru-1", "train@noise-random-gru-0"}
    assert not ran & (set(old) | {"fetch@synthetic", "pretrain@gru"})
    assert old.items() <= whole.lock().items()


def test_what_was_measured_on_other_hardware_is_not_restored(whole):
    file = whole.folder / "hardware.yaml"
    out = whole.folder / "runs/measure/gru/erm.json"
    mine, costs = file.read_text(), out.read_bytes()
    for found in (out, whole.folder / "dvc.lock"):  # the run cache alone knows of them
        found.rename(found.with_suffix(".away"))
    file.write_text(mine.replace(hardware.processor(), "Another processor"))
    text = whole.dvc("repro", "-s", "measure@gru-erm", code=255)
    assert "Running stage 'measure@gru-erm'" in text
    assert "hardware.yaml: processor: 'Another processor'" in text
    assert "gradworks cells" in text
    assert not out.exists()
    hardware.write(whole.folder / "params.yaml")
    assert file.read_text() == mine
    text = whole.dvc("repro", "-s", "measure@gru-erm")
    assert "Stage 'measure@gru-erm' is cached" in text
    assert out.read_bytes() == costs
    (whole.folder / "dvc.away").replace(whole.folder / "dvc.lock")
    out.with_suffix(".away").unlink()
    assert whole.changed() == set()


def test_a_run_for_as_long_as_a_method_waits_for_its_cost_and_no_other_does(whole):
    old = {key: value for key, value in whole.lock().items() if key.startswith("train@")}
    whole.values["methods"]["long"] = {"as_long_as": "dotprod"}
    whole.values["cells"]["grid"].append({"condition": ["noise"], "method": ["long"], "encoder": ["gru"], "seed": [0]})
    whole.write()
    ran = whole.ran(whole.dvc("repro"))
    assert {name for name in ran if name.startswith(("train@", "measure@"))} == {"train@noise-long-gru-0"}
    lock = whole.lock()
    assert old.items() <= lock.items()
    ratio = artifacts.read_json(whole.folder / "runs/schedule/gru/dotprod.json")["ratio"]
    assert artifacts.read_json(whole.folder / "runs/train/noise/long/gru/0/status.json")["steps"] == round(240 * ratio)
    reads = {name: {dep["path"] for dep in entry["deps"]} for name, entry in lock.items() if name.startswith("train@")}
    costs = {name: {d for d in deps if d.startswith(("runs/schedule", "runs/measure"))} for name, deps in reads.items()}
    assert costs.pop("train@noise-long-gru-0") == {"runs/schedule/gru/dotprod.json"}
    assert not any(costs.values())


def kill_in(project, stage, kill):
    """Start `dvc repro` and kill it once the stage has written a checkpoint.

    Its stages run in /bin/sh: dash, unlike bash, stays between DVC and the program.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=project.folder, env=project.env() | {"SHELL": "/bin/sh"},
        start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if f"Running stage '{stage}" in line:
            break
    else:
        raise AssertionError(f"{stage} did not run")
    end = time.monotonic() + 120
    while not list((project.folder / ".gradworks/checkpoints").glob("*/state.pt")):
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.005)
    kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not any(key.startswith(stage) for key in (project.lock() if (project.folder / "dvc.lock").exists() else {}))


def bytes_of(folder, out):
    files = [file for file in (folder / out).rglob("*") if file.is_file()] or [folder / out]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_killed_in_pretrain_and_in_train_it_resumes_and_ends_the_same(tmp_path, monkeypatch):
    values = {**UNMEASURED, "pretrain": {"bert": BERT}}
    values["cells"] = {"seeds": [0], "grid": [{"condition": ["noise"], "method": ["erm"], "encoder": ["bert"]}]}
    # the first checkpoint comes after 4 % of a long run: the kill meets the stage in its middle on a busy machine too
    longer = {"epochs": 6, "select": {"every": 0.04}, "learning_rate": {"transformer": 1e-3}}
    values["train"] = {**SMALL["train"], **longer}
    (tmp_path / "broken").mkdir()
    broken = Project(tmp_path / "broken", values)
    kill_in(broken, "pretrain@bert", os.killpg)
    kill_in(broken, "train@noise-erm-bert-0", os.kill)  # dvc alone: the stage sees it and stops by itself
    text = broken.dvc("repro")
    assert re.search(r"resumed from step \d+ of", text), text
    assert not broken.ran(text) & {"pretrain@bert", "fetch@synthetic"}
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    for name in ("params.yaml", "versions.json"):
        shutil.copy(broken.folder / name, unbroken / name)
    (unbroken / "components").symlink_to(PROGRAMS)
    monkeypatch.chdir(unbroken)
    run_all(Path("params.yaml"))
    # but the report, which has times
    outs = [out["path"] for name, entry in broken.lock().items() if name != "report" for out in entry.get("outs", ())]
    assert len(outs) > 7
    assert [out for out in outs if bytes_of(broken.folder, out) != bytes_of(unbroken, out)] == []
    assert not list((broken.folder / ".gradworks/checkpoints").glob("*/*"))


def test_a_cell_out_of_memory_stands_in_the_table_and_the_rest_runs(tmp_path):
    values = {**UNMEASURED, "pretrain": {**SMALL["pretrain"], "huge": {**SMALL["pretrain"]["gru"], "hidden": 60_000}}}
    values["cells"] = {"seeds": [0], "grid": [{"condition": ["noise"], "method": ["erm"], "encoder": ["gru", "huge"]}]}
    shutil.copy(ROOT / "versions.json", tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "components").symlink_to(PROGRAMS)
    limit = 6 << 30  # bytes of address space: torch needs three, the huge GRU some hundred

    def limited():
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    program = "from pathlib import Path; from tests.small import run_all; run_all(Path('params.yaml'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=limited,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    states = {c["encoder"]: c["state"] for c in artifacts.read_json(tmp_path / "report/results.json")["cells"]}
    assert states.pop("gru") in ("ok", "not converged") and states == {"huge": "OOM"}
    assert "OOM" in (tmp_path / "report/report.md").read_text()


def test_two_mixtures_run_from_the_template_to_a_report(tmp_path, monkeypatch):
    values = test_mixture.values()
    test_mixture.write(tmp_path / "data/mine")
    values["train"] |= {"epochs": 1}
    values["methods"] = {**SMALL["methods"], "long": {"as_long_as": "dotprod"}}
    values["mixtures"] = {name: values["mixtures"][name] for name in ("alone", "both")}
    both = {"condition": ["noise"], "method": ["dotprod", "long"], "mixture": ["both"], "encoder": ["gru"]}
    values["cells"]["grid"] = [both, {**both, "method": ["erm"], "mixture": ["alone"]}]
    shutil.copy(ROOT / "versions.json", tmp_path)
    (tmp_path / "components").symlink_to(PROGRAMS)
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    results = run_all(Path("params.yaml"))
    found, made = stages.load(tmp_path / "dvc.yaml"), grid.expand(params, values)
    assert {key for key in found if key.startswith("train@")} == {f"train@{key}" for key in made["train"]}
    assert {key for key in found if key.startswith("measure@")} == {f"measure@{key}" for key in made["measure"]}
    outputs = {out.path for stage in found.values() for out in stage.outs}
    assert [out for out in outputs if not Path(out).exists()] == []
    for cell in made["train"].values():
        assert {f"runs/{stage}/{cell['path']}" for stage in ("train", "models", "evaluate")} <= outputs
        assert f"runs/metrics/{cell['path']}.json" in outputs
    assert {out for out in outputs if out.startswith("runs/measure/")} == {
        "runs/measure/both/gru/dotprod.json", "runs/measure/alone/gru/erm.json",
    }  # fmt: skip
    ratio = artifacts.read_json(tmp_path / "runs/schedule/both/gru/dotprod.json")["ratio"]
    steps = {
        name: artifacts.read_json(tmp_path / f"runs/train/noise/{name}/both/gru/0/status.json")["steps"]
        for name in ("dotprod", "long")
    }
    assert steps == {"dotprod": (480 + 160) / 8 / 2, "long": round((480 + 160) / 8 * ratio)}
    reads = {name: set(found[f"train@noise-{name}-both-gru-0"].deps) for name in ("dotprod", "long")}
    assert "runs/schedule/both/gru/dotprod.json" in reads["long"] - reads["dotprod"]
    assert {cell["state"] for cell in results["cells"]} <= {"ok", "not converged"}
    assert {row["encoder"] for row in results["summaries"]} == {"gru · both", "gru · alone"}
    parts = {(row["encoder"], row["method"], row["task"], row["metric"]): row for row in results["parts"]}
    found = artifacts.read_json(tmp_path / "runs/metrics/noise/dotprod/both/gru/0.json")["parts"]["worth"]["overall"]
    row = parts["gru · both", "dotprod", "worth", "pearson"]
    assert (row["value"], row["n"]) == (found["pearson"]["value"], 64)
    assert "worth" in (tmp_path / "report/report.html").read_text()
