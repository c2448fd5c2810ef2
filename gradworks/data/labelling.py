"""Weak supervision: labelling functions of a row, their votes, and how far these agree.

    from gradworks.data.labelling import ABSTAIN, labelling_function

    @labelling_function
    def praise(row):
        return "good" if "great" in row["text"] else ABSTAIN

A function returns the name of a class, or ABSTAIN (None). It may be wrong, may vote on few rows, and for one class
alone. `labelling_model.py` makes probabilities of the votes. (Data programming: Ratner et al. 2016, arXiv:1605.07723.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gradworks.base import Section, validate, words
from gradworks.base.errors import InputError
from gradworks.data import functions
from gradworks.data.functions import Function, Row

ABSTAIN = None
NONE = -1  # of a vote: the function abstained
SPLIT = "train"  # of what the stage `label` writes
FEWEST = 3  # functions, from which their accuracies can be told apart without labels


def labelling_function(call: Callable[[Row], Any] | None = None, *, name: str | None = None) -> Any:
    """Mark a function of a row (column -> value) as a labelling function.

    Args:
        call: the function, where the decorator has no brackets.
        name: of it in manifests and reports; by default the function's.
    """
    if call is None:
        return lambda one: functions.marked(one, "labelling", name)
    return functions.marked(call, "labelling", name)


class Weak(Section):
    """One source of the section `label`.

    Attributes:
        file: Python with labelling functions, relative to the checkout.
        from_: SOURCE/SPLIT of fetch, whose labels, if it has any, are not read.
        use: names of functions; by default all of the file.
        model: what makes probabilities of the votes, see `labelling_model`.
        gold: SOURCE/SPLIT with labels, on which the functions' accuracies are measured; nothing is learned from it.
    """

    file: str
    from_: str = Field(alias="from", pattern=r"^[^/]+/[^/]+$")
    use: list[str] | None = Field(None, min_length=1)
    model: Literal["dawid_skene", "majority"] = "dawid_skene"
    gold: str | None = Field(None, pattern=r"^[^/]+/[^/]+$")


@dataclass(frozen=True)
class Made:
    """What the stage `label` makes, beside the sources of `fetch`: one split to train on."""

    from_: str = "label:"
    kind: str = "label"
    task: None = None
    rows: None = None
    files: Mapping[str, str] = field(default_factory=lambda: {SPLIT: ""})


def check(kind: Any, where: str) -> None:
    """Raises InputError where a task's labels cannot be distributions over classes."""
    if not getattr(kind, "soft", False):
        raise InputError(
            f"{where}: found {kind.name}, a task of kind {kind.spec.kind}\nexpected a task of kind classification"
        )


def sources(
    names: Iterable[str], given: Mapping[str, Any], kind: Any, top: Path, where: str, known: Mapping[str, Any]
) -> dict[str, Made]:
    """What the section `label` makes, by name; its functions must be there.

    Args:
        names: of its sources. given: the section.
        kind: of the project's task. top: the checkout.
        where: params file and section, for messages.
        known: the sources of `fetch`.

    Raises:
        InputError: as `check` and `chosen`, or a source is not known.
    """
    made = {}
    for name in names:
        at = f"{where}.{name}"
        asked = validate(given[name], Weak, at)
        check(kind, at)
        for key, path in (("from", asked.from_), ("gold", asked.gold)):
            if path and path.split("/")[0] not in known:
                raise InputError(words.unknown(f"{at}.{key}", path.split("/")[0], known))
        chosen(asked, top, at)
        made[name] = Made()
    return made


def chosen(asked: Weak, top: Path, where: str) -> dict[str, Function]:
    """The functions that a source asks for, by name.

    Args:
        asked: the source. top: the checkout, to which `file` is relative.
        where: params file and key, for messages.

    Raises:
        InputError: the file is not as `functions.read` needs it, a name is unknown or twice, or too few for the model.
    """
    own = functions.read(top / asked.file, "labelling", f"{where}.file")
    wanted = list(own) if asked.use is None else asked.use
    for name in wanted:
        if name not in own:
            raise InputError(words.unknown(f"{where}.use", name, own))
        if wanted.count(name) > 1:
            raise InputError(f"{where}.use: found {name} twice\nexpected each function once")
    if asked.model == "dawid_skene" and len(wanted) < FEWEST:
        raise InputError(
            f"{where}.model: found dawid_skene and {len(wanted)} functions\n"
            f"expected at least {FEWEST}, whose agreement says how good each is, or model: majority"
        )
    return {name: own[name] for name in wanted}


def votes(chosen: Mapping[str, Function], rows: list[Row], classes: Sequence[str], every: bool = True) -> np.ndarray:
    """(n, m) class indices, NONE where a function abstained.

    Args:
        chosen: m functions. rows: n of them.
        classes: names, in the order of their indices.
        every: a function that abstains on all rows is an error.

    Raises:
        InputError: a function raises, returns what is no class, or abstains on all rows.
    """
    index = {name: i for i, name in enumerate(classes)}
    made = np.full((len(rows), len(chosen)), NONE, dtype=np.int64)
    for j, (name, function) in enumerate(chosen.items()):
        for i, one in enumerate(functions.apply(function, rows)):
            if one is ABSTAIN:
                continue
            if not isinstance(one, str) or one not in index:
                raise InputError(
                    f"{function.file}: labelling function {name}: row {rows[i]['id']}: returned {words.shown(one)}\n"
                    f"expected one of: {', '.join(classes)}, or ABSTAIN"
                )
            made[i, j] = index[one]
        if every and (made[:, j] == NONE).all():
            raise InputError(
                f"{function.file}: labelling function {name}: abstained on all {len(rows)} rows\n"
                "expected a vote on at least one"
            )
    return made


def check_overlap(names: Sequence[str], cast: np.ndarray, where: str) -> None:
    """Raises InputError for a function none of whose votes is beside another's: nothing says how often it is right."""
    for j, name in enumerate(names):
        if not (np.delete(cast, j, axis=1)[cast[:, j] != NONE] != NONE).any():
            raise InputError(
                f"{where}.model: found dawid_skene, and labelling function {name} votes on no row with another vote\n"
                "expected functions whose votes overlap, or model: majority"
            )


def doubted(functions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is said of functions whose estimated accuracy is outside the interval of the measured one."""
    said = []
    for name, one in functions.items():
        gold, estimated = one.get("gold"), one["estimated"]
        if gold and estimated is not None and not gold["low"] <= estimated <= gold["high"]:
            said.append(
                f"{name}: estimated accuracy {estimated:.2f}, measured {gold['accuracy']:.2f} [{gold['low']:.2f}, "
                f"{gold['high']:.2f}]: functions may not err independently"
            )
    return said


def described(
    names: Sequence[str],
    cast: np.ndarray,
    probabilities: np.ndarray,
    gold: tuple[np.ndarray, np.ndarray] | None,
    interval: Callable[[int, int], tuple[float, float]],
) -> dict[str, dict[str, Any]]:
    """Each function's figures, for the manifest and the report.

    Args:
        names: of the m functions.
        cast: (n, m) votes on all rows.
        probabilities: (n, C) of the label model; rows without votes are not read.
        gold: votes (k, m) on labelled rows, and their class indices (k,).
        interval: of a share: right, n -> low, high.

    Returns:
        name -> `votes`, `coverage` (share of rows with a vote), `overlap` (with another function's vote, too),
        `conflict` (with one for another class), `estimated` accuracy of its votes by the label model, and `gold`:
        votes, measured accuracy with its interval; None where it has no vote there.
    """
    made = {}
    for j, name in enumerate(names):
        mine = cast[:, j] != NONE
        others = np.delete(cast, j, axis=1)
        both = mine & (others != NONE).any(1)
        against = mine & ((others != NONE) & (others != cast[:, [j]])).any(1)
        sure = probabilities[mine, cast[mine, j]]
        made[name] = {
            "votes": int(mine.sum()), "coverage": float(mine.mean()), "overlap": float(both.mean()),
            "conflict": float(against.mean()), "estimated": float(sure.mean()) if len(sure) else None,
        }  # fmt: skip
        if gold is not None:
            there = gold[0][:, j] != NONE
            right, n = int((gold[0][there, j] == gold[1][there]).sum()), int(there.sum())
            low, high = interval(right, n) if n else (None, None)
            measured = {"votes": n, "accuracy": right / n, "low": low, "high": high} if n else None
            made[name]["gold"] = measured
    return made
