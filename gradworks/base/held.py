"""A stage that DVC runs fails if DVC would record other inputs than the stage read.

DVC reads parameters and hashes dependencies after a stage has ended. An edit meanwhile would be recorded with outputs
of the old values, `dvc status` would call them up to date, and the run cache would spread them. So a stage records its
dependencies when it begins and compares them when it ends.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gradworks import base
from gradworks.base.errors import InputError
from gradworks.base.words import shown

_LARGE = 64 * 1024**2  # bytes; larger files are compared by size and time, not read
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
NOTHING = object()


class Held:
    """The current state of a stage's dependencies.

    Args:
        params: its params file, beside which dvc.yaml and cells.yaml lie.
        name: of the stage, as DVC gives it, `pipelines/sst5/dvc.yaml:train@clean-erm-gru-0`.
    """

    def __init__(self, params: Path, name: str) -> None:
        self._params = params
        self._depends, self._keys = Definition(params).declared(name)
        values = base.read_yaml(params)
        self._values = {key: at(values, key) for key in self._keys}
        self._files = self._look()

    def check(self) -> None:
        """Raises InputError that names a parameter or file that has changed."""
        values = base.fresh_yaml(self._params)
        for key, before in self._values.items():
            changed = _difference(key, before, at(values, key))
            if changed:
                raise InputError(f"{self._params}: {changed}\n{_AGAIN}")
        now = self._look()
        different = sorted(name for name in self._files.keys() | now.keys() if self._files.get(name) != now.get(name))
        if different:
            what = "is new" if different[0] not in self._files else "is gone" if different[0] not in now else "changed"
            raise InputError(f"{different[0]}: {what} since the stage began\n{_AGAIN}")

    def _look(self) -> dict[str, str]:
        return {path.as_posix(): _state(path) for one in self._depends for path in _files(Path(one))}


_AGAIN = "nothing is recorded, as the outputs are not those of what is there now; run it again"


def begin(arguments: Sequence[str]) -> Held | None:
    """The dependencies of a stage program with these arguments; None if DVC did not start it and records nothing."""
    name = os.environ.get("DVC_STAGE")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    params = parser.parse_known_args(arguments)[0].params
    return Held(params, name) if name and params.is_file() else None


class Definition:
    """The dvc.yaml beside a params file, its templates filled in as DVC does.

    Args:
        params: the params file.
    """

    def __init__(self, params: Path) -> None:
        self.values = base.read_yaml(params)
        try:
            self._stages = base.read_yaml(params.with_name("dvc.yaml"))["stages"]
            self._variables = base.read_yaml(params.with_name("cells.yaml")) | self.values
        except (KeyError, InputError):
            self._stages, self._variables = {}, {}

    def declared(self, name: str) -> tuple[list[str], list[str]]:
        """Paths from the root and keys of the params file that a stage depends on.

        If dvc.yaml lacks the stage: the code and the whole params file.
        """
        try:
            entry, variables = self._entry(name.rpartition(":")[2])
            depends = [_filled(one, variables) for one in entry.get("deps", ())]
            files = [one for one in entry.get("params", ()) if isinstance(one, dict)]
            keys = [_filled(key, variables) for one in files for named in one.values() for key in named]
        except (KeyError, TypeError, AttributeError):
            return [one for one in ("components", "gradworks") if Path(one).is_dir()], [""]
        return depends, list(dict.fromkeys(keys))

    def _entry(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The stage's entry, and the values of its variables."""
        group, _, key = name.partition("@")
        entry, variables = self._stages[group], self._variables
        if "foreach" in entry:
            many = at(variables, _VARIABLE.fullmatch(entry["foreach"])[1])  # type: ignore[index]
            variables = variables | {"key": key, "item": many[key]}
            entry = entry["do"]
        return entry, variables


def _filled(text: str, variables: dict[str, Any]) -> str:
    return _VARIABLE.sub(lambda found: str(at(variables, found[1], strict=True)), text)


def at(values: Any, key: str, strict: bool = False) -> Any:
    """The value of a dotted key; NOTHING (`strict`: KeyError) if there is none."""
    for part in filter(None, key.split(".")):
        if not isinstance(values, dict) or part not in values:
            if strict:
                raise KeyError(key)
            return NOTHING
        values = values[part]
    return values


def _difference(key: str, before: Any, now: Any) -> str:
    """`train.epochs: changed since the stage began: 40, now 2`, of the first value that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [*before, *(name for name in now if name not in before)]
        parts = (
            _difference(f"{key}.{name}".strip("."), before.get(name, NOTHING), now.get(name, NOTHING)) for name in names
        )
        return next(filter(None, parts), "")
    if type(before) is type(now) and before == now:
        return ""
    said = ["nothing" if one is NOTHING else shown(one) for one in (before, now)]
    return f"{key}: changed since the stage began: {said[0]}, now {said[1]}"


def _files(path: Path) -> Iterator[Path]:
    """The files that DVC would hash: without bytecode, and without DVC's .gitignore files."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [one for one in folders if one != "__pycache__"]
        yield from (Path(folder, one) for one in names if not one.startswith("."))


def _state(path: Path) -> str:
    try:
        about = path.stat()
        if about.st_size > _LARGE:
            return f"{about.st_size} {about.st_mtime_ns}"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
