"""The synthetic data: the labels are the rule's, the overlap misleads as promised, the splits are disjoint."""

from collections import Counter

import pytest

from gradworks.base.errors import InputError
from gradworks.data import lexicon, synthetic
from gradworks.data.grammar import rule

ROWS = {"train": 3000, "validation": 600, "test": 1200}


@pytest.fixture(scope="module")
def made():
    return synthetic.generate(1, ROWS)


def everything(made):
    return [one for rows in made.values() for one in rows]


def test_the_rule_agrees_with_every_label(made):
    """The rule reads the two texts alone; the generator never asks it."""
    for one in everything(made):
        assert rule(one["premise"], one["hypothesis"]) == one["label"] == one["rule"], one


def test_sizes_and_balance(made):
    for split, rows in made.items():
        assert len(rows) == ROWS[split]
        sets = Counter(one["set"] for one in rows)
        assert sets["challenge"] == (0 if split == "train" else ROWS[split] // 2)
        for part in sets:
            labels = Counter(one["label"] for one in rows if one["set"] == part)
            assert max(labels.values()) - min(labels.values()) <= 2, (split, part, labels)
        cells = Counter((one["heuristic"], one["label"]) for one in rows if one["set"] == "challenge")
        assert not cells or (len(cells) == 9 and max(cells.values()) - min(cells.values()) <= 1)
        assert all((one["heuristic"] == "none") == (one["set"] == "in_distribution") for one in rows)


def test_overlap_predicts_entailment_where_it_is_learned_and_nothing_where_it_is_tested(made):
    inside = [one for one in everything(made) if one["set"] == "in_distribution"]
    overlapping = [one for one in inside if synthetic.overlaps(one["premise"], one["hypothesis"])]
    assert 0.28 < len(overlapping) / len(inside) < 0.38
    assert 0.87 < sum(one["label"] == "entailment" for one in overlapping) / len(overlapping) < 0.93
    for one in everything(made):
        if one["set"] == "challenge":
            assert synthetic.overlaps(one["premise"], one["hypothesis"]), one


def test_heuristics_are_what_they_are_called(made):
    for one in everything(made):
        if one["heuristic"] in ("subsequence", "constituent"):
            premise, hypothesis = (" ".join(synthetic.words(one[t])) for t in ("premise", "hypothesis"))
            assert f" {hypothesis} " in f" {premise} ", one


def test_no_pair_stands_twice_in_or_between_splits(monkeypatch):
    def one_of_few(self, label):
        text = f"{self.random.choice(lexicon.NAMES)} slept"
        return text, text, "none"

    monkeypatch.setattr(synthetic._Maker, "in_distribution", one_of_few)
    made = synthetic.generate(0, {"train": 12, "validation": 24})  # 24 of the 26 there are
    pairs = [(one["premise"], one["hypothesis"]) for one in everything(made)]
    assert len(set(pairs)) == len(pairs) == 36


def test_short_sentences_and_a_small_vocabulary_in_which_case_matters(made):
    lengths = [len(synthetic.words(one[t])) for one in everything(made) for t in ("premise", "hypothesis")]
    assert min(lengths) >= 2 and max(lengths) <= 18 and sum(n <= 14 for n in lengths) > 0.99 * len(lengths)
    words = {w for one in everything(made) for t in ("premise", "hypothesis") for w in synthetic.words(one[t])}
    assert 200 < len(words) < 500
    assert {"US", "us", "IT", "it", "Hope", "hope", "Baker", "baker"} <= words
    unlike = [one for one in made["train"] if one["label"] != "entailment"]
    twins = [one for one in unlike if one["premise"].lower() == one["hypothesis"].lower()]
    assert len(twins) > 0.005 * len(made["train"])  # nothing but case tells these from entailment


def test_seeded(made):
    assert synthetic.generate(1, {"train": 200}) == synthetic.generate(1, {"train": 200})
    assert made["train"] == synthetic.generate(1, {"train": 3000})["train"]
    other = {(one["premise"], one["hypothesis"]) for one in synthetic.generate(2, {"train": 200})["train"]}
    assert len(other - {(one["premise"], one["hypothesis"]) for one in made["train"]}) > 190


def test_an_exhausted_grammar_says_so(monkeypatch):
    monkeypatch.setattr(synthetic, "_TRIES", 3)
    monkeypatch.setattr(synthetic._Maker, "in_distribution", lambda self, label: ("Anna slept", "Anna slept", "none"))
    with pytest.raises(InputError, match=r"rows.train: the grammar has no 2 different pairs"):
        synthetic.generate(0, {"train": 2})
