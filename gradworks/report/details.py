"""What the page shows beside the answer: every metric, the tasks of a mixture, confusion matrices, the loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import statistics
from gradworks.base import artifacts
from gradworks.data import predictions
from gradworks.metrics import better
from gradworks.report.summary import USED

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs
    from gradworks.tasks.kinds import Kind

POINTS = 24  # of a loss curve: each the mean of as many steps


def every_metric(inputs: Inputs) -> dict[str, Any]:
    """`names`: metric -> 1 if higher is better, -1 if lower is; `rows`: for each condition, encoder and method the mean
    over seeds of each of the task's metrics on all test examples, or why it is undefined.
    """
    names = {name: better(name) for name in inputs.task.reported}
    rows = []
    for (condition, encoder, method), keys in groups(inputs).items():
        found = [inputs.metrics[key]["overall"] for key in keys if inputs.metrics[key]["state"] in USED]
        row: dict[str, Any] = {"condition": condition, "encoder": encoder, "method": method, "scores": {}}
        for name in names:
            scores = [one[name] for one in found if name in one]
            values = [score["value"] for score in scores if score["value"] is not None]
            notes = dict.fromkeys(score["note"] for score in scores if score["value"] is None and "note" in score)
            row["scores"][name] = {**vars(statistics.mean(values)), "values": values, "notes": list(notes)}
        if found:
            rows.append(row)
    return {"names": names, "rows": rows}


def parts(inputs: Inputs) -> list[dict[str, Any]]:
    """The scores of every task of a mixture, the main one first: one row per condition, encoder, method, task and
    metric; none if all cells train on the project's task only.

    `value`, `se` and `values` are over seeds, `n` counts test examples, and `scores` has the 95 % interval of each seed
    over these.
    """
    rows = []
    for (condition, encoder, method), keys in groups(inputs).items():
        found = [inputs.metrics[key] for key in keys if inputs.metrics[key]["state"] in USED]
        found = [one for one in found if "parts" in one]
        tasks = [
            {inputs.task.name: one["overall"], **{name: part["overall"] for name, part in one["parts"].items()}}
            for one in found
        ]
        for task in dict.fromkeys(name for one in tasks for name, scores in one.items() if scores):
            for metric in dict.fromkeys(metric for one in tasks for metric in one.get(task, {})):
                scores = [one[task][metric] for one in tasks if metric in one.get(task, {})]
                values = [score["value"] for score in scores if score["value"] is not None]
                row = {"condition": condition, "encoder": encoder, "method": method, "task": task, "metric": metric}
                row |= {**vars(statistics.mean(values)), "values": values, "better": better(metric)}
                rows.append(row | {"seeds": row["n"], "n": scores[0]["n"], "scores": scores})
    return rows


def confusions(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method: test examples by label (rows) and prediction (columns), all seeds
    together, in the order of the task's classes; none if labels are numbers.
    """
    if not inputs.task.calibrated:
        return []
    classes, made = inputs.task.classes, []
    for (condition, encoder, method), keys in groups(inputs).items():
        files = [inputs.runs / "evaluate" / inputs.cells[key]["path"] / predictions.TEST for key in keys]
        found = [one for file in files if (one := _confusion(file, inputs.task)) is not None]
        if found:
            total = [[sum(one[i][j] for one in found) for j in range(len(classes))] for i in range(len(classes))]
            row = {"condition": condition, "encoder": encoder, "method": method, "seeds": len(found)}
            made.append(row | {"classes": list(classes), "counts": total, "scores": by_class(total)})
    return made


def by_class(counts: list[list[int]]) -> list[dict[str, float | None]]:
    """Precision, recall and F1 of each class, from examples by label and prediction; None where nothing is divided."""
    made = []
    for k, row in enumerate(counts):
        right, predicted, labelled = row[k], sum(other[k] for other in counts), sum(row)
        made.append({
            "precision": right / predicted if predicted else None,
            "recall": right / labelled if labelled else None,
            "f1": 2 * right / (predicted + labelled) if predicted + labelled else None,
        })  # fmt: skip
    return made


def losses(inputs: Inputs, key: str) -> dict[str, list[float]] | None:
    """`{"examples": [...], "score": [...]}`: the loss of training batches, the mean over each of POINTS parts of the
    run; None if none was logged.
    """
    import numpy as np

    file = inputs.runs / "train" / inputs.cells[key]["path"] / "history.parquet"
    if not file.exists():
        return None
    table = artifacts.read_parquet(file, ["examples"])
    if "loss" not in table.column_names or not len(table):
        return None
    examples = table["examples"].to_numpy(zero_copy_only=False)
    loss = table["loss"].to_numpy(zero_copy_only=False).astype(float)
    known = np.isfinite(loss)  # that of a diverged step is not
    parts = np.array_split(np.flatnonzero(known), min(POINTS, int(known.sum()))) if known.any() else []
    made = [(int(examples[part[-1]]), float(f"{loss[part].mean():.6g}")) for part in parts]
    return {"examples": [x for x, _ in made], "score": [y for _, y in made]} if made else None


def groups(inputs: Inputs) -> dict[tuple[str, str, str], list[str]]:
    """The cells of each condition, encoder and method."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for key, cell in inputs.cells.items():
        groups.setdefault((cell["condition"], cell["encoder"], cell["method"]), []).append(key)
    return groups


def _confusion(file: Path, task: Kind) -> list[list[int]] | None:
    import numpy as np

    if not file.exists():
        return None
    table = artifacts.read_parquet(file, ["label", "prediction"])
    if not len(table):
        return None
    label, chosen = (task.indices(table[c].to_numpy(zero_copy_only=False)) for c in ("label", "prediction"))
    n = len(task.classes)
    return np.bincount(label * n + chosen, minlength=n * n).reshape(n, n).tolist()
