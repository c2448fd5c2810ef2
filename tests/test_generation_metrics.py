"""Metrics of written texts: by hand and by a second implementation; intervals by their coverage."""

import builtins
import math
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from gradworks.base.errors import InputError
from gradworks.metrics import generation
from gradworks.metrics._shared.scores import wilson

METRICS = ("rouge1", "rouge2", "rougeL")
HAND = [  # reference, text, F1 of rouge1, rouge2, rougeL
    ("the cat sat on the mat", "the cat sat on the mat", 1, 1, 1),
    ("the cat sat on the mat", "the cat", 2 * 1 * (2 / 6) / (1 + 2 / 6), 2 * 1 * (1 / 5) / (1 + 1 / 5), 0.5),
    ("the cat sat on the mat", "on the mat the cat sat", 1, 4 / 5, 0.5),  # subsequence "the cat sat" or "on the mat"
    ("the the cat", "the dog", 2 / 5, 0, 2 / 5),  # a word counts as often as both have it
    ("The U.S. won!", "the u s won", 1, 1, 1),  # case and punctuation
    ("a b c d", "e f", 0, 0, 0),
    ("a b", "", 0, 0, 0),
    ("one", "one", 1, 0, 1),  # no pair of words
    ("naïve café", "na ve caf", 1, 1, 1),  # what is no letter from a to z separates words
]  # fmt: skip


@pytest.mark.parametrize(("reference", "text", *METRICS), HAND)
def test_rouge_by_hand(reference, text, rouge1, rouge2, rougeL):
    for name, value in zip(METRICS, (rouge1, rouge2, rougeL), strict=True):
        assert generation.rouge(name, reference, text) == pytest.approx(value, abs=1e-6), name


def by_definition(name, reference, text):
    """Lin (2004), sections 2 and 3: common n-grams, and the longest common subsequence by trying them all."""
    a, b = (re.findall("[a-z0-9]+", one.lower()) for one in (reference, text))
    if name == "rougeL":
        common, sizes = 0, (len(a), len(b))
        for k in range(min(sizes), 0, -1):
            if set(combinations(a, k)) & set(combinations(b, k)):
                common = k
                break
    else:
        n = int(name[-1])
        grams = [Counter(zip(*(one[i:] for i in range(n)), strict=False)) for one in (a, b)]
        common, sizes = (grams[0] & grams[1]).total(), tuple(one.total() for one in grams)
    return 2 * common / sum(sizes) if common else 0.0


def test_rouge_by_its_definition_on_drawn_texts():
    draw = np.random.default_rng(0)
    for _ in range(150):
        reference, text = (" ".join(draw.choice(["a", "B", "c,", "d"], draw.integers(1, 9))) for _ in range(2))
        for name in METRICS:
            assert generation.rouge(name, reference, text) == pytest.approx(
                by_definition(name, reference, text), abs=1e-6
            )


def answers(texts, nll, tokens):
    made = np.zeros(len(texts), generation.ANSWERS)
    made["text"], made["nll"], made["tokens"] = texts, nll, tokens
    return made


def test_perplexity_is_that_of_all_tokens_and_exact_match_leaves_blanks_out():
    labels = np.array(["a b", "c", "d"], dtype=object)
    found = answers(["a  b ", "C", "d"], [2.0, 9.0, 1.0], [2, 6, 4])
    perplexity = generation.score("perplexity", labels, found)
    assert perplexity.value == pytest.approx(math.exp(12 / 12)) and perplexity.note.startswith("12 tokens")
    match = generation.score("exact_match", labels, found)
    assert (match.value, match.low, match.high) == (2 / 3, *wilson(2, 3))
    assert generation.score("rouge1", labels, found).value == 1.0
    for metric in generation.METRICS:
        score, added = generation.score(metric, labels, found), generation.shares(metric, labels, found)
        assert added.shape == (3,) and added.mean() == pytest.approx(score.value)


def test_what_is_not_defined_says_why():
    none = np.array([], dtype=object)
    assert generation.score("rouge1", none, answers([], [], [])).note == "no examples"
    bad = generation.score("perplexity", np.array(["a", "b"]), answers(["", ""], [np.nan, 1.0], [1, 1]))
    assert bad.value is None and bad.note == "1 of 2 likelihoods are not finite"
    assert generation.shares("perplexity", ["a", "b"], answers(["", ""], [np.nan, 1.0], [1, 1])) is None
    assert generation.score("perplexity", ["a"] * 2, answers(["", ""], [1e5, 1e5], [1, 1])).value < math.inf
    with pytest.raises(InputError, match="metric 'bleu' does not fit a task of texts"):
        generation.score("bleu", none, answers([], [], []))
    with pytest.raises(ValueError, match="1 labels but 2 answers"):
        generation.score("rouge1", ["a"], answers(["a", "b"], [1, 1], [1, 1]))


def test_without_the_library_rouge_is_refused_in_words(monkeypatch):
    def missing(name, *args, **options):
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return found(name, *args, **options)

    found = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"ROUGE: torchmetrics is not installed\nexpected: pip install"):
        generation.check_library(["perplexity", "rouge2"])
    generation.check_library(["perplexity", "exact_match"])


@pytest.mark.parametrize("n", [30, 200])
def test_the_interval_of_a_perplexity_holds_the_true_one(n):
    """Lengths differ, and so does how hard an example is: the nll of the tokens of one go together."""
    draw, held, runs = np.random.default_rng(n), 0, 2000
    for _ in range(runs):
        tokens = draw.integers(1, 20, n)
        nll = tokens * draw.gamma(4, 0.25, n)  # mean 1 a token
        score = generation.score("perplexity", [""] * n, answers([""] * n, nll, tokens))
        held += score.low <= math.e <= score.high
    assert 0.93 < held / runs < 0.97


@pytest.mark.parametrize("n", [30, 200])
def test_the_interval_of_a_mean_of_f1_holds_the_true_one(n, monkeypatch):
    draw, held, runs = np.random.default_rng(n), 0, 2000
    for _ in range(runs):
        values = draw.beta(0.6, 2.4, n)  # mean .2, many near 0
        monkeypatch.setattr(generation, "_values", lambda *_, values=values: values)
        score = generation.score("rougeL", [""] * n, answers([""] * n, 0, 0))
        assert 0 <= score.low <= score.value <= score.high <= 1
        held += score.low <= 0.2 <= score.high
    assert 0.93 < held / runs < 0.97
