"""Normalize values and names that people spell in different ways."""

from __future__ import annotations

import re
from typing import Any

# SNLI and MNLI without a majority; the hub's mark; missing values of pandas and others; test sets
NONE = {"-", "-1", "", "none", "null", "nan", "na", "n/a", "<na>", "hidden", "?"}


def form(raw: Any) -> str:
    """One spelling for values that people mean alike: 1, 1.0, "1" and " 1.0 "; True, "TRUE" and "true"; None and ""."""
    text = "" if raw is None else str(raw).strip().casefold()
    found = number(text)
    return text if found is None else str(int(found)) if found.is_integer() else text


def number(text: str) -> float | None:
    """The number that a text holds, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def name(text: str) -> str:
    """`Non-entailment` and `not entailment` are `not_entailment`."""
    return re.sub(r"^non_", "not_", re.sub(r"[\s_-]+", "_", text.strip().casefold()))
