"""Parameters are checked, and what is wrong is said in three lines at most, naming file and key."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from gradworks import base
from gradworks.base.errors import InputError

Rate = Annotated[float, Field(gt=0)]


class Inner(base.Section):
    share: float = Field(gt=0, le=1)
    to: Literal["any", "other"] = "any"


class Outer(base.Section):
    epochs: int = 1
    noise: Inner | None = None
    rate: Rate | dict[str, Rate] = 1.0


def test_numbers_that_yaml_gives_as_text_are_taken(params):
    path = params("train: {epochs: '3', noise: {share: ' 5e-1'}, rate: {gru: '1.e-2'}}\n")
    assert base.section(path, "train", Outer) == Outer(epochs=3, noise=Inner(share=0.5), rate={"gru": 0.01})
    assert base.section(params("train: {epochs: 3.0, rate: '2'}"), "train", Outer) == Outer(epochs=3, rate=2.0)
    assert base.optional(params("other: {}"), "train", Outer) == Outer()


@pytest.fixture
def params(tmp_path):
    def make(text):
        path = tmp_path / "params.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epochz: 3}", "train.epochz: unknown key; did you mean epochs?\nexpected one of: epochs, noise, rate"),
        ("train: {epochs: many}", "params.yaml: train.epochs: found 'many'"),
        ("train: {epochs: '3.5'}", "params.yaml: train.epochs: found '3.5'\nexpected a whole number"),
        ("train: {epochs: true}", "params.yaml: train.epochs: found true\nexpected a whole number"),
        ("train: {epochs: }", "params.yaml: train.epochs: found nothing\nexpected a whole number"),
        ("train: 3", "params.yaml: train: found 3\nexpected keys with values"),
        ("train: {noise: {share: .inf}}", "train.noise.share: found inf\nexpected a finite number"),
        ("train: {noise: {share: .nan}}", "train.noise.share: found nan\nexpected a finite number"),
        ("train: {noise: {share: -1}}", "params.yaml: train.noise.share: found -1\nexpected a number greater than 0"),
        ("train: {noise: {to: sideways, share: 1}}", "found 'sideways'\nexpected one of: any, other"),
        ("train: {noise: {to: otter, share: 1}}", "found 'otter'; did you mean other?\nexpected one of: any, other"),
        ("train: {rate: {gru: 0}}", "params.yaml: train.rate.gru: found 0\nexpected a number greater than 0"),
        ("train: {rate: fast}", "params.yaml: train.rate: found 'fast'\nexpected a number or keys with values"),
        ("train: {? {a: 1} : 2}", "line 1: a key that is no plain word"),
        ("train: {when: 2024-13-45}", "params.yaml: month must be in 1..12"),
        ("train: \a", "params.yaml: unacceptable character"),
        ("train: {noise: {share: 1.5}}", "params.yaml: train.noise.share: found 1.5"),
        ("train: {noise: {}}", "params.yaml: train.noise.share: missing"),
        ("trian: {}", "params.yaml: no key 'train'\nfound: trian"),
        ("train: {epochs: 1, epochs: 2}", "params.yaml: line 1: duplicate key 'epochs'"),
        ("train: {epochs: 1", "params.yaml: line 1"),
        ("- a list", "expected a mapping"),
        (b"train: {epochs: \xff}", "not UTF-8 at byte 16"),
        ("train: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_said(params, text, said):
    with pytest.raises(InputError) as error:
        base.section(params(text), "train", Outer)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_good_values(params):
    path = params("train: {noise: {share: 5e-1}}\na: {b: {c: 1e-3}}\n")
    assert base.section(path, "train", Outer).noise.share == 0.5
    assert base.value(path, "a.b.c") == 0.001  # YAML 1.1 would read text
    assert base.section(params("train:"), "train", Outer) == Outer()


PROGRAM = """
import sys, time
from gradworks import base
from gradworks.base.errors import InputError
def main():
    if sys.argv[1] == "error": raise InputError("a\\nb\\nc\\nd")
    if sys.argv[1] == "slow":
        with base.Stopping() as stop:
            print("ready", flush=True)
            while not stop(): time.sleep(0.01)
            print("asked", flush=True)
            time.sleep(2)
            raise SystemExit(128 + stop.signal)
    if sys.argv[1] == "flag":
        with base.Stopping() as stop:
            print("ready", flush=True)
            while not stop(): time.sleep(0.01)
            raise SystemExit(128 + stop.signal)
    print("ready", flush=True); time.sleep(30)
base.run(main)
"""


PROGRAM_IN_SHELL = f'{shlex.quote(sys.executable)} -c "$PROGRAM" flag{{after}}'


def start(what):
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_error_has_three_lines_and_no_traceback():
    process = start("error")
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (2, "error: a\nb\nc\n")


def test_a_second_sigterm_leaves_a_stage_its_time_and_a_second_ctrl_c_ends_it():
    for first, second, code, slept in (
        (signal.SIGTERM, signal.SIGTERM, 143, True), (signal.SIGINT, signal.SIGTERM, 130, True),
        (signal.SIGINT, signal.SIGINT, 130, False), (signal.SIGTERM, signal.SIGINT, 130, False),
    ):  # fmt: skip
        process = start("slow")
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "asked\n"
        begun = time.monotonic()
        process.send_signal(second)
        process.communicate(timeout=30)
        assert process.returncode == code and (time.monotonic() - begun > 1.5) == slept, (first, second)


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [("wait", signal.SIGINT, 130), ("wait", signal.SIGTERM, 143), ("flag", signal.SIGINT, 130)],
)
def test_signals_end_quietly(what, number, code):
    process = start(what)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in error


@pytest.mark.parametrize("after", ["", "; true"])
def test_a_stage_whose_dvc_was_killed_stops_whether_or_not_a_shell_stands_between(after):
    """With a command after it every shell stays; without one some put the program in their place."""
    parent = f"import subprocess; subprocess.run({PROGRAM_IN_SHELL.format(after=after)!r}, shell=True)"
    env = {**os.environ, "PYTHONPATH": str(Path.cwd()), "DVC_STAGE": "train", "PROGRAM": PROGRAM}
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    process.kill()
    ended = threading.Event()  # the pipe ends with the last process that holds it
    threading.Thread(target=lambda: (process.stdout.read(), ended.set()), daemon=True).start()
    try:
        assert ended.wait(20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "text",
    ["a: {b: 1e-3, c: [1, on, 0x1f, 2024-01-01, ~]}\n", "x: &x {a: 1}\ny: {<<: *x, b: 'é\\n'}\nz: |\n  two\n  lines\n"],
)
def test_the_fast_parser_reads_what_the_plain_one_does(text):
    assert base.parse_yaml(text, "p") == yaml.load(text, base._Unique)  # noqa: S506


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: [1\nb: 2\n", "a: b: c\n", "a: *x\n", "a: \x07\n", "a: 2024-13-01\n"]
)
def test_what_is_wrong_is_said_in_the_plain_parsers_words(text, monkeypatch):
    with pytest.raises(InputError) as fast:
        base.parse_yaml(text, "p")
    monkeypatch.setattr(base, "_Fast", base._Unique)
    with pytest.raises(InputError) as plain:
        base.parse_yaml(text, "p")
    assert str(fast.value) == str(plain.value)
