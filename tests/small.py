"""The smallest parameters with which every stage has something to do, and a stage's program run here."""

import copy
import importlib
import shlex
from pathlib import Path

import pytest

from gradworks import parameters
from gradworks.base import artifacts, cells
from gradworks.cost import hardware
from gradworks.store import stages

# what makes a folder a project; a process that starts in it must find the programs, too
PROGRAMS = Path(__file__).parent.parent / "components"
# of a measurement whose figures no test reads: few periods and batches
FEW = {"_WARM_UP": 1, "_COUNTED": 2}
BYTES = {"memory": {"ratio": 1.0, "plain_bytes": 1, "method_bytes": 1}}


def run(name, *args, **constants):
    """The program components/NAME.py in this process, with these arguments and constants of its module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *map(str, args)])
        program = importlib.import_module(f"components.{name}")
        for constant, value in constants.items():
            patch.setattr(program, constant, value)
        getattr(program, "_benches", {}).clear()  # of `measure`, for its own process: of another project here
        program.main()


def run_all(params):
    """Every stage of the dvc.yaml of a params file, in this process, upstream first; returns what the report holds."""
    parameters.check(params, data=True)
    cells.write(params)
    hardware.write(params)
    Path(".dvc").mkdir(exist_ok=True)  # in the root of the project
    constants: dict[str, object] = FEW
    for stage in stages.load(params.with_name("dvc.yaml")).values():
        _, _, program, *args = shlex.split(stage.cmd)
        name = program.removeprefix("components.")
        run(name, *args, **(constants if name == "measure" else {}))
        if name == "measure":  # peak memory, which takes processes of its own, of the first one only
            constants = {**FEW, "_memory": lambda bench: copy.deepcopy(BYTES)}
    return artifacts.read_json(params.parent / "report/results.json")


SMALL = {
    "root": ".", "here": "", "threads": 1, "device": "cpu", "gpu": {"kind": "a100", "count": 0}, "task": "nli",
    "fetch": {
        "synthetic": {"from": "synthetic:nli", "seed": 1, "rows": {"train": 480, "validation": 160, "test": 160}},
    },
    "corrupt": {
        "splits": {
            "train": {"from": "synthetic/train"},
            "clean": {"from": "synthetic/validation", "size": 40, "where": {"set": "challenge"}},
            "selection": {"from": "synthetic/validation", "size": 60},
            "test": {"from": "synthetic/test"},
        },
        "conditions": {"noise": {"noise": {"share": 0.5}}},
    },
    "pretrain": {
        "gru": {"model": "gru", "lowercase": True, "vocabulary": 400, "embedding": 16, "hidden": 16, "dropout": 0.2},
    },
    "methods": {"erm": {}, "dotprod": {"update": {"dotprod": {"weight": 0.1}}}},
    "train": {"epochs": 4, "batch": 8, "clean_batch": 4, "max_length": 32, "learning_rate": 1e-3},
    "measure": {"pairs": [9, 9], "half_width": 1.0},
    "evaluate": {"by": ["set", "heuristic"]},
    "report": {"title": "Small", "primary": {"metric": "accuracy", "where": {"set": "challenge"}}},
    "cells": {"seeds": [0], "grid": [{"condition": ["noise"], "method": ["erm", "dotprod"], "encoder": ["gru"]}]},
    "ensemble": [],
}  # fmt: skip
