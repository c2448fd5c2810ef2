"""Several `dvc repro` at once: in the order of what they need, to the log, and ended cleanly."""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from gradworks import engine
from gradworks.base.errors import InputError

DVC_SAYS = "ERROR: failed to reproduce 'train@a': failed to run: python -m components.train, exited with {}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            ["Running stage 'train@a':", "> python", "error: p: a: found -1", "expected more", DVC_SAYS.format(2)],
            ["p: a: found -1", "expected more", "stage train@a: all that"],
        ),
        (
            ["Running stage 'pipelines/x/dvc.yaml:fetch@s':", "error: d.csv: line 3: bad", "", DVC_SAYS.format(2)],
            ["d.csv: line 3: bad", "stage fetch@s: all that"],
        ),
        (
            ["Running stage 'a':", "error: of a stage that was tried again", "Running stage 'b':", DVC_SAYS.format(-9)],
            ["it was killed: out of memory, as a rule", "stage b: all that"],
        ),
        (
            ["Running stage 'a':", "Traceback (most recent call last):", " F", "KeyError: 'x'", "", DVC_SAYS.format(1)],
            ["an error of the program, not of its parameters: KeyError: 'x'", "stage a: all that"],
        ),
        (["ERROR: 'data/mnli' does not exist", ""], ["'data/mnli' does not exist", "all that it printed"]),
        ([], ["dvc repro ended without a word", "all that it printed"]),
    ],
)  # fmt: skip
def test_what_a_failed_run_ends_with(said, expected):
    found = engine.reason(said)
    assert len(found) == len(expected) <= 3
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found
    assert found[-1].endswith(".gradworks/run.log; the same command goes on from here")


def test_a_long_word_of_dvc_is_cut(capsys):
    assert max(map(len, engine.reason(["ERROR: " + "x" * 900]))) <= 400


class Free:
    """One that runs nothing: the test says when and how it ends."""

    made: ClassVar[list["Free"]] = []

    def __init__(self, log):
        self.code, self.said, self.ran, self.closed = 0, deque(), [], False
        Free.made.append(self)

    def begin(self, args):
        self.code, self.ran = None, [*self.ran, args]

    def close(self):
        self.closed = True


@pytest.fixture
def free(monkeypatch):
    monkeypatch.setattr(engine, "Worker", Free)
    monkeypatch.setattr(Free, "made", [])
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: None)
    return Free.made


def units(**needs):
    return [engine.Unit(name, (name,), frozenset(need.split())) for name, need in needs.items()]


def began(workers):
    return sorted(worker.ran[-1][0] for worker in workers if worker.code is None)


def test_a_unit_begins_when_what_it_needs_is_done_and_the_first_of_those_that_can_comes_first(free):
    seen = []

    def look():
        seen.append(began(free))
        next(worker for worker in free if worker.code is None).code = 0

    with engine.Workers(2, None, look) as workers:
        workers.run(units(a="", b="a", c="b", d="elsewhere", e="a"))
    begun = [args[0] for worker in free for args in worker.ran]
    assert sorted(begun) == ["a", "b", "c", "d", "e"]
    assert seen[0] == ["a", "d"] and len(free) == 2 and all(worker.closed for worker in free)
    for at, now in enumerate(seen):
        before = {name for some in seen[:at] for name in some}
        for name, need in (("b", "a"), ("c", "b"), ("e", "a")):
            assert name not in now or (need in before and need not in now)


def test_after_a_failure_what_runs_goes_on_and_nothing_new_begins(free):
    looks = []

    def look():
        assert len(looks) < 9, "it does not end"
        looks.append(began(free))
        if len(looks) == 1:
            free[0].said.append("ERROR: no such stage")
            free[0].code = 255
        elif len(looks) == 3:
            free[1].code = 0

    with pytest.raises(InputError, match="no such stage"), engine.Workers(2, None, look) as workers:
        workers.run(units(a="", b="", c=""))
    assert looks == [["a", "b"], ["b"], ["b"]]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    (tmp_path / "components").mkdir()
    (tmp_path / "components/__init__.py").touch()
    (tmp_path / "components/wait.py").write_text("import time; print('waiting', flush=True); time.sleep(600)")
    cmd = "python -m components.wait"
    stages = {name: {"cmd": f"echo {name} > {name}", "outs": [name]} for name in "ab"} | {"wait": {"cmd": cmd}}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    return tmp_path


def test_one_process_runs_one_after_another_and_what_it_prints_goes_to_the_log(project):
    with (project / "log").open("w") as log, engine.Workers(1, log, lambda: None) as workers:
        workers.run(units(a="", b=""))
        assert len(workers._idle) == 1
        with pytest.raises(InputError, match=r"'missing' does not exist|not found"):
            workers.run(units(missing=""))
        workers.run([engine.Unit("again", ("a",))])  # and goes on after a failure
    said = (project / "log").read_text()
    assert said.index("Running stage 'a'") < said.index("Running stage 'b'") < said.index("missing")
    assert "ended" not in said
    assert (project / "dvc.lock").read_text().count("cmd:") == 2


def left(project):
    found = psutil.process_iter(["pid", "cwd"])
    return [one for one in found if one.info["cwd"] == str(project) and one.pid != os.getpid()]


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_a_stage_that_runs_is_ended_with_its_run(project, how):
    def look():
        if "waiting" in (project / "log").read_text():
            if how == "interrupt":
                raise KeyboardInterrupt
            os.kill(workers_made[0].process.pid, signal.SIGKILL)

    workers_made, plain = [], engine.Worker.begin

    def begin(self, args):
        workers_made.append(self)
        plain(self, args)

    with pytest.MonkeyPatch.context() as patch, (project / "log").open("w") as log:
        patch.setattr(engine.Worker, "begin", begin)
        error = KeyboardInterrupt if how == "interrupt" else InputError
        with pytest.raises(error), engine.Workers(1, log, look) as workers:
            workers.run(units(wait=""))
    if how == "interrupt":
        assert not left(project)
    else:
        for one in left(project):  # a real stage stops by itself: see `base.Stopping`
            one.kill()
