"""Summaries of training logs: dot products of batch gradients, cosines of tasks', and scores of corrupted examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import statistics
from gradworks.base import artifacts

if TYPE_CHECKING:
    import numpy as np

    from gradworks.report.settings import Inputs

WINDOW = 100  # batches of the moving mean, and
OUTLIER = 10  # standard deviations beyond which a step is left out, both as in the figure of the DotProd paper
POINTS = 60  # of a line
BINS = 40  # of a histogram
SIGNS = {"noise": -1, "leak": 1}  # a wrong label should count less, a leaked test example more


def gradients(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method that logs `dot`: means over the run, and lines of the moving mean."""
    made = _rows(inputs, "dot")
    return [row | {"against": _against(inputs, made, row)} for row in made]


def agreement(inputs: Inputs) -> list[dict[str, Any]]:
    """The same of `cosine`, where it is between tasks: of methods that log no `dot`."""
    return _rows(inputs, "cosine")


def _rows(inputs: Inputs, main: str) -> list[dict[str, Any]]:
    made = []
    for (condition, encoder, method), cells in _groups(inputs).items():
        folders = [inputs.runs / "train" / cell["path"] for cell in cells]
        logged = {folder: found for folder in folders if (found := _logged(folder, main)) is not None}
        runs = list(logged.values())
        if not runs:
            continue
        row: dict[str, Any] = {"condition": condition, "encoder": encoder, "method": method}
        for name in ("dot", "cosine", "conflict")[main == "cosine" :]:
            values = [float(run[name].mean()) for run in runs if name in run]
            row[name] = {**vars(statistics.mean(values)), "values": values}
        batch = inputs.values["train"]["batch"]
        row["lines"] = [_line(run, _examples(folder, batch), main) for folder, run in logged.items()]
        made.append(row)
    return made


def detection(inputs: Inputs) -> list[dict[str, Any]]:
    """One row per condition, encoder and method that weights examples: how well weight and signed score separate the
    corrupted examples from the others (area under the ROC curve; 0.5 = not at all), and both histograms.
    """
    made = []
    for (condition, encoder, method), cells in _groups(inputs).items():
        runs = [found for cell in cells if (found := _scored(inputs.runs, cell)) is not None]
        for kind in dict.fromkeys(kind for run in runs for kind in run["kinds"]):
            own = [(run, run["kinds"][kind]) for run in runs if kind in run["kinds"]]
            row: dict[str, Any] = {"condition": condition, "encoder": encoder, "method": method, "kind": kind}
            row |= {"corrupted": sum(int(bad.sum()) for _, bad in own), "others": sum(int((~b).sum()) for _, b in own)}
            for name in ("score", "weight"):
                values = [auroc(SIGNS[kind] * run[name], bad) for run, bad in own if name in run]
                row[f"auroc_{name}"] = {**vars(statistics.mean(values)), "values": values}
            name = "score" if any("score" in run for run, _ in own) else "weight"
            made.append(row | {"shown": name, "histogram": _histogram([(r[name], b) for r, b in own if name in r])})
    return made


def auroc(found: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive example has a higher value than a negative one, ties counted half: the Mann-Whitney U
    over the number of pairs.
    """
    import numpy as np

    others = np.sort(found[~positive])
    places = (np.searchsorted(others, found[positive], s) for s in ("left", "right"))
    return float(sum(place.mean() for place in places) / (2 * len(others)))


def _groups(inputs: Inputs) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in inputs.cells.values():
        groups.setdefault((cell["condition"], cell["encoder"], cell["method"]), []).append(cell)
    return groups


def _logged(folder: Path, main: str) -> dict[str, np.ndarray] | None:
    """dot, cosine and conflict of the steps that logged them, with the examples seen; outliers of `main`, the first
    that is there, left out.
    """
    import numpy as np

    file, history = folder / "statistics.parquet", folder / "history.parquet"
    if not (file.exists() and history.exists()):
        return None
    table = artifacts.read_parquet(file, ["step", "name", "value"])
    steps, names, values = (table[c].to_numpy(zero_copy_only=False) for c in ("step", "name", "value"))
    there = [name for name in ("dot", "cosine", "conflict") if (names == name).any()]
    found = {name: values[names == name].astype(float) for name in there}
    if next(iter(found), None) != main:
        return None
    seen = artifacts.read_parquet(history, ["step", "examples"])
    examples = dict(zip(seen["step"].to_pylist(), seen["examples"].to_pylist(), strict=True))
    found["examples"] = np.array([examples[int(step)] for step in steps[names == main]], dtype=float)
    dot = found[main]
    kept = np.isfinite(dot) & (np.abs(dot - np.nanmean(dot)) <= OUTLIER * np.nanstd(dot))
    return {name: column[kept] for name, column in found.items()} if kept.any() else None


def _examples(folder: Path, batch: int | dict[str, int]) -> float:
    """Of a batch: as params.yaml has it; where that is a budget, in the mean of the run."""
    if isinstance(batch, int):
        return batch
    status = artifacts.read_json(folder / "status.json")
    return status["examples"] / status["batches"]


def _line(run: dict[str, np.ndarray], batch: float, main: str) -> dict[str, Any]:
    """The moving mean over WINDOW batches (a fifth of a shorter run), at up to POINTS points."""
    import numpy as np

    dot, examples = run[main], run["examples"]
    each = max(1.0, float(np.median(np.diff(examples, prepend=0))) / batch)  # batches between two that were logged
    width = max(1, min(round(WINDOW / each), len(dot) // 5))
    means = np.convolve(dot, np.ones(width) / width, "valid")
    where = np.unique(np.linspace(0, len(means) - 1, min(POINTS, len(means))).round().astype(int))
    points = {"examples": [int(x) for x in examples[where + width - 1]], main: [_short(x) for x in means[where]]}
    return points | {"batches": round(width * each)}


def _against(inputs: Inputs, rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any] | None:
    """The mean dot product over that of its control, which sees the same batches."""
    to = inputs.settings.controls.get(row["method"])
    same = [r for r in rows if (r["condition"], r["encoder"], r["method"]) == (row["condition"], row["encoder"], to)]
    if not same or not same[0]["dot"]["value"]:
        return None
    return {"to": to, "ratio": row["dot"]["value"] / same[0]["dot"]["value"]}


def _scored(runs: Path, cell: dict[str, Any]) -> dict[str, Any] | None:
    """Mean weight and signed score of each training example of a cell, and which of them were corrupted, by kind."""
    import numpy as np

    file = runs / "train" / cell["path"] / "weights.parquet"
    changes = runs / "corrupt" / cell["condition"] / str(cell["seed"]) / "corruptions.parquet"
    if not (file.exists() and changes.exists()):
        return None
    table = artifacts.read_parquet(file, ["id", "weight", "score"])
    if not len(table):
        return None
    ids, place = np.unique(table["id"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    counts = np.bincount(place)
    made: dict[str, Any] = {"kinds": {}}
    for name in ("weight", "score"):
        if table[name].null_count == 0:
            made[name] = np.bincount(place, weights=table[name].to_numpy(zero_copy_only=False)) / counts
    done = artifacts.read_parquet(changes, ["id", "kind", "old_label", "new_label"]).to_pylist()
    for kind in SIGNS:  # a redrawn label that came out the same is not corrupted
        bad = {c["id"] for c in done if c["kind"] == kind and (kind == "leak" or c["old_label"] != c["new_label"])}
        which = np.array([key in bad for key in ids.tolist()], dtype=bool)
        if which.any() and not which.all():
            made["kinds"][kind] = which
    return made


def _histogram(runs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Shares of corrupted and of other examples by value, all seeds together, from the 1st to the 99th percentile."""
    import numpy as np

    values, bad = (np.concatenate(column) for column in zip(*runs, strict=True))
    low, high = np.quantile(values, [0.01, 0.99])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    made: dict[str, Any] = {"edges": [_short(x) for x in edges]}
    for name, own in (("corrupted", values[bad]), ("others", values[~bad])):
        counts = np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0]
        made[name] = [_short(x) for x in counts / len(own)]
    return made


def _short(value: float) -> float:
    """Six digits, to keep the page short."""
    return float(f"{value:.6g}")
