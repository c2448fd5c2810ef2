"""Which cells' results are of the parameters and code that are there now, by dvc.lock and without running DVC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradworks.base import fresh_yaml
from gradworks.base.errors import InputError
from gradworks.base.held import Definition, at
from gradworks.base.place import place


def outdated(params: Path) -> set[str]:
    """Paths of the cells whose entries in dvc.lock, or those of a stage above, are of something else.

    Compared are parameters, single files, and what a stage read with what the stage above wrote. A cell without an
    entry is not among them.

    Args:
        params: the params file, beside which dvc.lock and cells.yaml lie.
    """
    try:
        lock = fresh_yaml(params.with_name("dvc.lock")).get("stages") or {}
    except InputError:  # none yet, or one that DVC is writing
        return set()
    each = fresh_yaml(params.with_name("cells.yaml"))["each"]
    look = _Look(params, lock)
    return {cell["path"] for key, cell in each["train"].items() if not all(map(look.fits, _above(key, cell, each)))}


def _above(key: str, cell: dict[str, Any], each: dict[str, Any]) -> Iterator[str]:
    """The stages that a cell's result comes from."""
    yield from (f"fetch@{source}" for source in each["fetch"])
    yield from (f"label@{name}" for name in each.get("label", ()))
    yield f"corrupt@{cell['condition']}-{cell['seed']}"
    if "slices" in cell:
        yield f"slice@{cell['condition']}-{cell['seed']}"
    yield f"pretrain@{cell['encoder']}"
    before = cell["start"].removeprefix("models/")
    if before != cell["start"]:
        yield f"train@{before.replace('/', '-')}"
    yield from (f"train@{key}", f"evaluate@{key}")


class _Look:
    def __init__(self, params: Path, lock: dict[str, Any]) -> None:
        self._definition, self._lock = Definition(params), lock
        self._top = place(params, self._definition.values)[0]
        self._folder = params.absolute().parent.resolve()
        self._made = {
            self._path(out["path"]): out.get("md5") for entry in lock.values() for out in entry.get("outs", ())
        }
        self._known: dict[str, bool] = {}
        self._hashes: dict[Path, str | None] = {}

    def fits(self, name: str) -> bool:
        """Whether a stage's entry is of what is there now; true where it has none."""
        if name not in self._known:
            self._known[name] = name not in self._lock or self._fits(name, self._lock[name])
        return self._known[name]

    def _fits(self, name: str, entry: dict[str, Any]) -> bool:
        depends, keys = self._definition.declared(name)
        recorded = {key: value for one in (entry.get("params") or {}).values() for key, value in one.items()}
        if {key: at(self._definition.values, key) for key in keys} != recorded:
            return False
        before = {self._path(one["path"]): one.get("md5") for one in entry.get("deps", ())}
        if {(self._top / one).resolve() for one in depends} != before.keys():
            return False
        return all(self._same(path, md5) for path, md5 in before.items())

    def _path(self, path: str) -> Path:
        return (self._top / path).resolve()  # dvc.lock has paths from wdir, which is the root

    def _same(self, path: Path, md5: str | None) -> bool:
        if path in self._made:
            return self._made[path] == md5
        if path.is_file() and path.suffix in (".py", ".yaml", ".json"):
            if path not in self._hashes:
                self._hashes[path] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            return self._hashes[path] == md5
        return True
