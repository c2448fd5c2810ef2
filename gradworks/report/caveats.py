"""What the data brought along, in words: labels read from numbers, texts that two splits share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.report import form

_OF = {"train": "a training example", "clean": "a clean example", "selection": "a selection example"}


def said(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Sentences for the reader of a report, each with a blank before it; nothing where there is nothing to say.

    Args:
        manifests: condition and what `corrupt` wrote of it: `duplicates`, `duplicates_dropped`, `label_values`.
    """
    shared: dict[tuple[str, str], int] = {}
    values: dict[str, Mapping[str, Any]] = {}
    dropped: dict[str, int] = {}
    for manifest in manifests.values():
        values |= manifest.get("label_values", {})
        for name, count in manifest.get("duplicates_dropped", {}).items():
            dropped[name] = max(count, dropped.get(name, 0))
        for name, others in manifest.get("duplicates", {}).items():
            for other, count in others.items():
                shared[name, other] = max(count["alike"], shared.get((name, other), 0))
    parts = [
        f"{form.count(count)} {name} example{'s have' if count > 1 else ' has'} the texts of {_OF[other]}"
        for (name, other), count in shared.items()
        if count
    ]
    made = f" Case and blanks aside, {', '.join(parts)}." if parts else ""
    if dropped:
        counts = ", ".join(f"{form.count(count)} of {name}" for name, count in dropped.items())
        made += f" Left out because another split has their texts: {counts}."
    for path, mapping in values.items():
        read = ", ".join(f"{value} as {label}" for value, label in sorted(mapping.items()))
        made += f" Labels of {path} were read: {read}."
    return made
