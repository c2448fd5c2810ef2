"""Ensembles of predictions: averaged answers of members, always aligned by example id.

Members may differ in tokenisation, order and seed, so only the id identifies an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind


@dataclass(frozen=True)
class Member:
    """What one model predicts.

    Attributes:
        name: its origin, for messages.
        ids: n example ids.
        labels: (n,) as in the table.
        outputs: (n, ...) answers, see gradworks.tasks.kinds.
    """

    name: str
    ids: tuple[str, ...]
    labels: np.ndarray
    outputs: np.ndarray


def align(members: Sequence[Member]) -> list[Member]:
    """The members, rows in the order of the first one's ids.

    Raises:
        InputError: an id is duplicate, a member lacks an id that another one has, or the labels of an id differ.
    """
    first = members[0]
    aligned = []
    for member in members:
        place = {key: i for i, key in enumerate(member.ids)}
        if len(place) < len(member.ids):
            twice = next(key for i, key in enumerate(member.ids) if place[key] != i)
            raise InputError(f"{member.name}: duplicate id {twice}")
        for one, other in ((first, member), (member, first)):
            lacking = sorted(set(one.ids) - set(other.ids))
            if lacking:
                raise InputError(
                    f"{other.name}: id {lacking[0]} is missing, which {one.name} has ({len(lacking)} such ids)\n"
                    "expected: members that were tested on the same examples"
                )
        order = np.array([place[key] for key in first.ids], dtype=np.int64)
        moved = replace(member, ids=first.ids, labels=member.labels[order], outputs=member.outputs[order])
        different = np.flatnonzero(moved.labels != first.labels)
        if len(different):
            i = different[0]
            raise InputError(
                f"{member.name}: id {first.ids[i]}: label {moved.labels[i]}, but {first.labels[i]} in {first.name}"
            )
        aligned.append(moved)
    return aligned


def common(members: Sequence[Member]) -> list[Member]:
    """The members, restricted to the ids that all of them have, each in its own order."""
    shared = set(members[0].ids).intersection(*(member.ids for member in members))
    made = []
    for member in members:
        kept = [i for i, key in enumerate(member.ids) if key in shared]
        ids = tuple(member.ids[i] for i in kept)
        made.append(replace(member, ids=ids, labels=member.labels[kept], outputs=member.outputs[kept]))
    return made


def mean(members: Sequence[Member], kind: Kind) -> np.ndarray:
    """(n, ...) the mean answer of the aligned members: mean probabilities, or mean values."""
    return kind.mean(_stacked(members))


def oracle(members: Sequence[Member], kind: Kind) -> np.ndarray:
    """(n, ...) answers of a chooser that knows the labels: on each example the best of the aligned members."""
    answers, labels = _stacked(members), members[0].labels
    return answers[kind.best(answers, labels), np.arange(len(labels))]


def disagreement(members: Sequence[Member], kind: Kind) -> dict[str, float]:
    """`A | B` -> mean distance of two aligned members over examples; for classes, the share on which they disagree."""
    return {
        f"{one.name} | {other.name}": float(kind.apart(one.outputs, other.outputs).mean())
        for i, one in enumerate(members)
        for other in members[i + 1 :]
    }


def _stacked(members: Sequence[Member]) -> np.ndarray:
    return np.stack([member.outputs for member in members])
