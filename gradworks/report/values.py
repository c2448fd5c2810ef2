"""Of tasks whose labels are numbers: how true and predicted values are distributed, and by how much they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts
from gradworks.data import predictions
from gradworks.report.details import groups

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gradworks.report.settings import Inputs

BINS = 20


def values(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method; none if labels are no numbers.

    `edges` span labels and predictions; `label`, `predicted`: shares of the test examples, all seeds together;
    `error`: the mean absolute difference, `n` of how many.
    """
    import numpy as np

    if inputs.task.label_type != "float64":
        return []
    made = []
    for (condition, encoder, method), keys in groups(inputs).items():
        files = [inputs.runs / "evaluate" / inputs.cells[key]["path"] / predictions.TEST for key in keys]
        found = [one for file in files if file.exists() and len(one := _pairs(file))]
        if not found:
            continue
        truth, predicted = np.concatenate(found).T
        both = np.concatenate([truth, predicted])
        low, high = both.min(), both.max()
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        row = {"condition": condition, "encoder": encoder, "method": method, "seeds": len(found), "n": len(truth)}
        row |= {"edges": _short(edges), "error": float(np.abs(truth - predicted).mean())}
        for name, own in (("label", truth), ("predicted", predicted)):
            row[name] = _short(np.histogram(own, edges)[0] / len(own))
        made.append(row)
    return made


def _pairs(file: Path) -> np.ndarray:
    """(n, 2) labels and predictions of the rows whose prediction is finite."""
    import numpy as np

    table = artifacts.read_parquet(file, ["label", "value"])
    found = np.stack([table[name].to_numpy(zero_copy_only=False) for name in ("label", "value")], 1).astype(float)
    return found[np.isfinite(found).all(1)]


def _short(numbers: np.ndarray) -> list[float]:
    """Six digits, to keep the page short."""
    return [float(f"{one:.6g}") for one in numbers]
