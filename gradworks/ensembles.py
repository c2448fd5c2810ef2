"""Ensembles of predictions: averaged probabilities of members, always aligned by example id.

Members may differ in tokenisation, order and seed, so nothing but the id says which rows belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradworks.base.errors import InputError


@dataclass(frozen=True)
class Member:
    """What one model predicts.

    Attributes:
        name: where it is from, for messages.
        ids: n example ids.
        labels: (n,) class names; numbers for regression.
        outputs: (n, classes) probabilities; (n,) values for regression.
    """

    name: str
    ids: tuple[str, ...]
    labels: np.ndarray
    outputs: np.ndarray


def align(members: Sequence[Member]) -> list[Member]:
    """The members, rows in the order of the first one's ids.

    Raises:
        InputError: an id stands twice, a member lacks an id that another one has, or the labels of an id differ.
    """
    first = members[0]
    aligned = []
    for member in members:
        place = {key: i for i, key in enumerate(member.ids)}
        if len(place) < len(member.ids):
            twice = next(key for i, key in enumerate(member.ids) if place[key] != i)
            raise InputError(f"{member.name}: id {twice} stands twice")
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
    """The members with those rows alone whose ids all of them have, each in its own order."""
    shared = set(members[0].ids).intersection(*(member.ids for member in members))
    made = []
    for member in members:
        kept = [i for i, key in enumerate(member.ids) if key in shared]
        ids = tuple(member.ids[i] for i in kept)
        made.append(replace(member, ids=ids, labels=member.labels[kept], outputs=member.outputs[kept]))
    return made


def mean(members: Sequence[Member]) -> np.ndarray:
    """(n, classes) mean probabilities, or (n,) mean values, of aligned members."""
    return np.mean([member.outputs for member in members], axis=0)


def oracle(members: Sequence[Member], classes: Sequence[str] | None) -> np.ndarray:
    """Outputs of a chooser that knows the labels: on each example the best of the aligned members.

    With classes: the probabilities of the first member that is right (of the first one where none is), so that
    accuracy is the share of examples on which any member is right. For regression: the value closest to the label.
    """
    outputs = np.stack([member.outputs for member in members])  # (members, n, ...)
    labels = members[0].labels
    if classes is None:
        best = np.abs(outputs - labels.astype(np.float64)).argmin(axis=0)
    else:
        best = (np.asarray(classes)[outputs.argmax(-1)] == labels).argmax(axis=0)
    return outputs[best, np.arange(len(labels))]


def disagreement(members: Sequence[Member], classes: Sequence[str] | None) -> dict[str, float]:
    """`A | B` -> share of examples on which two aligned members choose different classes (regression: mean |a - b|)."""
    found = {}
    for i, one in enumerate(members):
        for other in members[i + 1 :]:
            if classes is None:
                apart = np.abs(one.outputs - other.outputs)
            else:
                apart = one.outputs.argmax(-1) != other.outputs.argmax(-1)
            found[f"{one.name} | {other.name}"] = float(apart.mean())
    return found
