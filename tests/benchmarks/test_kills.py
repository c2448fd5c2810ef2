"""benchmarks/kills.py: what is killed there is seen to resume, and a file that differs to stop it."""

import subprocess
import sys
import time

import pytest

from benchmarks import killing, kills

# counts in a file, and goes on from it
PROGRAM = """
import pathlib, sys, time
kept = pathlib.Path("kept")
begun = int(kept.read_text()) if kept.exists() else 0
print(f"train: resumed from step {begun} of 20" if begun else "train", flush=True)
for step in range(begun, 20):
    time.sleep(0.02)
    kept.with_suffix(".new").write_text(str(step + 1))
    kept.with_suffix(".new").replace(kept)
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out", "model").write_text("20")
"""


def begin(folder):
    return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=folder, stdout=subprocess.PIPE, text=True)


def began(process):
    return time.monotonic()


@pytest.mark.parametrize("sent", killing.SIGNALS)
def test_a_killed_program_goes_on_to_the_same_files(tmp_path, sent):
    def kill(process):
        while not (tmp_path / "kept").exists():
            time.sleep(0.01)
        process.send_signal(sent)

    share, _ = killing.broken(lambda: begin(tmp_path), kill, began, seconds=0.4, share=0.2)
    assert share >= 0.2 and not (tmp_path / "out").exists()
    said, _ = begin(tmp_path).communicate()
    step, steps = killing.resumed(said)
    assert 0 < step < steps == 20
    found = killing.contents(tmp_path, ["out"])
    assert killing.compared({"out/model": b"20"}, found, "here") == 1


def test_what_had_ended_before_the_moment_was_not_killed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE, text=True)
    assert killing.broken(lambda: process, lambda _: pytest.fail("sent"), began, seconds=60, share=1.0) is None


@pytest.mark.parametrize("found", [{"a": b"2"}, {}, {"a": b"1", "b": b""}], ids=["other", "missing", "more"])
def test_other_files_are_an_error(found):
    with pytest.raises(killing.Wrong, match="kill 3: found other bytes"):
        killing.compared({"a": b"1"}, found, "kill 3")


def test_a_step_that_is_lost_after_a_stop_is_an_error():
    stopped, went_on = "train: stopped after step 7 of 9; the next", "train: resumed from step 7 of 9"
    assert killing.resumed(went_on, stopped) == (7, 9) and killing.resumed("", "") == (0, 0)
    with pytest.raises(killing.Wrong, match="stopped after step 7, and the next run began at step 0"):
        killing.resumed("", stopped)


def test_an_output_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(killing.Wrong, match="out: was not written"):
        killing.contents(tmp_path, ["out"])


def test_moments_are_keyed_and_the_table_has_each_kill():
    moments = [killing.drawn("pod", number) for number in range(10)]
    assert moments == [killing.drawn("pod", number) for number in range(10)] and len(set(moments)) == 10
    assert all(0 <= one < 1 for one in moments)
    made = kills.written([killing.Kill("pod", "erm", "SIGKILL", 0.5, 120, 240, 7)], "a machine")
    assert "| 1 | pod | erm | SIGKILL | 0.50 | 120 of 240 | 7 | yes |" in made
