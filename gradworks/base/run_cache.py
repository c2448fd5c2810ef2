"""Parameters that DVC's run cache does not see.

The key of a stage in the run cache leaves out everything called `size` or `nfiles`, which dvc.lock has of files: in the
values of parameters too (DVC 3.67, `_get_cache_hash`). After a change of `corrupt.splits.test.size` alone the stage
would be restored with the rows of before. A parameter of its own (`corrupt.splits.test.size`) is seen by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

UNSEEN = ("size", "nfiles")


def sizes(corrupt: Mapping[str, Any]) -> list[str]:
    """The parameters that the stages which read the splits have of their own. `corrupt`: that section."""
    return [path for key in ("splits", "parts") for path in _unseen(corrupt.get(key), f"corrupt.{key}")]


def refuse(params: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError where another parameter has a name that is not seen."""
    corrupt = values.get("corrupt")
    known = set(sizes(corrupt)) if isinstance(corrupt, Mapping) else set()
    for section, value in values.items():
        for path in () if str(section).startswith("x-") else _unseen(value, section):
            if path not in known:
                raise InputError(
                    f"{params}: {path}: found the name {path.rpartition('.')[2]!r}\n"
                    "expected another: DVC's run cache does not see a change of what is called so"
                )


def _unseen(value: Any, at: str) -> Iterator[str]:
    """The paths of the values that are called so."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if key in UNSEEN:
                yield f"{at}.{key}"
            else:
                yield from _unseen(inside, f"{at}.{key}")
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from _unseen(inside, f"{at}.{number}")
