"""How far predicted probabilities can be trusted, before and after temperature scaling (Guo et al. 2017).

The temperature is fitted on the predictions of the selection split and judged on those of the test split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks import statistics
from gradworks.base import artifacts
from gradworks.calibration import at_bound, bins, brier, ece, ece_chance, finite, log_loss, scaled, temperature
from gradworks.data import predictions
from gradworks.metrics import SMALL

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gradworks.report.settings import Inputs

SCALED = ("temperature", "ece_scaled", "ece_chance_scaled", "brier_scaled", "log_loss_scaled")
FIGURES = ("ece", "ece_chance", "brier", "log_loss", *SCALED)


def calibrations(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method, means over seeds; one per ensemble, whose method is its name.

    A temperature at its bound is not an estimate: its seed counts before scaling only, which `notes` reports.
    """
    if not inputs.task.calibrated:
        return []
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for cell in inputs.cells.values():
        key = cell["condition"], cell["encoder"], cell["method"]
        groups.setdefault(key, []).append(inputs.runs / "evaluate" / cell["path"])
    for name, item in inputs.ensembles.items():
        encoders = " · ".join([item["encoders"].replace(" ", "+"), *([item["mixture"]] if "mixture" in item else [])])
        groups[item["condition"], encoders, _called(item)] = [inputs.runs / "ensemble" / name]
    made = []
    for (condition, encoder, method), folders in groups.items():
        found = [one for folder in folders if (one := _one(inputs, folder)) is not None]
        if not found:
            continue
        row: dict[str, Any] = {"condition": condition, "encoder": encoder, "method": method}
        row |= {"fitted": found[0]["fitted"], "judged": found[0]["judged"]}
        for name in FIGURES:
            values = [one[name] for one in found if one[name] is not None]
            row[name] = {**vars(statistics.mean(values)), "values": values}
        row |= {name: _pooled([one[name] for one in found if one[name]]) for name in ("before", "after")}
        notes = [one["note"] for one in found if one["note"]]
        row["notes"] = [f"{notes.count(note)} of {len(found)} {note}" for note in dict.fromkeys(notes)]
        made.append(row)
    return made


def _called(item: dict[str, Any]) -> str:
    """`mean of erm`; by its rule where it has another."""
    rule = item.get("rule", "").removeprefix(" --rule ") or "mean"
    return f"{rule} of {item['method'].replace(' ', ' and ')}"


def _read(inputs: Inputs, file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities and class indices from a table of predictions; None if it is missing or empty."""
    if not file.exists():
        return None
    table = artifacts.read_parquet(file, ["id", "label", *inputs.task.columns])
    if not len(table):
        return None
    return inputs.task.read(table), inputs.task.indices(table["label"].to_numpy(zero_copy_only=False))


def _one(inputs: Inputs, folder: Path) -> dict[str, Any] | None:
    """One cell: figures of its test predictions before and after scaling; None without predictions."""
    test, selection = (_read(inputs, folder / name) for name in (predictions.TEST, predictions.SELECTION))
    if test is None or not finite(test[0]):
        return None
    outputs, labels = test
    made: dict[str, Any] = {"judged": len(labels), "before": bins(outputs, labels), "after": None}
    made |= {"fitted": 0 if selection is None else len(selection[1]), "note": "", **dict.fromkeys(SCALED)}
    made |= {"ece": ece(made["before"]), "ece_chance": ece_chance(outputs)}
    made |= {"brier": brier(outputs, labels), "log_loss": log_loss(outputs, labels)}
    if made["fitted"] < SMALL:
        return made | {"note": f"not scaled: {made['fitted']} selection examples, {SMALL} are needed"}
    by = temperature(*selection)
    if by is None:
        return made | {"note": "not scaled: a selection prediction is not finite"}
    if at_bound(*selection, by):
        end = "largest" if by > 1 else "smallest"
        return made | {"note": f"not scaled: the temperature is at its bound, the {end} one tried"}
    better = scaled(outputs, by)
    made |= {"temperature": by, "after": bins(better, labels), "ece_chance_scaled": ece_chance(better)}
    return made | {
        "ece_scaled": ece(made["after"]), "brier_scaled": brier(better, labels),
        "log_loss_scaled": log_loss(better, labels),
    }  # fmt: skip


def _pooled(found: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Mean confidence and accuracy of the non-empty bins, over all seeds: the points of the picture."""
    if not found:
        return {"confidence": [], "accuracy": [], "n": []}
    total = {name: [sum(x) for x in zip(*(one[name] for one in found), strict=True)] for name in found[0]}
    rows = [(c / n, r / n, n) for n, c, r in zip(total["n"], total["confidence"], total["right"], strict=True) if n]
    columns = ([float(f"{x:.6g}") for x in column] for column in zip(*rows, strict=True))
    return dict(zip(("confidence", "accuracy", "n"), columns, strict=True))
