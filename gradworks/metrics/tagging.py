"""Metrics of tags of words: F1 of entities as conlleval (and its port seqeval) counts them, the share of right tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradworks.metrics._shared import clusters
from gradworks.metrics._shared.scores import Score, known

METRICS = ("entity_f1", "tag_accuracy")
LOWER_IS_BETTER: tuple[str, ...] = ()


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, first and last word of each entity of a sentence.

    Tags are O, or PREFIX-TYPE of the schemes IOB1, IOB2 and IOBES; one without a prefix is read as I. An entity begins
    at B and S, after E, S and O, and where the type changes, as conlleval.pl (CoNLL-2000) has it, so that a scheme
    that a model breaks still counts.
    """
    found: set[tuple[str, int, int]] = set()
    before, kind, first = "O", "", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, of = tag.partition("-")
        if prefix not in ("B", "I", "E", "S", "O"):
            prefix, of = "I", tag
        if before != "O" and (before in ("E", "S") or prefix in ("B", "S", "O") or of != kind):
            found.add((kind, first, i - 1))
            before = "O"
        if before == "O" and prefix != "O":
            first = i
        before, kind = prefix, of
    return found


def _counts(metric: str, labels: Sequence[str], tags: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) counts, and what a sentence adds that is all wrong, and all right."""
    made = []
    for label, given in zip(labels, tags, strict=True):
        true = label.split()
        if len(true) != len(given):
            raise ValueError(f"{len(true)} tags of a sentence, {len(given)} predicted")
        if metric == "tag_accuracy":
            made.append((sum(a == b for a, b in zip(true, given, strict=True)), len(true)))
        else:
            a, b = entities(true), entities(given)
            made.append((len(a & b), len(b), len(a)))
    counts = np.array(made, dtype=np.float64)
    size = counts[:, -1].mean()
    return counts, np.array([[0, *[size] * (counts.shape[1] - 1)], [size] * counts.shape[1]])


def score(metric: str, labels: Sequence[str], tags: Sequence[Sequence[str]]) -> Score:
    """One metric with its 95 % interval over sentences, see `clusters.score`; n sentences.

    Args:
        metric: a name in METRICS. `entity_f1` is the micro average over types.
        labels: (n,) tags of each sentence, joined by blanks.
        tags: (n,) predicted tags, as many as there are words.

    Raises:
        InputError: an unknown metric.
    """
    known(metric, "a task of tags", METRICS)
    if not len(labels):
        return Score(None, 0, note="no examples")
    counts, right = _counts(metric, labels, tags)
    return clusters.score(metric, counts, clusters.f1 if metric == "entity_f1" else clusters.ratio, right)


def shares(metric: str, labels: Sequence[str], tags: Sequence[Sequence[str]]) -> np.ndarray | None:
    """(n,) what each sentence adds to a score, see gradworks.metrics."""
    if len(labels) < 2:
        return None
    return clusters.shares(_counts(metric, labels, tags)[0], clusters.f1 if metric == "entity_f1" else clusters.ratio)
