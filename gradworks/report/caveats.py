"""Caveats from data and training, in words: labels read from numbers, shared texts, inaccurate terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts
from gradworks.report import form

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

_INACCURATE = "_inaccurate_share"  # of the figures in status.json, see gradworks/trace.py
_OF = {"train": "a training example", "clean": "a clean example", "selection": "a selection example"}


def said(manifests: Mapping[str, Mapping[str, Any]], what: str = "texts") -> str:
    """Sentences for the reader, each after a blank; empty if there are no caveats.

    Args:
        manifests: condition -> manifest of `corrupt`: `duplicates`, `duplicates_dropped`, `label_values`,
            `of_other_tasks`, and that of further tasks in `parts`.
        what: models read, "texts" or "pictures".
    """
    shared: dict[tuple[str, str], int] = {}
    values: dict[str, Mapping[str, Any]] = {}
    dropped: dict[str, int] = {}
    others: dict[tuple[str, str], int] = {}
    for manifest in manifests.values():
        for task, part in {"": manifest, **manifest.get("parts", {})}.items():
            for name, one in part.get("of_other_tasks", {}).items():
                others[task, name] = max(one["dropped"], others.get((task, name), 0))
        values |= manifest.get("label_values", {})
        for name, count in manifest.get("duplicates_dropped", {}).items():
            dropped[name] = max(count, dropped.get(name, 0))
        for name, known in manifest.get("duplicates", {}).items():
            for other, count in known.items():
                shared[name, other] = max(count["alike"], shared.get((name, other), 0))
    parts = [
        f"{form.count(count)} {name} example{'s have' if count > 1 else ' has'} the {what} of {_OF[other]}"
        for (name, other), count in shared.items()
        if count
    ]
    aside = "Case and blanks aside, " if what == "texts" else ""
    made = f" {aside}{', '.join(parts)}." if parts else ""
    if dropped:
        counts = ", ".join(f"{form.count(count)} of {name}" for name, count in dropped.items())
        made += f" Left out because another split has their {what}: {counts}."
    if others:
        counts = ", ".join(f"{form.count(n)} of {name}{of and f' of {of}'}" for (of, name), n in others.items())
        made += f" Left out because another task is evaluated on them: {counts}."
    for path, mapping in values.items():
        read = ", ".join(f"{value} as {label}" for value, label in sorted(mapping.items()))
        made += f" Labels of {path} were read: {read}."
    return made


def terms(inputs: Inputs) -> str:
    """One sentence per method and encoder with an inaccurate term: the mean share of such steps over cells."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    cells: dict[tuple[str, str], int] = {}
    for key, cell in inputs.cells.items():
        file = inputs.runs / "train" / cell["path"] / "status.json"
        if inputs.metrics[key]["state"] == "not run" or not file.exists():
            continue
        where = cell["method"], cell["encoder"]
        cells[where] = cells.get(where, 0) + 1
        for name, share in artifacts.read_json(file).get("figures", {}).items():
            if name.endswith(_INACCURATE):
                shares.setdefault((name.removesuffix(_INACCURATE), *where), []).append(share)
    made = ""
    for (update, method, encoder), found in shares.items():
        mean = 100 * sum(found) / cells[method, encoder]
        share = "less than 0.1" if mean < 0.1 else f"{mean:.1f}" if mean < 1 else f"{mean:.0f}"
        of = f"{method} on {encoder}" if method != update else encoder
        made += f" {update}'s term was inaccurate (> 10 %) in {share} % of steps ({of})."
    return made
