"""Exact match and F1 of answers in words, as SQuAD's official scripts count them (evaluate-v1.1.py, evaluate-v2.0.py).

Both are means over questions of the best of the gold answers; a question without an answer has the gold answer "".
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from gradworks.metrics._shared import clusters
from gradworks.metrics._shared.scores import Score, known

METRICS = ("answer_f1", "answer_em")
LOWER_IS_BETTER: tuple[str, ...] = ()
_PUNCTUATION = set(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)


def normal(answer: str) -> str:
    """Lower case, without ASCII punctuation, then without English articles, and one blank between words."""
    bare = "".join(one for one in answer.lower() if one not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact(gold: str, made: str) -> float:
    """1 where two answers are the same but for case, punctuation and articles."""
    return float(normal(gold) == normal(made))


def f1(gold: str, made: str) -> float:
    """Of the words, each as often as it occurs; where one answer has no words, 1 if the other has none either."""
    a, b = normal(gold).split(), normal(made).split()
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b))


def values(metric: str, gold: Sequence[Sequence[str]], made: Sequence[str]) -> np.ndarray:
    """(n,) of each question the best over its gold answers, of those that are more than articles and punctuation.

    evaluate-v2.0.py leaves out gold answers that normalise to nothing; a question that has no others has "".

    Args:
        metric: a name in METRICS.
        gold: (n,) gold answers, none for a question that cannot be answered.
        made: (n,) answers, "" for none.
    """
    known(metric, "a task of answers in a text", METRICS)
    one = exact if metric == "answer_em" else f1
    found = [
        max(one(true, answer) for true in ([true for true in golds if normal(true)] or [""]))
        for golds, answer in zip(gold, made, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def score(metric: str, gold: Sequence[Sequence[str]], made: Sequence[str]) -> Score:
    """One metric with its 95 % interval over questions, see `clusters.mean`; arguments as in `values`.

    Raises:
        InputError: an unknown metric.
    """
    return clusters.mean(metric, values(metric, gold, made))


def threshold(gold: Sequence[Sequence[str]], made: Sequence[str], scores: Sequence[float]) -> float:
    """Where to refuse to answer: the score above which a question counts as one without an answer, for the best F1.

    As `find_best_thresh` of evaluate-v2.0.py: from the lowest score to the highest, the first of equals; each question
    that is answered gains its F1, one without an answer loses its 1.

    Args:
        gold: (n,) gold answers, none for a question without.
        made: (n,) the best answer that is one.
        scores: (n,) how much better no answer is.
    """
    best = now = float(sum(not golds for golds in gold))
    found = -np.inf
    gains = values("answer_f1", gold, made)
    order = np.argsort(scores, kind="stable")
    for i, at in enumerate(order):
        now += gains[at] if gold[at] else -1.0
        if now > best and (i + 1 == len(order) or scores[order[i + 1]] > scores[at]):
            best, found = now, scores[at]
    return float(found)
