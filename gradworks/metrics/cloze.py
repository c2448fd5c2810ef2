"""Exact match and F1 of filled blanks, as ReCoRD's official script counts them (evaluate.py of v1.0; SuperGLUE's too).

Both are means over questions of the best of the gold answers. Unlike in SQuAD's second script an answer without words
has the F1 0, also where the gold answer has none either, and no gold answer is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gradworks.metrics import span
from gradworks.metrics._shared import clusters
from gradworks.metrics._shared.scores import Score, known

METRICS = ("cloze_f1", "cloze_em")
LOWER_IS_BETTER: tuple[str, ...] = ()


def f1(gold: str, made: str) -> float:
    """Of the words, each as often as it occurs; 0 where they share none."""
    a, b = span.normal(gold).split(), span.normal(made).split()
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


def values(metric: str, gold: Sequence[Sequence[str]], made: Sequence[str]) -> np.ndarray:
    """(n,) of each question the best over its gold answers.

    Args:
        metric: a name in METRICS.
        gold: (n,) gold answers, one or more.
        made: (n,) answers.
    """
    known(metric, "a task of blanks", METRICS)
    one = span.exact if metric == "cloze_em" else f1
    found = [max(one(true, answer) for true in golds) for golds, answer in zip(gold, made, strict=True)]
    return np.array(found, dtype=np.float64)


def score(metric: str, gold: Sequence[Sequence[str]], made: Sequence[str]) -> Score:
    """One metric with its 95 % interval over questions, see `clusters.mean`; arguments as in `values`.

    Raises:
        InputError: an unknown metric.
    """
    return clusters.mean(metric, values(metric, gold, made))


def nearest(candidates: Sequence[str]) -> int:
    """The one with the highest F1 against the others, the first of equals: SuperGLUE's baseline that reads no text."""
    counts = [Counter(span.normal(one).split()) for one in candidates]
    place = {word: i for i, word in enumerate(dict.fromkeys(word for one in counts for word in one))}
    of = np.zeros((len(counts), len(place)))
    for row, words in zip(of, counts, strict=True):
        for word, times in words.items():
            row[place[word]] = times
    total = of.sum(1)[:, None] + of.sum(1)
    each = 2 * np.minimum(of[:, None], of[None]).sum(2) / np.where(total > 0, total, 1)
    return int((each.sum(1) - each.diagonal()).argmax())
