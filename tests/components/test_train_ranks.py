"""Two gloo processes through `components.train` are one process with two micro-batches, byte for byte.

Every entry of every slot, found by listing the folders, on one task and on a mixture of two.
"""

import contextlib
import copy
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from components import train
from gradworks.base import artifacts
from tests.components.ranks import MEMORY, Cell, Ended, ended
from tests.methods.shipped import STAR
from tests.small import SMALL, run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow("starts processes")

FILES = ("history.parquet", "weights.parquet", "statistics.parquet", "status.json", "manifest.json")
MIXTURES = (None, "both")
OWN = {  # what reads whole batches, several of them, or random numbers
    "erm-2": {"weighting": "reweight", "update": {"erm": {"batches": 2}}},
    "dotprod-exact": {"update": {"dotprod": {"form": "exact"}}},
    "smart-reweight-reptile": {"objective": "smart", "weighting": "reweight", "update": "reptile"},
    "rdrop-reweight": {"objective": "rdrop", "weighting": "reweight"},
    "head": {"weighting": {"reweight": {"backend": "head"}}},
    "kept": {"weighting": {"reweight": {"clean_every": 3, "clean_momentum": 0.5}}},
    "dotprod-2": {"objective": "label_smoothing", "update": "dotprod"},
    "clean": {"train_on": ["train", "clean"], "weighting": "class_ratio", "update": "sam"},
}
METHODS = {"-".join(triple): dict(zip(("objective", "weighting", "update"), triple, strict=True)) for triple in STAR}
METHODS |= OWN
CELLS = [(method, mixture) for method in METHODS for mixture in MIXTURES]

REFUSED = {  # on a mixture of which one task has no classes
    "label_smoothing-uniform-erm": "objective label_smoothing: needs smoothed(...) of a task, and task 'worth'",
    "supervised-class_ratio-erm": "class_ratio: found float32 labels of shape (4,) in task 'worth'",
}
ALWAYS = ("dotprod-2", None)  # which torchrun trains too
TOKENS = ["erm-2", "smart-reweight-reptile", "dotprod-2"]  # which train on batches of a budget too
# a checkpoint has the distance of a difference, the state of an update, and counters of each part
STOPPED = [("erm-2", None), ("smart-reweight-reptile", "both"), ("supervised-reweight-erm", "both"), ("kept", "both")]


def values(**train):
    """Last batches of 6 and of 2 examples: two micro-batches, or one that all ranks compute."""
    made = copy.deepcopy(SMALL)
    made["tasks"] = {"mood": {"kind": "classification", "texts": ["text"], "classes": ["bad", "good"]}}
    made["tasks"]["mood"]["metrics"] = ["accuracy"]
    made["fetch"]["synthetic"]["rows"] = {"train": 120, "validation": 160, "test": 40}
    made["tasks"]["worth"] = {"kind": "regression", "texts": ["text"], "metrics": ["pearson"]}
    made["fetch"]["mine"] = {"from": "file:data/mine", "task": "mood"}
    made["fetch"]["valued"] = {"from": "file:data/valued", "task": "worth"}
    made["corrupt"]["parts"] = {
        task: {
            "train": {"from": f"{source}/train"}, "clean": {"from": f"{source}/validation", "size": 24},
            "selection": {"from": f"{source}/validation", "size": 24}, "test": {"from": f"{source}/test"},
        } for task, source in (("mood", "mine"), ("worth", "valued"))
    }  # fmt: skip
    made["corrupt"]["splits"]["train"] = {"from": "synthetic/train", "size": 62}
    made["corrupt"]["splits"]["selection"]["size"] = 30
    # of clean batches, both ranks compute all; of `both`, a micro-batch each
    made["train"] |= {"epochs": 1, "micro_batch": 4, "clean_batch": 4, "select": {"every": 0.5}} | train
    made["methods"] = METHODS
    made["mixtures"] = {
        name: {"parts": ["nli", task], "schedule": "round_robin", "select": "mean"}
        for name, task in (("both", "mood"), ("valued", "worth"))
    }
    return made


def write(folder, labels):
    folder.mkdir(parents=True)
    for name, rows in (("train", 34), ("validation", 64), ("test", 32)):
        texts = (f"{('poor', 'fine')[i % 2]} {('film', 'book', 'play')[i % 3]} of {name} {i},{labels[i % 2]}"
                 for i in range(rows))  # fmt: skip
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *texts]) + "\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("ranks"), Path.cwd()
    os.chdir(folder)
    write(folder / "data/mine", ("bad", "good"))
    write(folder / "data/valued", (-0.5, 1.0))
    (folder / "params.yaml").write_text(yaml.safe_dump(values()))
    (folder / "uneven.yaml").write_text(yaml.safe_dump(values(micro_batch=8)))
    (folder / "both.yaml").write_text(yaml.safe_dump(values(clean_batch=8)))
    # most batches in two parts of unequal size; of one example, which all ranks compute
    tokens = {"batch": {"tokens": 96}, "micro_batch": {"tokens": 48}}
    (folder / "tokens.yaml").write_text(yaml.safe_dump(values(epochs=1.5, **tokens)))
    for source in ("synthetic", "mine", "valued"):
        run("fetch", "--source", source, "--out", f"runs/fetch/{source}")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    yield folder
    os.chdir(before)


def arguments(method, mixture, out, params=None):
    folder = f"{out}/{mixture}-{method}"
    made = ["--params", params or ("both.yaml" if mixture else "params.yaml"), "--method", method, "--seed", "0"]
    made += ["--data", "runs/corrupt/noise/0", "--start", "runs/pretrain/gru"]
    made += ["--out", f"{folder}/run", "--model", f"{folder}/model"]
    return made + (["--mixture", mixture] if mixture else [])


def two(folder, cells):
    """How each cell ended on each of two ranks."""
    Path("cells.json").write_text(json.dumps([dataclasses.asdict(cell) for cell in cells]))
    command, environment = [sys.executable, "-m", "tests.components.ranks"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(Path(f"rank{rank}.txt").open("w+")) for rank in (0, 1)]
        processes = [
            subprocess.Popen([*command, str(rank), "2", str(folder / "store"), "cells.json"], stdout=file,
                             env=environment)
            for rank, file in enumerate(files)
        ]  # fmt: skip
        for process in processes:
            stack.callback(process.kill)
        until = time.monotonic() + 240
        while None in (codes := [process.poll() for process in processes]):  # one that failed leaves the other waiting
            assert set(codes) <= {None, 0} and time.monotonic() < until, codes
            time.sleep(0.05)
        assert codes == [0, 0]
    said = [Path(f"rank{rank}.txt").read_text() for rank in (0, 1)]
    return zip(*([Ended(**one) for one in json.loads(text.splitlines()[-1])] for text in said), strict=True)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def differ(one, two):
    """The files of two cells that differ, of all that a cell writes."""
    first, second = contents(one), contents(two)
    assert first.keys() == second.keys() >= {"model/model.safetensors", *(f"run/{name}" for name in FILES)}
    return [name for name in first if first[name] != second[name]]


@pytest.fixture(scope="module")
def sides(project, request):
    """How each cell ended in one process, and all others, by name, on each of two ranks; of the tests that are run."""
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    asked = {(params.get("method"), params.get("mixture")) for params in asked} | {ALWAYS}
    chosen = [cell for cell in CELLS if cell in asked]
    one = [ended(Cell(arguments(*cell, "one"))) for cell in chosen]
    cells = {cell: Cell(arguments(*cell, "two")) for cell in chosen}
    for cell in (cell for cell in STOPPED if cell in asked):
        made = arguments(*cell, "stopped")
        cells |= {(*cell, "stopped"): Cell(made, "SIGTERM", rank=1, steps=2), (*cell, "resumed"): Cell(made)}
    for method in TOKENS:
        ended(Cell(arguments(method, None, "tokens-one", params="tokens.yaml")))
        cells["tokens", method] = Cell(arguments(method, None, "tokens-two", params="tokens.yaml"))
    # last of those that train: its collectives may be left half done
    for rank in (0, 1):
        cells["OOM", rank] = Cell(arguments("erm-2", None, f"oom{rank}"), "OOM", rank, steps=3)
    for method in REFUSED:
        cells["refused", method] = Cell(arguments(method, "valued", "refused"))
    cells["uneven"] = Cell(arguments("erm-2", None, "uneven", params="uneven.yaml"))
    return dict(zip(chosen, one, strict=True)), dict(zip(cells, two(project, cells.values()), strict=True))


@pytest.mark.parametrize(("method", "mixture"), CELLS)
def test_two_processes_are_two_micro_batches_byte_for_byte(sides, method, mixture):
    alone, (first, second) = (side[method, mixture] for side in sides)
    assert {(one.refused, one.code) for one in (alone, first, second)} == {("", 0)}
    assert (alone.written, first.written, second.written) == (1, 1, 0)
    assert differ(*(f"{side}/{mixture}-{method}" for side in ("one", "two"))) == []
    status = artifacts.read_json(Path(f"two/{mixture}-{method}/run/status.json"))
    assert status["state"] in ("ok", "not converged") and status["steps"] >= 2


@pytest.mark.parametrize("method", TOKENS)
def test_two_processes_share_the_batches_of_a_budget(sides, method):
    assert [(one.refused, one.code, one.written) for one in sides[1]["tokens", method]] == [("", 0, 1), ("", 0, 0)]
    assert differ(*(f"tokens-{side}/None-{method}" for side in ("one", "two"))) == []
    history = artifacts.read_parquet(Path(f"tokens-two/None-{method}/run/history.parquet"))["examples"].to_pylist()
    assert len({b - a for a, b in itertools.pairwise(history)}) > 2


@pytest.mark.parametrize(("method", "mixture"), STOPPED)
def test_one_rank_is_asked_to_stop_all_do_and_go_on_to_the_same_bytes(sides, method, mixture):
    stopped, resumed = (sides[1][method, mixture, when] for when in ("stopped", "resumed"))
    assert [(one.code, one.written) for one in stopped] == [(143, 0), (143, 0)]
    assert "stopped after step 3 of" in stopped[0].printed and "stopped" not in stopped[1].printed
    assert [(one.code, one.written) for one in resumed] == [(0, 1), (0, 0)]
    assert "resumed from step 3 of" in resumed[0].printed
    assert differ(*(f"{side}/{mixture}-{method}" for side in ("one", "stopped"))) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_out_of_memory_on_one_rank_is_the_state_of_all_and_written_once(sides, rank):
    first, second = sides[1]["OOM", rank]
    assert [(one.refused, one.code, one.written) for one in (first, second)] == [("", 0, 1), ("", 0, 0)]
    status = artifacts.read_json(Path(f"oom{rank}/None-erm-2/run/status.json"))
    assert (status["state"], status["reason"]) == ("OOM", MEMORY)
    assert not Path(f"oom{rank}/None-erm-2/model/model.safetensors").exists()
    artifacts.check(Path(f"oom{rank}/None-erm-2/model"))


@pytest.mark.parametrize("method", REFUSED)
def test_what_one_process_refuses_all_ranks_do_in_the_same_words(sides, method):
    alone = ended(Cell(arguments(method, "valued", "refused"))).refused
    assert REFUSED[method] in alone and len(alone.splitlines()) <= 3
    assert [one.refused for one in sides[1]["refused", method]] == [alone, alone]
    assert not Path("refused").exists()


def test_micro_batches_that_do_not_divide_are_refused_in_words_on_all_ranks(sides):
    for one in sides[1]["uneven"]:
        assert one.refused == (
            "train.micro_batch: found 8, which makes 1 of a batch of 8\n"
            "expected as many for each of 2 processes, as 4 would make"
        )
    assert not Path("uneven").exists()


def test_torchrun_starts_them_in_the_documented_spelling(sides):
    from torch.distributed import run as torchrun

    listed = [*train.__doc__.split("torchrun ")[1].split(" --method")[0].split(), *arguments(*ALWAYS, "cli")]
    subprocess.run([sys.executable, torchrun.__file__, *listed], check=True, timeout=240,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert differ("one/None-dotprod-2", "cli/None-dotprod-2") == []
