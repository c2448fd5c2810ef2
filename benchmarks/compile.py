"""What `gradworks compile` takes: 200 stages, four pipelines of 150 stages in the same checkout; the target is 5 s.

examples:
  python -m benchmarks.compile       median of five processes, the size of the pipeline; by part, time of a processor
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from gradworks.cost.hardware import processor

_ROOT = Path(__file__).parents[1]
_TARGET, _RUNS = 5.0, 5  # seconds, processes
_PROGRAM = """
import json, sys, time
from pathlib import Path
marks = [("start", 0.0)]
def mark(name): marks.append((name, time.process_time()))
from gradworks.cluster import compile, check
from gradworks.store import stages
mark("start Python, import gradworks")
import dvc.fs, dvc.parsing, dvc.schema
mark("import dvc")
found = stages.load(Path("dvc.yaml"))
mark("resolve dvc.yaml")
check.outputs(found.values(), Path("dvc.yaml"))
check.inputs(found, Path("dvc.yaml"), Path.cwd())
mark("check inputs and outputs")
from kfp import compiler, dsl, kubernetes
mark("import kfp")
text = compile.ir(found, "dvc.yaml", "gradworks", None, compile.tags(Path.cwd(), found))
Path("pipeline.yaml").write_text(text)
mark("build and write the pipeline")
print(json.dumps({b: t - s for (_, s), (b, t) in zip(marks, marks[1:])}))
"""


def _pipeline(cells: int) -> str:
    """A benchmark as dvc.yaml has them: data, a matrix of training and evaluation, a report."""
    deps = [f"code/{number}.py" for number in range(20)]
    each = {"matrix": {"condition": ["imbalance"], "method": ["last_layer"], "seed": list(range(cells))}}
    train = {
        "cmd": "python -m train ${key}",
        "deps": [*deps, "data"],
        "outs": ["train/${key}"],
        "meta": {"image": "gpu"},
    }
    test = {"cmd": "python -m test ${key}", "deps": [*deps, "train/${key}"], "outs": ["test/${key}"]}
    stages = {
        "data": {"cmd": "python -m data", "deps": deps, "outs": ["data"]},
        "train": {**each, **train},
        "test": {**each, **test, "metrics": ["metrics/${key}.json"]},
        "report": {"cmd": "python -m report", "deps": ["metrics"], "outs": ["report.html"]},
    }
    return yaml.safe_dump({"stages": stages})


def _checkout(folder: Path) -> None:
    for name in (".dvc/config", "constraints.txt", "images/Dockerfile"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    for place, cells in ((folder, 99), *((folder / "pipelines" / str(n), 74) for n in range(4))):
        for number in range(20):
            (place / "code").mkdir(parents=True, exist_ok=True)
            (place / "code" / f"{number}.py").write_text("")
        (place / "dvc.yaml").write_text(_pipeline(cells))
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    whole, parts = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _checkout(folder)
        for _ in range(_RUNS):
            begun = time.perf_counter()
            env = {**os.environ, "PYTHONPATH": str(_ROOT)}
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM], cwd=folder, env=env, check=True, capture_output=True, text=True
            )
            whole.append(time.perf_counter() - begun)
            parts.append(json.loads(done.stdout))
        text = (folder / "pipeline.yaml").read_text()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (used.ru_utime + used.ru_stime) / _RUNS  # git, which made the checkout, is hardly in it
    tasks = yaml.safe_load(text)["root"]["dag"]["tasks"].values()
    longest = max(len(task["parameterIterator"]["items"]["raw"]) for task in tasks if "parameterIterator" in task)
    median = statistics.median(whole)
    print(f"{processor()}; 200 stages, four pipelines of 150 beside them")
    spread = f"median of {_RUNS} processes, {min(whole):.2f} to {max(whole):.2f} s"
    print(f"compile {median:.2f} s, {spread}, {cpu:.2f} s of a processor each; target {_TARGET:g} s")
    for part in parts[0]:
        print(f"  {statistics.median(one[part] for one in parts):5.2f} s  {part}")
    print(f"pipeline {len(text) / 1024:.0f} KiB in {len(tasks)} tasks; longest parameter {longest} characters")
    sys.exit(median > _TARGET)


if __name__ == "__main__":
    main()
