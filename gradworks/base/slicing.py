"""Slices and weak labels in the grid: which cells have heads for slices, and on what the stages depend."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradworks.base import names, words
from gradworks.base.errors import InputError

# DVC has no optional dependencies: an item without a file of its own depends on one that always exists
ALWAYS_PRESENT = "versions.json"


def check(slices: Sequence[str] | None, parts: Sequence[str], values: Mapping[str, Any], where: str) -> None:
    """Raises InputError if a mixture has slices and params.yaml none, or they are of a task that it lacks, or twice."""
    if not slices:
        return
    if "slice" not in values:
        raise InputError(f"{where}.slices: found {slices}\nexpected a section `slice` that has them")
    if values.get("task") not in parts:
        raise InputError(f"{where}.slices: they are of {values.get('task')}\nexpected it among the parts")
    if len(set(slices)) < len(slices):
        raise InputError(f"{where}.slices: found {slices}\nexpected each once")


def item(mixture: Any, cell: Mapping[str, Any], here: str) -> dict[str, str]:
    """The folder that a cell with heads for slices depends on, and the option that names it."""
    if not mixture or not mixture.slices:
        return {"slices": ALWAYS_PRESENT, "sliced": ""}
    folder = f"{here}runs/slice/{cell['condition']}/{cell['seed']}"
    return {"slices": folder, "sliced": f" --slices {shlex.quote(folder)}"}


def labels(params: Path, values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The items of the stage `label`: name -> the file of its functions. InputError for a name that a source has."""
    where, given = f"{params}: label", values["label"]
    if not isinstance(given, dict) or not given:
        raise InputError(f"{where}: found {words.shown(given)}\nexpected names, each with file and from")
    names.check(given, where)
    for name, one in given.items():
        if name in values["fetch"]:
            raise InputError(f"{where}.{name}: a source of fetch has this name\nexpected another one")
        if not isinstance(one, dict) or not isinstance(one.get("file"), str):
            raise InputError(f"{where}.{name}.file: missing\nexpected Python with labelling functions")
    return {name: {"file": one["file"]} for name, one in given.items()}
