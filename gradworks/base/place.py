"""The position of a params file in the checkout: stages run at the root, outputs are beside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

_NO_FOLDER = "$\\"  # in DVC's templates
_LEAVE = "leave root and here out: `gradworks cells` finds them"


def place(params: Path, values: Mapping[str, Any]) -> tuple[Path, str]:
    """The checkout's root, and the params file's folder relative to it, with a trailing slash.

    Args:
        params: the params file, at its real path.
        values: what it holds; `root` and `here` may be among them.

    Raises:
        InputError: they are those of another folder, as in a copy, or the folder's name does not work in a command.
    """
    folder = params.absolute().parent.resolve()
    given = values.get("root")
    if given is None:  # the nearest folder above with the stage programs
        top = next((one for one in (folder, *folder.parents) if (one / "components").is_dir()), folder)
    else:
        top = (folder / str(given)).resolve()
    if not folder.is_relative_to(top):
        raise InputError(f"{params}: root: found {given!r}, which is no folder above this file\n{_LEAVE}")
    here = "" if folder == top else f"{folder.relative_to(top).as_posix()}/"
    if values.get("here") not in (None, here):
        raise InputError(f"{params}: here: found {values['here']!r}, expected {here!r}: the file lies there\n{_LEAVE}")
    wrong = next((c for c in here if c in _NO_FOLDER or not c.isprintable()), None)
    if wrong:
        raise InputError(f"{params}: its folder {here!r} has {wrong!r} in its name\nrename it: DVC's commands hold it")
    return top, here
