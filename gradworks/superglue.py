"""The files of a SuperGLUE submission: NAME.jsonl, an object a line, in the order of the official test file.

Wang et al., SuperGLUE: A Stickier Benchmark for General-Purpose Language Understanding Systems (NeurIPS 2019). A row is
{"idx": ..., "label": ...}; labels differ from file to file, and MultiRC nests answers in questions in passages. Forms
and names are those that jiant writes, by the benchmark's authors: truth is "true" and "false" in BoolQ and WiC, "True"
and "False" in WSC, and COPA's choices are the numbers 0 and 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError

SUFFIX = "jsonl"
GROUPED, FREE = "multirc", "record"  # tasks whose rows are nested, and whose labels are texts


@dataclass(frozen=True)
class TestSet:
    """One file of a submission.

    Attributes:
        name: of the file, without suffix. task: a row of gradworks/tasks/ whose model answers it.
        rows: that need an answer; of MultiRC its answers.
        labels: class -> what the file says; None where that is a text.
    """

    name: str
    task: str
    rows: int
    labels: Mapping[str, str | int] | None


def _same(*classes: str) -> dict[str, str | int]:
    return {one: one for one in classes}


_TRUTH = _same("false", "true")
_RTE = _same("entailment", "not_entailment")
TESTS = {
    one.name: one
    for one in (
        TestSet("BoolQ", "boolq", 3245, _TRUTH),
        TestSet("CB", "cb", 250, _same("entailment", "contradiction", "neutral")),
        TestSet("COPA", "copa", 500, {"choice1": 0, "choice2": 1}),
        TestSet("MultiRC", GROUPED, 9693, {"false": 0, "true": 1}),
        TestSet("ReCoRD", FREE, 10000, None),
        TestSet("RTE", "rte", 3000, _RTE),
        TestSet("WiC", "wic", 1400, _TRUTH),
        TestSet("WSC", "wsc", 146, {"false": "False", "true": "True"}),
        TestSet("AX-b", "rte", 1104, _RTE),
        TestSet("AX-g", "rte", 356, _RTE),
    )
}


def lines(test: TestSet, ids: Sequence[str], predictions: Sequence[Any], where: str) -> list[str]:
    """The lines of a file of a submission.

    Args:
        test: the test set.
        ids: of its rows, in their order: idx, of MultiRC PASSAGE-QUESTION-ANSWER.
        predictions: a class or a text for each.
        where: for messages.

    Raises:
        InputError: a prediction is no class of the test set.
    """
    said = []
    for key, one in zip(ids, predictions, strict=True):
        if test.labels is not None and one not in test.labels:
            raise InputError(f"{where}: row {key}: found {one!r}\nexpected one of: {', '.join(test.labels)}")
        said.append(one if test.labels is None else test.labels[one])
    if test.task != GROUPED:
        return [json.dumps({"idx": int(key), "label": one}) for key, one in zip(ids, said, strict=True)]
    passages: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for key, one in zip(ids, said, strict=True):
        passage, question, answer = map(int, key.split("-"))
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": one})
    return [
        json.dumps({"idx": passage, "passage": {"questions": [{"idx": q, "answers": a} for q, a in questions.items()]}})
        for passage, questions in passages.items()
    ]


def write(test: TestSet, ids: Sequence[str], predictions: Sequence[Any], folder: Path, where: str) -> Path:
    """NAME.jsonl of a submission in `folder`; see `lines`."""
    made = lines(test, ids, predictions, where)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{test.name}.jsonl"
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(made) + "\n", encoding="utf-8")
    return path


def _rows(test: TestSet, text: str) -> Iterable[tuple[Any, Any]]:
    """(idx, label) of what needs an answer. Raises ValueError, KeyError or TypeError."""
    for line in text.splitlines():
        found = json.loads(line)
        if test.task != GROUPED:
            yield found["idx"], found["label"]
            continue
        for question in found["passage"]["questions"]:
            for answer in question["answers"]:
                yield (found["idx"], question["idx"], answer["idx"]), answer["label"]


def fault(test: TestSet, path: Path) -> str | None:
    """What the leaderboard would refuse of a file; None where it is right."""
    try:
        rows = list(_rows(test, path.read_text(encoding="utf-8")))
        distinct = len({key for key, _ in rows})
    except (ValueError, KeyError, TypeError) as error:
        return f"{path.name}: no rows of {test.name}: {type(error).__name__} {error}"
    if len(rows) != test.rows:
        return f"{path.name}: found {len(rows)} answers, expected {test.rows}, those of the official test set"
    if distinct < len(rows):
        return f"{path.name}: found {len(rows) - distinct} rows twice, expected each idx once"
    for key, label in rows:
        if test.labels is None:
            if not isinstance(label, str) or not label.strip():
                return f"{path.name}: idx {key}: found {label!r}, expected a text"
        elif not any(label == one and type(label) is type(one) for one in test.labels.values()):
            return f"{path.name}: idx {key}: found {label!r}, expected one of: {list(test.labels.values())}"
    return None


def made() -> dict[str, str]:
    """The text of files that a submission may lack: none may."""
    return {}
