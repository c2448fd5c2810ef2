"""Ensembles of predictions: answers of members put together, always aligned by example id.

Members may differ in tokenisation, order, split and seed, so only the id identifies an example. What is fitted
(weights, a choice of members) is fitted on held-out examples that no member has trained on, never on those that are
scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

ROUNDS = 25  # of `greedy`
_SURE = 1e-15  # smallest probability that counts


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


def weighted(members: Sequence[Member], weights: Sequence[float]) -> np.ndarray:
    """(n, ...) the mean answer of the aligned members by these weights, which sum to 1."""
    return np.tensordot(np.asarray(weights, dtype=np.float64), _stacked(members), axes=1)


def has_weights(members: Sequence[Member], kind: Kind) -> bool:
    """Whether answers are probabilities of classes or numbers, so that a weighted mean of them is an answer."""
    return kind.calibrated or all(member.outputs.ndim == 1 and member.outputs.dtype.kind == "f" for member in members)


def weights(members: Sequence[Member], kind: Kind) -> list[float]:
    """The weights, not negative and of sum 1, whose weighted mean answers the aligned members' examples best.

    Of classes those with the least log loss, by expectation maximisation of mixture proportions (Dempster, Laird and
    Rubin 1977); the loss is convex, so these are the best there are. Of numbers those with the least squared error.
    The order of members does not matter. Cost: none but arithmetic on n * m numbers, at most 5,000 times.

    Args:
        members: of held-out examples that none of them trained on.
        kind: of the task; see `has_weights`.
    """
    order = _by_name(members)
    answers, labels = _stacked([members[i] for i in order]), members[0].labels
    if kind.calibrated:
        found = _proportions(answers[:, np.arange(len(labels)), kind.indices(labels)].clip(_SURE))
    else:
        found = _least_squares(answers, np.asarray(labels, dtype=np.float64))
    return [float(found[order.index(i)]) for i in range(len(members))]


def _proportions(right: np.ndarray) -> np.ndarray:
    """(m,) mixture weights with the largest mean log of the (m, n) probabilities of the labels."""
    found = np.full(len(right), 1 / len(right))
    for _ in range(5000):
        shares = found[:, None] * right
        moved = (shares / shares.sum(axis=0)).mean(axis=1)
        if np.abs(moved - found).max() < 1e-9:
            break
        found = moved
    return found / found.sum()


def _least_squares(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(m,) weights of (m, n) numbers, by non-negative least squares with the sum as a heavy equation."""
    from scipy.optimize import nnls

    heavy = 1e4 * max(1.0, float(np.abs(answers).max())) * math.sqrt(len(labels))
    found = nnls(np.vstack([answers.T, np.full(len(answers), heavy)]), np.append(labels, heavy))[0]
    return found / found.sum()


def greedy(
    members: Sequence[Member], kind: Kind, value: Callable[[np.ndarray], tuple[float, ...]], rounds: int = ROUNDS
) -> list[int]:
    """How often each aligned member is in the best bag that is found by adding the best one, again and again.

    Forward selection with replacement (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004, section
    2.1): each round adds the member with which the mean answer has the highest value, and the best of all rounds
    counts, the first of equals. Of members that are as good the first by name is added, so order does not matter.

    Args:
        members: of held-out examples that none of them trained on.
        kind: of the task; its `mean` puts the bag's answers together.
        value: of answers (n, ...), higher is better; later parts decide between equals.
        rounds: members in the largest bag. Cost: one value for each round and member.
    """
    order = _by_name(members)
    answers = _stacked(members)
    bag: list[int] = []
    best: tuple[tuple[float, ...], list[int]] | None = None
    for _ in range(rounds):
        tried = [(value(kind.mean(answers[[*bag, i]])), i) for i in order]
        top = max(one for one, _ in tried)
        bag.append(next(i for one, i in tried if one == top))
        if best is None or top > best[0]:
            best = top, list(bag)
    return [best[1].count(i) if best else 0 for i in range(len(members))]


def gap(ours: np.ndarray | None, theirs: np.ndarray | None, comparisons: int = 1) -> tuple[float, float] | None:
    """The 95 % interval of the mean difference of what each example adds to two scores, paired by example.

    Args:
        ours, theirs: (n,) of `Kind.shares`; None where a score has none.
        comparisons: that hold at once (Bonferroni).
    """
    if ours is None or theirs is None or len(ours) < 2:
        return None
    from scipy.special import stdtrit

    apart = ours - theirs
    half = float(stdtrit(len(apart) - 1, 1 - 0.025 / comparisons)) * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    return float(apart.mean()) - half, float(apart.mean()) + half


BUCKETS = ("both right", "only the first", "only the second", "both wrong")


def buckets(one: np.ndarray, other: np.ndarray, labels: np.ndarray, kind: Kind) -> list[str]:
    """Which of two sets of answers to the same n examples of classes are right, a name of BUCKETS for each."""
    truth = kind.indices(labels)
    right = [answers.argmax(axis=1) == truth for answers in (one, other)]
    return [BUCKETS[(not a) * 2 + (not b)] for a, b in zip(*right, strict=True)]


def exact(only_one: int, only_other: int) -> float:
    """McNemar's exact two-sided p: whether one of two is right more often, by the examples on which only one is."""
    n, few = only_one + only_other, min(only_one, only_other)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)


def _by_name(members: Sequence[Member]) -> list[int]:
    return sorted(range(len(members)), key=lambda i: members[i].name)


def _stacked(members: Sequence[Member]) -> np.ndarray:
    return np.stack([member.outputs for member in members])
