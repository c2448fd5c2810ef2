"""Two processes through components.train are one process with two micro-batches, byte for byte."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.components.test_mixture import contents, values, write
from tests.small import run

ROOT = Path(__file__).parents[2]
SLOTS = {"objective": "objectives", "weighting": "weightings", "update": "updates"}
ENTRIES = {
    f"{slot}-{file.stem}": {slot: file.stem}
    for slot, folder in SLOTS.items()
    for file in sorted((ROOT / "gradworks/methods" / folder).glob("[!_]*.py"))
}
MIXTURES = (None, "both")
# of a mixture whose second task is a regression, with the words of the refusal
REFUSED = {("objective-label_smoothing", "both"): "smoothed", ("weighting-class_ratio", "both"): "class"}

pytestmark = pytest.mark.slow("starts two processes")


def folder_of(method, mixture, where):
    return Path(f"{where}/{mixture or 'alone'}-{method}")


def arguments(method, mixture, where):
    folder = folder_of(method, mixture, where)
    mixed = ["--mixture", mixture] if mixture else []
    return ["--method", method, "--seed", "0", "--data", "runs/corrupt/noise/0", "--start", "runs/pretrain/gru",
            "--out", f"{folder}/run", "--model", f"{folder}/model", *mixed]  # fmt: skip


def ports(count):
    free = [socket.socket() for _ in range(count)]
    try:
        for one in free:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in free]
    finally:
        for one in free:
            one.close()


def started(cells):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.components.rank", str(rank), cells], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) for rank in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every entry and mixture, trained by one process and by two; the refusals of one."""
    folder, before = tmp_path_factory.mktemp("ranks"), Path.cwd()
    os.chdir(folder)
    write(folder / "data/mine")
    made = copy.deepcopy(values())
    made["methods"] = ENTRIES | {"long": {"update": "dotprod"}}
    made["train"] |= {"epochs": 0.2, "batch": 8, "micro_batch": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(made))
    for source in ("synthetic", "mine"):
        run("fetch", "--source", source, "--out", f"runs/fetch/{source}")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    refused, cells = {}, []
    for method in ENTRIES:
        for mixture in MIXTURES:
            try:
                run("train", *arguments(method, mixture, "one"))
                cells.append((method, mixture))
            except (InputError, ValueError) as error:
                refused[method, mixture] = str(error)
    listed = [(port, arguments(*cell, "two")) for port, cell in zip(ports(len(cells)), cells, strict=True)]
    Path("cells.json").write_text(json.dumps(listed))
    said = [rank.communicate(timeout=500)[0] for rank in started("cells.json")]
    yield refused, said
    os.chdir(before)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("method", ENTRIES)
def test_two_processes_are_one_with_two_micro_batches(trained, method, mixture):
    refused, said = trained
    if (method, mixture) in refused:
        assert REFUSED[method, mixture] in refused[method, mixture]
        return
    one, two = (folder_of(method, mixture, where) for where in ("one", "two"))
    assert two.is_dir(), said[0][-2000:]
    assert artifacts.read_json(one / "run/status.json")["steps"] >= 3
    assert contents(two) == contents(one)


def test_nothing_else_is_refused(trained):
    assert set(trained[0]) == set(REFUSED)


def test_two_processes_of_which_one_is_stopped_go_on_to_the_same_bytes(trained):
    """SIGTERM reaches one rank alone; the checkpoint is of both, and the next run resumes from it."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train"]["epochs"] = 6
    Path("params.yaml").write_text(yaml.safe_dump(params))
    run("train", *arguments("long", "both", "one"))

    def again():
        Path("long.json").write_text(json.dumps([(ports(1)[0], arguments("long", "both", "two"))]))
        return started("long.json")

    ranks, checkpoints = again(), Path(".gradworks/checkpoints")
    until = time.monotonic() + 120
    while not list(checkpoints.rglob("state.pt")) and time.monotonic() < until:
        time.sleep(0.01)
    ranks[1].send_signal(signal.SIGTERM)
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [143, 143], said
    ranks = again()
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0] and "resumed from step" in said[0], said
    assert contents(folder_of("long", "both", "two")) == contents(folder_of("long", "both", "one"))
