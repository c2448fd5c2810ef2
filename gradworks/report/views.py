"""The inputs of DVC's own views: `dvc metrics show` and `diff`, `dvc plots show` and `diff`.

One metrics file per method makes methods the rows and keeps columns few; curves.json has the learning curves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

METRICS, CURVES = "metrics", "curves.json"
_POINTS = 40  # of a curve
_DIGITS = 4


def write(out: Path, results: Mapping[str, Any], inputs: Inputs) -> None:
    """Write METRICS/METHOD.json, condition -> encoder -> mean over seeds of the primary figure, and CURVES to `out`."""
    with artifacts.atomic_folder(out / METRICS) as folder:
        for method, figures in metrics(results).items():
            artifacts.write_json(folder / f"{method}.json", figures)
    rows = curves(inputs)
    with artifacts.atomic_file(out / CURVES) as temporary:
        temporary.write_text("[" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "]\n")


def metrics(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> condition -> encoder -> mean over the seeds that have a value; a row without any is left out."""
    made: dict[str, dict[str, dict[str, float]]] = {}
    for row in results["summaries"]:
        values = row["primary"]["values"]
        if values:
            found = made.setdefault(row["method"], {}).setdefault(row["condition"], {})
            found[row["encoder"]] = round(sum(values) / len(values), _DIGITS)
    return made


def curves(inputs: Inputs) -> list[dict[str, Any]]:
    """Rows of the learning curves: the mean over seeds of loss and selection score in each 40th of the examples.

    The loss is the mean over a part's steps, the score that of the last evaluation on the selection split so far.
    """
    groups: dict[tuple[str, str, str], list[list[tuple[float, float | None]]]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for cell in inputs.cells.values():
        file = inputs.runs / "train" / cell["path"] / "history.parquet"
        if file.exists():
            table = artifacts.read_parquet(file, ["examples"]).to_pydict()
            if table["examples"] and "loss" in table:
                key = (cell["condition"], cell["encoder"], cell["method"])
                groups.setdefault(key, []).append(_parts(table))
                seen[key] = max(seen.get(key, 0), table["examples"][-1])
    made = []
    for (condition, encoder, method), runs in groups.items():
        for number in range(min(len(run) for run in runs)):
            losses, scores = zip(*(run[number] for run in runs), strict=True)
            row = {"condition": condition, "encoder": encoder, "method": method}
            row["examples"] = round(seen[condition, encoder, method] * (number + 1) / min(len(run) for run in runs))
            row["loss"] = round(sum(losses) / len(losses), _DIGITS)
            there = [score for score in scores if score is not None]
            row["score"] = (
                round(sum(there) / len(there), _DIGITS) if there else None
            )  # every row has the same keys: DVC
            made.append(row)
    return made


def _parts(table: Mapping[str, list[Any]]) -> list[tuple[float, float | None]]:
    """(loss, score) of up to 40 equal parts of a run."""
    selection = next((table[name] for name in table if name.startswith("selection_")), [])
    steps = len(table["loss"])
    many, made, score = min(_POINTS, steps), [], None
    for number in range(many):
        first, end = number * steps // many, (number + 1) * steps // many
        score = next((s for s in reversed(selection[first:end]) if s is not None), score)
        made.append((sum(table["loss"][first:end]) / (end - first), score))
    return made
