"""Checks of options that objectives have in common."""

from __future__ import annotations

from gradworks.methods._shared.options import number


def flag(name: str, value: object) -> bool:
    """`value` if it is true or false; else ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: found {value!r}, expected true or false")
    return value


def below_one(name: str, value: object) -> float:
    """`value` as a float if it is at least 0 and less than 1; else ValueError."""
    if number(name, value, low=0) >= 1:
        raise ValueError(f"{name}: found {value!r}, expected a number of at least 0 and less than 1")
    return float(value)
