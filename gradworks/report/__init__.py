"""The report: words, tables and figures from the cells that have results."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from gradworks.base import artifacts


def collect(params: Path, cells: Path, runs: Path, outdated: Collection[str] = ()) -> dict[str, Any]:
    """The results of all cells; a cell without metrics, or `outdated`, is "not run".

    Raises:
        InputError: a file is damaged, or the section `report` does not fit what was evaluated.
    """
    from gradworks.report import read, recorded, summary, waterfall

    inputs = read.read(params, cells, runs, outdated)
    return recorded.marked(summary.results(inputs, waterfall.waterfall(inputs)), inputs)


def build(params: Path, cells: Path, runs: Path, out: Path, outdated: Collection[str] = ()) -> dict[str, Any]:
    """Write report.html, report.md, results.json and DVC's metrics and plots to `out`.

    Returns the results, including what only the page shows.

    Raises what `collect` raises.
    """
    from gradworks.report import (
        calibration,
        details,
        glue,
        labels,
        page,
        pipeline,
        read,
        recorded,
        slices,
        summary,
        traces,
        values,
        views,
        waterfall,
    )

    inputs = read.read(params, cells, runs, outdated)
    results = recorded.marked(summary.results(inputs, waterfall.waterfall(inputs)), inputs) | {
        "metrics": details.every_metric(inputs),
        "confusions": details.confusions(inputs),
        "gradients": traces.gradients(inputs),
        "detection": traces.detection(inputs),
        "calibration": calibration.calibrations(inputs),
        "pipeline": pipeline.stages(inputs),
        "provenance": pipeline.provenance(inputs),
    }
    if parts := details.parts(inputs):  # no key if there is only one task
        results["parts"] = parts
    for key, found in (
        ("slices", slices.compared(inputs)),
        ("labels", labels.sources(inputs)),
        ("glue", glue.scores(parts)),
        ("values", values.values(inputs)),
        ("agreement", traces.agreement(inputs)),
    ):
        if found:  # no key where there is none
            results[key] = found
    artifacts.write_json(out / "results.json", results)
    views.write(out, results, inputs)
    for name, text in page.render(results, inputs).items():
        with artifacts.atomic_file(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return results


def table(results: dict[str, Any]) -> str:
    """The results as plain text, at most 100 columns."""
    from gradworks.report import terminal

    return terminal.table(results)


def cell_line(results: dict[str, Any], path: str) -> str:
    """One cell (its path) as one line of text."""
    from gradworks.report import terminal

    return terminal.cell_line(results, path)


def answer(results: dict[str, Any]) -> str:
    """The answer in words: at most six lines, plus one if cells were made with other parameters."""
    return "\n".join(results["answer"])
