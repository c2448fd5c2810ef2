"""Names, sizes, ages and tables for a terminal. Escapes untrusted text."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gradworks.base.errors import InputError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def plain(text: Any, lines: bool = False) -> str:
    r"""Escape control characters and those that change the writing direction as \xNN or \uNNNN.

    lines: keep line ends.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if _shown(c) or (lines and c in "\n\t") else _escaped(c) for c in text)


def _shown(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs"


def _escaped(c: str) -> str:
    number = ord(c)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def short(value: Any, width: int = 60) -> str:
    """A value on one line of at most `width` characters."""
    text = plain(value if isinstance(value, str) else json.dumps(tidy(value), ensure_ascii=False))
    return text if len(text) <= width else text[: width - 1] + "…"


def tidy(value: Any) -> Any:
    """A value as JSON allows it: no NaN, no other types."""
    if isinstance(value, dict):
        return {str(k): tidy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted name."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}.{key}".lstrip(".")).items()}


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows as an aligned table; `right`: the columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if i in right else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def size(count: float | None) -> str:
    """Bytes in decimal multiples: 12.3 MB."""
    if count is None:
        return ""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {prefix}B"
    return f"{count:.0f} B"


def age(then: datetime | None) -> str:
    """Age: 45 s, 3 min, 2 h, 9 d."""
    if then is None:
        return ""
    seconds = max((datetime.now(UTC) - then).total_seconds(), 0)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def duration(text: str, option: str) -> float:
    """Seconds in 30s, 15m, 1h or 90d. Raises InputError that names the option."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if not found:
        raise InputError(f"{option}: found {plain(text)}\nexpected a number and one of s, m, h, d: 90d")
    return float(int(found[1]) * _SECONDS[found[2]])


def figures(found: Any, name: str = "") -> dict[str, float]:
    """The numbers of a metrics file by dotted name; NAME.value becomes NAME."""
    if isinstance(found, bool) or not isinstance(found, dict | int | float):
        return {}
    if not isinstance(found, dict):
        return {name: float(found)} if math.isfinite(found) else {}
    flat = {}
    for key, value in found.items():
        flat |= figures(value, name if key == "value" and name else f"{name}.{key}".lstrip("."))
    return flat
