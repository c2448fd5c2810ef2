"""An entry of a slot by the name of its file: no registry, a new file is a new entry.

A file NAME.py in objectives/, weightings/ or updates/ exports its class as the one name of `__all__`; the keyword
arguments of the class are the entry's options. Files that start with an underscore are no entries.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

_FOLDERS = {"objective": "objectives", "weighting": "weightings", "update": "updates"}


def names(slot: str) -> list[str]:
    """The entries of a slot ("objective", "weighting", "update"), sorted."""
    package = importlib.import_module(f"gradworks.methods.{_FOLDERS[slot]}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def entry_class(slot: str, name: str) -> type:
    """The class of an entry.

    Raises:
        ValueError: no such file.
    """
    known = names(slot)
    if name not in known:
        raise ValueError(f"{slot}: found {name!r}, expected one of {', '.join(known)}")
    module = importlib.import_module(f"gradworks.methods.{_FOLDERS[slot]}.{name}")
    return getattr(module, module.__all__[0])


def load(slot: str, chosen: Any) -> Any:
    """The entry that `chosen` names.

    Args:
        slot: "objective", "weighting" or "update".
        chosen: a name, `{name: {option: value}}`, or an entry of your own (an object with the methods of the slot's
            protocol in `gradworks.spec`), which is returned as it is.

    Raises:
        ValueError: an unknown name or option, or a value that the entry refuses.
    """
    if isinstance(chosen, str):
        name, options = chosen, {}
    elif isinstance(chosen, Mapping):
        if len(chosen) != 1:
            raise ValueError(f"{slot}: found {len(chosen)} entries, expected one: {{name: {{option: value}}}}")
        name, options = next(iter(chosen.items()))
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise ValueError(f"{slot} {name}: found {options!r}, expected options by name: {{option: value}}")
    elif hasattr(chosen, "state_dict") and not isinstance(chosen, type):
        return chosen
    else:
        raise ValueError(f"{slot}: found {chosen!r}, expected a name, {{name: {{option: value}}}} or an entry")
    made = entry_class(slot, name)
    known = list(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise ValueError(f"{slot} {name}: unknown option {option!r}, expected {expected}")
    try:
        return made(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{slot} {name}: {error}") from None
