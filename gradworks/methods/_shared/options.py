"""Checks of an entry's options, with words that a person can act on."""

from __future__ import annotations

import math
from collections.abc import Sequence


def integer(name: str, value: object, low: int) -> int:
    """`value` if it is a whole number of at least `low`; else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}: found {value!r}, expected a whole number of at least {low}")
    return value


def number(name: str, value: object, low: float = -math.inf, above: float = -math.inf) -> float:
    """`value` as a float if it is finite, at least `low` and greater than `above`; else ValueError."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or value < low or value <= above:
        bound = f" greater than {above:g}" if above > -math.inf else f" of at least {low:g}" if low > -math.inf else ""
        raise ValueError(f"{name}: found {value!r}, expected a number{bound}")
    return float(value)


def one_of(name: str, value: object, allowed: Sequence[str | None]) -> str | None:
    """`value` if it is one of `allowed`; else ValueError."""
    if value not in allowed:
        raise ValueError(
            f"{name}: found {value!r}, expected one of {', '.join('null' if a is None else a for a in allowed)}"
        )
    return value
