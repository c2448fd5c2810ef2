"""Weak supervision in the report: each labelling function's coverage, overlap, conflict and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs


def sources(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Name -> model, rows, mean probability of each class and the figures of its functions, as `label` wrote them."""
    made = {}
    for name in inputs.values.get("label") or {}:
        file = inputs.runs / "label" / name / artifacts.MANIFEST
        if file.exists():
            about = artifacts.read_json(file)
            found = {key: about[key] for key in ("rows", "mean", "functions")}
            made[name] = {"model": about["parameters"]["model"], **found}
    return made
