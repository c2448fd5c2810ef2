"""How far predicted probabilities can be trusted, before and after temperature scaling (Guo et al. 2017).

There are predictions of the test split only, so the examples are halved by id: the temperature is fitted on one half
and judged on the other, never on what it was fitted on.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from gradworks import statistics
from gradworks.data import predictions
from gradworks.metrics import SURE, indices
from gradworks.stage import artefacts

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gradworks.report.read import Inputs

BINS = 15  # of equal width, as in Guo et al.
LARGEST = 20.0  # temperature, and its inverse the smallest
FIGURES = ("temperature", "ece", "ece_scaled", "log_loss", "log_loss_scaled")


def calibrations(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method, means over seeds; one per ensemble, whose method is its name."""
    if inputs.task.classes is None:
        return []
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for cell in inputs.cells.values():
        key = cell["condition"], cell["encoder"], cell["method"]
        groups.setdefault(key, []).append(inputs.runs / "evaluate" / cell["path"])
    for name, item in inputs.ensembles.items():
        encoders = item["encoders"].replace(" ", "+")
        groups[item["condition"], encoders, f"mean of {item['method']}"] = [inputs.runs / "ensemble" / name]
    made = []
    for (condition, encoder, method), folders in groups.items():
        found = [one for folder in folders if (one := _one(inputs, folder / "predictions.parquet")) is not None]
        if found:
            row: dict[str, Any] = {"condition": condition, "encoder": encoder, "method": method}
            row |= {"fitted": found[0]["fitted"], "judged": found[0]["judged"]}
            for name in FIGURES:
                values = [one[name] for one in found]
                row[name] = {**vars(statistics.mean(values)), "values": values}
            made.append(row | {name: _pooled([one[name] for one in found]) for name in ("before", "after")})
    return made


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """What the logits are divided by so that the log loss is least."""
    import math

    from scipy.optimize import minimize_scalar

    bound = math.log(LARGEST)
    found = minimize_scalar(
        lambda t: log_loss(scaled(probabilities, math.exp(t)), labels), bounds=(-bound, bound), method="bounded"
    )
    return math.exp(found.x)


def scaled(probabilities: np.ndarray, by: float) -> np.ndarray:
    """Softmax of the logits divided by a temperature; (n, classes)."""
    import numpy as np

    logits = np.log(probabilities.clip(SURE)) / by
    made = np.exp(logits - logits.max(axis=1, keepdims=True))
    return made / made.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats."""
    import numpy as np

    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(SURE)).mean())


def bins(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Of each bin of the highest probability: examples, sum of that probability, examples predicted right."""
    import numpy as np

    sure = probabilities.max(axis=1)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    right = probabilities.argmax(axis=1) == labels
    columns = {"n": None, "confidence": sure, "right": right.astype(float)}
    return {name: np.bincount(place, weights=w, minlength=BINS).tolist() for name, w in columns.items()}


def ece(found: dict[str, list[float]]) -> float:
    """Expected calibration error: the mean gap of confidence and accuracy over the bins, weighted by examples."""
    gaps = [abs(c - r) for c, r in zip(found["confidence"], found["right"], strict=True)]
    return sum(gaps) / sum(found["n"])


def _one(inputs: Inputs, file: Path) -> dict[str, Any] | None:
    """One cell: the figures on the half that the temperature was not fitted on; None without enough predictions."""
    import numpy as np

    classes = inputs.task.classes
    if not file.exists():
        return None
    table = artefacts.read_parquet(file, ["id", "label", *(f"p_{name}" for name in classes)])
    if len(table) < 4:
        return None
    fit = np.array([zlib.crc32(str(key).encode()) & 1 == 0 for key in table["id"].to_pylist()])
    labels = indices(table["label"].to_numpy(zero_copy_only=False), classes)
    outputs = predictions.outputs(table, inputs.task)
    if not 0 < fit.sum() < len(fit) or not np.isfinite(outputs).all():
        return None
    by = temperature(outputs[fit], labels[fit])
    plain, better, truth = outputs[~fit], scaled(outputs[~fit], by), labels[~fit]
    before, after = bins(plain, truth), bins(better, truth)
    return {
        "fitted": int(fit.sum()), "judged": int((~fit).sum()), "temperature": by, "before": before, "after": after,
        "ece": ece(before), "ece_scaled": ece(after),
        "log_loss": log_loss(plain, truth), "log_loss_scaled": log_loss(better, truth),
    }  # fmt: skip


def _pooled(found: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Mean confidence and accuracy of the bins that hold examples, seeds together: the points of the picture."""
    total = {name: [sum(x) for x in zip(*(one[name] for one in found), strict=True)] for name in found[0]}
    rows = [(c / n, r / n, n) for n, c, r in zip(total["n"], total["confidence"], total["right"], strict=True) if n]
    columns = ([float(f"{x:.6g}") for x in column] for column in zip(*rows, strict=True))
    return dict(zip(("confidence", "accuracy", "n"), columns, strict=True))
