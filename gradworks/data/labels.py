"""What the value of a label column stands for: a class by its name, by what the source says, or by its index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.tasks import Row

# SNLI and MNLI without a majority; the hub's mark; what pandas and others write for nothing; test sets
_NONE = {"-", "-1", "", "none", "null", "nan", "na", "n/a", "<na>", "hidden", "?"}
_KEPT = 10_000  # values that are remembered
Read = tuple[str, tuple[str | float | None, bool] | None]
_YAML = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # YAML reads these keys as true and false


def form(raw: Any) -> str:
    """One spelling for values that people mean alike: 1, 1.0, "1" and " 1.0 "; True, "TRUE" and "true"; None and ""."""
    text = "" if raw is None else str(raw).strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def _name(text: str) -> str:
    """`Non-entailment` and `not entailment` are `not_entailment`."""
    return re.sub(r"^non_", "not_", re.sub(r"[\s_-]+", "_", text.strip().casefold()))


def reader(row: Row, given: Mapping[str, str | float] | None = None) -> Callable[[Any], Read]:
    """`of` with a memory, for a whole column: the key of a value, its label, whether it is one by its name; or None
    in the place of these two where the value is no label.
    """
    known: dict[tuple[type, Any], Read] = {}

    def read(raw: Any) -> Read:
        kind = (type(raw), raw)
        if isinstance(raw, str | int | None) and kind in known:
            return known[kind]
        try:
            found: Read = (form(raw), of(row, raw, given))
        except ValueError:
            found = (form(raw), None)
        if isinstance(raw, str | int | None) and len(known) < _KEPT:
            known[kind] = found
        return found

    return read


def of(row: Row, raw: Any, given: Mapping[str, str | float] | None = None) -> tuple[str | float | None, bool]:
    """The label that a value stands for, None when it says that there is none; and whether it is one by its name.

    Class names stand for themselves (so do the finer ones that the task collapses). `True` and `False` are the classes
    of these names, or a class and the one that is called `not_` it. Whole numbers are class indices.

    Args:
        row: the task.
        raw: the value.
        given: what the source says: `form` of a value, and its label. Then no number is an index.

    Raises:
        ValueError: it is no label of the task.
    """
    key = form(raw)
    if given:
        said = given.get(key, given.get(_YAML.get(key, key)))
        if said is not None:
            return said, False
    if row.classes is not None:
        text = _name(str(raw))
        for known in (*row.classes, *row.collapse):
            if text == _name(known):
                return known, True
    if key in _NONE:
        return None, True
    if row.classes is None:
        value = float(key)  # raises ValueError, for True too
        if value in (float("inf"), float("-inf")):
            raise ValueError
        return value, True
    if given:
        raise ValueError
    if key in ("true", "false"):
        for known in row.classes:
            if len(row.classes) == 2 and f"not_{known}" in row.classes:
                return (known if key == "true" else f"not_{known}"), False
        raise ValueError
    if key.isascii() and key.isdigit() and int(key) < len(row.classes):
        return row.classes[int(key)], False
    raise ValueError


def expected(row: Row, given: Mapping[str, str | float] | None = None) -> str:
    """What a label may be, for messages."""
    if row.classes is None:
        return "a number"
    return f"one of: {', '.join((*row.classes, *row.collapse, *(given or ())))}"
