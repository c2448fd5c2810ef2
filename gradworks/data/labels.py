"""What the value of a label column means: a class by its name, by what the source says, or by its index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gradworks.base.forms import form

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_KEPT = 10_000  # values that are remembered
Read = tuple[str, tuple[str | float | None, bool] | None]
_YAML = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # YAML reads these keys as true and false


def reader(kind: Kind, given: Mapping[str, str | float] | None = None) -> Callable[[Any], Read]:
    """`of` with a memory, for a whole column: the key of a value, its label, whether it is one by its name; or None
    in the place of these two where the value is no label.
    """
    known: dict[tuple[type, Any], Read] = {}

    def read(raw: Any) -> Read:
        key = (type(raw), raw)
        if isinstance(raw, str | int | None) and key in known:
            return known[key]
        try:
            found: Read = (form(raw), of(kind, raw, given))
        except ValueError:
            found = (form(raw), None)
        if isinstance(raw, str | int | None) and len(known) < _KEPT:
            known[key] = found
        return found

    return read


def of(kind: Kind, raw: Any, given: Mapping[str, str | float] | None = None) -> tuple[str | float | None, bool]:
    """The label of a value, None when it says that there is none; and whether it is one by its name.

    Args:
        kind: of the task; reads what the source says nothing of.
        raw: the value.
        given: what the source says: `form` of a value, and its label. Then no number is an index.

    Raises:
        ValueError: it is no label of the task.
    """
    if given:
        key = form(raw)
        said = given.get(key, given.get(_YAML.get(key, key)))
        if said is not None:
            return said, False
    return kind.label(raw, bool(given))
