"""Slices in the grid: which cells have heads for them, and the folder on which such a cell depends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

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
