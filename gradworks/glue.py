"""The GLUE benchmark: which metrics make a task's score, the average, and the files of a submission.

Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform (ICLR 2019), sections 3 and 5: a task with several
metrics counts with their mean, MNLI with the mean of its two test sets, and the score is the mean over nine tasks. A
submission is a zip of one TSV a test set, `index` and `prediction`, in the order of the test file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError

SUFFIX = "tsv"
TASKS = {  # of the score: the metrics whose mean counts
    "cola": ("matthews",),
    "sst2": ("accuracy",),
    "mrpc": ("f1", "accuracy"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("f1", "accuracy"),
    "nli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
NAMES = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP", "nli": "MNLI", "qnli": "QNLI",
         "rte": "RTE", "wnli": "WNLI"}  # fmt: skip


@dataclass(frozen=True)
class TestSet:
    """One file of a submission.

    Attributes:
        name: of the file, without suffix. task: a row of gradworks/tasks/ whose model answers it.
        rows: of the official test set.
        labels: class -> what the file says; None where it says a number from 0 to 5.
    """

    name: str
    task: str
    rows: int
    labels: Mapping[str, str] | None


def _same(*classes: str) -> dict[str, str]:
    return {one: one for one in classes}


def _coded(*classes: str) -> dict[str, str]:
    return {one: str(i) for i, one in enumerate(classes)}


_NLI = _same("entailment", "neutral", "contradiction")
_RTE = _same("entailment", "not_entailment")
TESTS = {
    one.name: one
    for one in (
        TestSet("CoLA", "cola", 1063, _coded("unacceptable", "acceptable")),
        TestSet("SST-2", "sst2", 1821, _coded("negative", "positive")),
        TestSet("MRPC", "mrpc", 1725, _coded("not_equivalent", "equivalent")),
        TestSet("STS-B", "stsb", 1379, None),
        TestSet("QQP", "qqp", 390965, _coded("not_duplicate", "duplicate")),
        TestSet("MNLI-m", "nli", 9796, _NLI),
        TestSet("MNLI-mm", "nli", 9847, _NLI),
        TestSet("QNLI", "qnli", 5463, _RTE),
        TestSet("RTE", "rte", 3000, _RTE),
        TestSet("WNLI", "wnli", 146, _coded("not_entailment", "entailment")),
        TestSet("AX", "nli", 1104, _NLI),
    )
}
MAJORITY = {"WNLI": "0"}  # what is submitted without a model: its dev set contradicts its training set
HEADER = "index\tprediction"


def score(found: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """The score of some tasks, and of GLUE where all nine are there.

    Args:
        found: task -> metric -> value. MNLI is `nli`, or `nli-m` and `nli-mm`, whose mean counts.

    Returns:
        `tasks`: task -> its score; `average`: over the tasks that are there, None without any; `missing`: names of the
        others; `whole`: there are none.

    Raises:
        InputError: a task of GLUE lacks one of its metrics, or is none of GLUE.
    """
    made: dict[str, float] = {}
    halves: list[float] = []
    for task, metrics in found.items():
        base = "nli" if task in ("nli-m", "nli-mm") else task
        if base not in TASKS:
            raise InputError(f"task {task!r} is none of GLUE\nexpected one of: {', '.join(TASKS)}, nli-m, nli-mm")
        lacking = [one for one in TASKS[base] if metrics.get(one) is None]
        if lacking:
            there = ", ".join(name for name, value in metrics.items() if value is not None) or "none"
            raise InputError(f"task {task}: no {lacking[0]}\nexpected {' and '.join(TASKS[base])}; found: {there}")
        value = sum(metrics[one] or 0.0 for one in TASKS[base]) / len(TASKS[base])
        if base != task:
            halves.append(value)
        made[base] = sum(halves) / len(halves) if base != task else value
    if halves and "nli" in found:
        raise InputError("tasks: found nli beside nli-m or nli-mm\nexpected one or the other")
    tasks = {task: made[task] for task in TASKS if task in made}
    missing = [NAMES[task] for task in TASKS if task not in made]
    average = sum(tasks.values()) / len(tasks) if tasks else None
    return {"tasks": tasks, "average": average, "missing": missing, "whole": not missing}


def lines(test: TestSet, predictions: list[Any], where: str) -> list[str]:
    """The lines of a file of a submission.

    Args:
        test: the test set.
        predictions: a class or a number for each row of the test set, in its order.
        where: for messages.

    Raises:
        InputError: a prediction is no class of the test set, or no finite number.
    """
    made = [HEADER]
    for index, one in enumerate(predictions):
        if test.labels is None:
            if not isinstance(one, int | float) or not math.isfinite(one):
                raise InputError(f"{where}: row {index}: found {one!r}\nexpected a finite number for {test.name}")
            made.append(f"{index}\t{min(5.0, max(0.0, one)):.3f}")
            continue
        if one not in test.labels:
            raise InputError(f"{where}: row {index}: found {one!r}\nexpected one of: {', '.join(test.labels)}")
        made.append(f"{index}\t{test.labels[one]}")
    return made


def write(test: TestSet, predictions: list[Any], folder: Path, where: str) -> Path:
    """NAME.tsv of a submission in `folder`; see `lines`."""
    made = lines(test, predictions, where)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{test.name}.tsv"
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(made) + "\n", encoding="utf-8")
    return path


def fault(test: TestSet, path: Path) -> str | None:
    """What the leaderboard would refuse of a file; None where it is right."""
    said = path.read_text(encoding="utf-8").splitlines()
    if not said or said[0] != HEADER:
        return f"{path.name}: found the first line {said[0] if said else ''!r}, expected {HEADER!r}"
    if len(said) - 1 != test.rows:
        return f"{path.name}: found {len(said) - 1} rows, expected {test.rows}, those of the official test set"
    for number, line in enumerate(said[1:]):
        index, _, value = line.partition("\t")
        if index != str(number):
            return f"{path.name}: line {number + 2}: found index {index!r}, expected {number}"
        if test.labels is not None and value not in test.labels.values():
            return (
                f"{path.name}: line {number + 2}: found {value!r}, expected one of: {', '.join(test.labels.values())}"
            )
        if test.labels is None and not _similarity(value):
            return f"{path.name}: line {number + 2}: found {value!r}, expected a number from 0 to 5"
    return None


def _similarity(value: str) -> bool:
    try:
        return 0 <= float(value) <= 5
    except ValueError:
        return False


def made() -> dict[str, str]:
    """The text of files that a submission may lack: WNLI as its majority class."""
    return {
        name: "\n".join([HEADER, *(f"{i}\t{label}" for i in range(TESTS[name].rows))]) + "\n"
        for name, label in MAJORITY.items()
    }
