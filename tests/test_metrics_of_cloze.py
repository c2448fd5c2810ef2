"""Exact match and F1 of blanks against ReCoRD's official script, written out here, on hand-made cases."""

import collections
import re
import string

import numpy as np
import pytest

from gradworks.metrics import cloze

# evaluate.py of ReCoRD v1.0


def normalize_answer(s):
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def f1_score(prediction, truth):
    made, true = normalize_answer(prediction).split(), normalize_answer(truth).split()
    num_same = sum((collections.Counter(made) & collections.Counter(true)).values())
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(made), 1.0 * num_same / len(true)
    return (2 * precision * recall) / (precision + recall)


def official(golds, made):
    exact = max(normalize_answer(made) == normalize_answer(one) for one in golds)
    return float(exact), max(f1_score(made, one) for one in golds)


CASES = [
    (["Barack Obama"], "Barack Obama", 1, 1),
    (["Barack Obama"], "Obama", 0, 2 / 3),
    (["Obama", "Barack Obama"], "Obama", 1, 1),  # several gold answers: the best counts
    (["Barack Obama", "Mr Obama"], "President Obama", 0, 0.5),
    (["The Hague"], "hague", 1, 1),
    (["U.S."], "us", 1, 1),
    (["Tyson-Smith"], "TysonSmith", 1, 1),
    (["New York New York"], "New York", 0, 2 / 3),  # each word as often as it occurs
    (["São Paulo"], "SÃO PAULO", 1, 1),
    (["São Paulo"], "Sao Paulo", 0, 0.5),
    (["İstanbul"], "istanbul", 0, 0),  # lower case of İ has a dot of its own
    (["d’Or"], "dOr", 0, 0),  # not ASCII punctuation
    (["the"], "a", 1, 0),  # no words at all: equal, but nothing in common
    (["A"], "", 1, 0),
    (["Rome"], "", 0, 0),
]


@pytest.mark.parametrize(("golds", "made", "em", "f1"), CASES)
def test_cases(golds, made, em, f1):
    assert official(golds, made) == (em, pytest.approx(f1))
    assert cloze.values("cloze_em", [golds], [made]).tolist() == [em]
    assert cloze.values("cloze_f1", [golds], [made]).tolist() == [pytest.approx(f1)]


def test_means_over_questions_and_none():
    golds, made = [one[0] for one in CASES], [one[1] for one in CASES]
    for metric, column in (("cloze_em", 2), ("cloze_f1", 3)):
        found = cloze.score(metric, golds, made)
        assert found.value == pytest.approx(sum(one[column] for one in CASES) / len(CASES)) and found.n == len(CASES)
        assert found.low < found.value < found.high
    assert cloze.score("cloze_f1", [], []).value is None


def test_the_baseline_is_the_candidate_that_is_most_like_the_others():
    draw = np.random.default_rng(0)
    words = ["the", "New", "York", "Mets", "a", "U.S.", "York"]
    for _ in range(50):
        names = [" ".join(draw.choice(words, draw.integers(1, 4))) for _ in range(draw.integers(1, 7))]
        each = [sum(f1_score(a, b) for j, b in enumerate(names) if j != i) for i, a in enumerate(names)]
        assert each[cloze.nearest(names)] == pytest.approx(max(each))
    assert cloze.nearest(["Mets", "York", "Rome"]) == 0  # the first of equals
