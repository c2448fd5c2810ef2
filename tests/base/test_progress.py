"""Progress: a bar with rate and time left on a terminal, at most one plain line in 30 seconds elsewhere."""

import os
import pty
import subprocess
import sys
import termios
import threading

import pytest

from gradworks.base import progress
from gradworks.base.progress import Progress

PROGRAM = """
import time
from gradworks.base.progress import Progress
with Progress("fetch", 5, "step") as bar:
    for i in range(5):
        time.sleep(0.15)
        bar.advance(loss=1 / (i + 1))
print("done")
"""


@pytest.mark.parametrize("size", [(0, 0), (24, 100)])
def test_on_a_terminal_it_shows_rate_and_time_left(size):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    text = []

    def read():
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the last writer has closed
                return
            if not part:
                return
            text.append(part.decode())

    reader = threading.Thread(target=read)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs)
    os.close(theirs)
    reader.start()
    assert process.wait(30) == 0
    reader.join(30)
    os.close(ours)
    shown = "".join(text)
    assert "\r" in shown and "fetch" in shown and "loss=" in shown
    assert any("step/s" in part or "s/step" in part for part in shown.split("\r"))
    assert any("<00:0" in part for part in shown.split("\r"))  # elapsed<left


def test_piped_it_writes_no_carriage_return_and_is_quiet():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"done\n" and done.stderr == b""


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(progress, "_said", float("-inf"))
    return Clock


def test_piped_it_writes_one_line_in_30_seconds(clock, capsys):
    with Progress("train", 300, "step", start=100) as bar:
        for _ in range(100):
            clock.now += 0.9
            bar.advance(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 134 of 300 step, 1.11 step/s, 2:29 left, loss 0.25"
    assert len(lines) == 2 and "\r" not in "".join(lines)  # 90 seconds; a bar's first 30 are silent


def test_piped_bars_inside_one_another_share_the_30_seconds(clock, capsys):
    with Progress("outer", None, "row") as outer, Progress("inner", None, "row") as inner:
        for _ in range(4):
            clock.now += 16
            inner.advance()
            outer.advance()
    assert capsys.readouterr().err == "inner: 2 row, 0.0625 row/s\ninner: 4 row, 0.0625 row/s\n"


def test_bytes_and_no_rate(clock, capsys):
    with Progress("fetch", 250_000_000, "B") as bar:
        clock.now += 40
        bar.advance(0)
        clock.now += 60
        bar.advance(100_000_000)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "fetch: 0 B of 250 MB, 0 B/s"
    assert second == "fetch: 100 MB of 250 MB, 1 MB/s, 2:30 left"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (60, "1:00"), (3785, "1:03:05")])
def test_time_left(seconds, text):
    assert progress._clock(seconds) == text
