"""How far predicted probabilities can be trusted, before and after temperature scaling (Guo et al. 2017).

The temperature is fitted on the predictions of the selection split and judged on those of the test split.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gradworks import statistics
from gradworks.base import artifacts
from gradworks.data import predictions
from gradworks.metrics import SMALL
from gradworks.metrics.classification import SURE

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gradworks.report.settings import Inputs

BINS = 15  # of equal width, as in Guo et al.
LARGEST = 20.0  # temperature, and its inverse the smallest
DRAWS = 100  # of labels, for the error that calibrated predictions show
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
        groups[item["condition"], encoders, f"mean of {item['method']}"] = [inputs.runs / "ensemble" / name]
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


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The divisor of the logits with the lowest log loss; None without finite examples."""
    from scipy.optimize import minimize_scalar

    if not _finite(probabilities):
        return None
    bound = math.log(LARGEST)
    found = minimize_scalar(
        lambda t: log_loss(scaled(probabilities, math.exp(t)), labels), bounds=(-bound, bound), method="bounded"
    )
    return math.exp(found.x)


def at_bound(probabilities: np.ndarray, labels: np.ndarray, found: float) -> bool:
    """Whether a fitted temperature is no better than the largest or smallest one tried."""
    least = log_loss(scaled(probabilities, found), labels)
    bounds = [log_loss(scaled(probabilities, by), labels) for by in (LARGEST, 1 / LARGEST)]
    return min(bounds) - least < 1e-6


def scaled(probabilities: np.ndarray, by: float) -> np.ndarray:
    """Softmax of the logits divided by a temperature; (n, classes)."""
    import numpy as np

    logits = np.log(probabilities.clip(SURE)) / by
    made = np.exp(logits - logits.max(axis=1, keepdims=True))
    return made / made.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean negative log-likelihood in nats; None without finite examples."""
    import numpy as np

    if not _finite(probabilities):
        return None
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(SURE)).mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over examples of the squared distance to the label, summed over the classes: 0 to 2 (Brier 1950). Unlike the
    calibration error it is not biased by how few examples there are. None without finite examples.
    """
    import numpy as np

    if not _finite(probabilities):
        return None
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())


def bins(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]] | None:
    """For each bin of the highest probability: examples, sum of that probability, correct predictions; None without
    finite examples.
    """
    import numpy as np

    if not _finite(probabilities):
        return None
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    columns = {"n": None, "confidence": sure, "right": right.astype(float)}
    return {name: np.bincount(_places(sure), weights=w, minlength=BINS).tolist() for name, w in columns.items()}


def ece(found: dict[str, list[float]] | None) -> float | None:
    """Expected calibration error: the mean gap of confidence and accuracy over the bins, weighted by examples."""
    if found is None:
        return None
    gaps = [abs(c - r) for c, r in zip(found["confidence"], found["right"], strict=True)]
    return sum(gaps) / sum(found["n"])


def ece_chance(probabilities: np.ndarray) -> float | None:
    """The mean calibration error of perfectly calibrated predictions with the same confidences, over DRAWS draws.

    It is the bias of `ece`, large for few examples (resampling as in Bröcker and Smith 2007). The draws depend on the
    number of examples only.
    """
    import numpy as np

    if not _finite(probabilities):
        return None
    sure = probabilities.max(axis=1)
    place, rng = _places(sure), np.random.default_rng(len(sure))
    gaps = [
        np.abs(np.bincount(place, weights=sure - (rng.random(len(sure)) < sure), minlength=BINS)).sum()
        for _ in range(DRAWS)
    ]
    return float(np.mean(gaps)) / len(sure)


def _places(sure: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.minimum((sure * BINS).astype(int), BINS - 1)


def _finite(probabilities: np.ndarray) -> bool:
    import numpy as np

    return bool(len(probabilities)) and bool(np.isfinite(probabilities).all())


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
    if test is None or not _finite(test[0]):
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
