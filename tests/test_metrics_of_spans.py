"""Exact match and F1 against SQuAD's official scripts, written out here, by hand-made cases and on real answers."""

import collections
import json
import re
import string

import numpy as np
import pytest

from gradworks.metrics import span

# evaluate-v2.0.py


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def get_tokens(s):
    return normalize_answer(s).split() if s else []


def compute_f1(a_gold, a_pred):
    gold_toks, pred_toks = get_tokens(a_gold), get_tokens(a_pred)
    num_same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = num_same / len(pred_toks), num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def official(golds, pred):
    gold_answers = [a for a in golds if normalize_answer(a)] or [""]
    exact = max(int(normalize_answer(a) == normalize_answer(pred)) for a in gold_answers)
    return exact, max(compute_f1(a, pred) for a in gold_answers)


CASES = [
    (["the Denver Broncos"], "Denver Broncos", 1, 1),
    (["Denver Broncos!"], "a denver  broncos", 1, 1),
    (["Denver Broncos"], "Broncos of Denver", 0, 0.8),
    (["Broncos", "Denver Broncos"], "denver", 0, 2 / 3),
    ([], "", 1, 1),
    ([], "something", 0, 0),
    (["something"], "", 0, 0),
    (["the"], "", 1, 1),  # a gold answer that is an article alone counts as none
    (["the", "Rome"], "", 0, 0),
    (["a"], "an", 1, 1),
    (["naïve café"], "NAÏVE CAFÉ", 1, 1),
    (["Straße"], "strasse", 0, 0),
    (["10,000"], "10000", 1, 1),
    (["$5.00"], "500", 1, 1),
    (["“quoted”"], "quoted", 0, 0),  # only ASCII punctuation is taken off
    (["and answer"], "answer", 0, 2 / 3),  # `an` inside a word stays
    (["to be or not to be"], "to be", 0, 0.5),
    (["x x y"], "x y y", 0, 2 / 3),
    (["a-b"], "b", 0, 0),  # punctuation goes before articles: ab
]


@pytest.mark.parametrize(("gold", "made", "exact", "f1"), CASES)
def test_cases(gold, made, exact, f1):
    assert official(gold, made) == (exact, pytest.approx(f1))
    assert span.values("answer_em", [gold], [made]).tolist() == [exact]
    assert span.values("answer_f1", [gold], [made]).tolist() == [pytest.approx(f1)]


def test_means_and_intervals():
    gold, made = [one[0] for one in CASES], [one[1] for one in CASES]
    for metric, column in (("answer_em", 2), ("answer_f1", 3)):
        found = span.score(metric, gold, made)
        assert found.value == pytest.approx(np.mean([one[column] for one in CASES])) and found.n == len(CASES)
        assert 0 <= found.low < found.value < found.high <= 1
    assert span.score("answer_f1", [], []).value is None


def test_on_real_answers(data):
    """Each question answered with the answer of another one, and with parts of its own."""
    articles = json.loads((data / "squad/dev-v2.0-10-articles.json").read_text())["data"][:3]
    rows = [[a["text"] for a in q["answers"]] for a in articles for p in a["paragraphs"] for q in p["qas"]]
    draw = np.random.default_rng(0)
    every = [text for row in rows for text in row]
    for row in rows:
        whole = row[0] if row and draw.random() < 0.5 else every[draw.integers(len(every))]
        made = whole[: draw.integers(len(whole) + 1)] if draw.random() < 0.3 else whole
        exact, f1 = official(row, made)
        assert span.values("answer_em", [row], [made])[0] == exact
        assert span.values("answer_f1", [row], [made])[0] == pytest.approx(f1)


def test_the_threshold_is_the_best_of_all():
    draw = np.random.default_rng(0)
    for _ in range(200):
        n = int(draw.integers(1, 12))
        gold = [["x"] if draw.random() < 0.6 else [] for _ in range(n)]
        made = [["x", "y", "x y"][draw.integers(3)] for _ in range(n)]
        scores = draw.integers(-3, 4, n) / 2  # with ties

        def reached(limit, gold=gold, made=made, scores=scores):
            return span.values(
                "answer_f1", gold, ["" if s > limit else m for m, s in zip(made, scores, strict=True)]
            ).sum()

        best = max(reached(limit) for limit in [-np.inf, *scores])
        assert reached(span.threshold(gold, made, scores)) == pytest.approx(best)
