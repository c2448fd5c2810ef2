"""The rule for names of sources, conditions, encoders and methods.

A name is used in command lines, folders, DVC stage names, dotted keys and labels. What YAML reads as a number, a date
or a truth value is not a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gradworks.base.errors import InputError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
LONGEST = 60  # characters; a cell's name has three of them and a seed
_EXPECTED = "expected a letter, then letters, digits, _, + and -"
_REASONS = {
    ".": "a dot in it, and DVC takes keys apart at dots",
    "@": "@ in it, which DVC has between a stage and its cell",
    "/": "/ in it, and a name becomes one folder",
    " ": "a blank in it, and a name becomes one word of a command",
}


def check(names: Iterable[Any], where: str) -> None:
    """Raises InputError with the reason if a name of a section is invalid. `where`: file and section."""
    seen: dict[str, str] = {}
    for name in names:
        reason = _reason(name)
        if reason:
            raise InputError(f"{where}: found the name {name!r}: {reason}\n{_EXPECTED}{_instead(name)}")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"{where}: found the names {other!r} and {name!r}\nexpected names that differ in more than capitals, "
                "as some file systems have one folder for both"
            )


def _reason(name: Any) -> str:
    if not isinstance(name, str):
        kind = {bool: "a truth value", type(None): "nothing", int: "a number", float: "a number"}.get(type(name))
        return f"to YAML that is {kind or 'a ' + type(name).__name__}"
    if _NAME.fullmatch(name):
        return f"{len(name)} characters are too many, {LONGEST} the most" if len(name) > LONGEST else ""
    wrong = next((c for c in name if not re.fullmatch(r"[A-Za-z0-9_+-]", c)), None)
    if wrong is None:
        return "it begins with no letter" if name else "it is empty"
    return _REASONS.get(wrong, f"{wrong!r} in it")


def _instead(name: Any) -> str:
    """`; for example sam-0_05`, if a similar valid name is easily found."""
    word = {True: "yes", False: "no"}.get(name) if isinstance(name, bool) else str(name)
    made = re.sub(r"[^A-Za-z0-9_+-]+", "_", str(word)).strip("_")
    made = made if made[:1].isalpha() else f"x{made}"
    return f"; for example {made}" if name is not None and 1 < len(made) <= LONGEST else ""
