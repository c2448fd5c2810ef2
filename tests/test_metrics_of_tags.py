"""F1 of entities against conlleval's rules written out here, by hand-made cases and on random tags."""

import numpy as np
import pytest

from gradworks.metrics import tagging


def chunks(tags):
    """The two rules of conlleval.pl, endOfChunk and startOfChunk, one tag after the other."""
    parts = [(t, "") if t == "O" else tuple(t.split("-", 1)) for t in tags] + [("O", "")]
    found, start = set(), None
    for i, (tag, kind) in enumerate(parts):
        before, last = parts[i - 1] if i else ("O", "")
        ends = (
            (before in "BI" and tag in "BSO") or before in "ES" or (before != "O" and last != kind)
        ) and before != "O"
        begins = (tag in "BS" or (before in "ESO" and tag in "EI") or (tag != "O" and last != kind)) and tag != "O"
        if ends:
            found.add((last, start, i - 1))
        if begins:
            start = i
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER", {("PER", 0, 1)}),  # IOB1
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("O I-LOC O", {("LOC", 1, 1)}),
        ("B-PER I-PER E-PER S-LOC", {("PER", 0, 2), ("LOC", 3, 3)}),
        ("E-PER E-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-A-B I-A-B", {("A-B", 0, 1)}),
        ("NOUN NOUN VERB", {("NOUN", 0, 1), ("VERB", 2, 2)}),
        ("B I O", {("", 0, 1)}),
    ],
)
def test_entities(tags, expected):
    assert tagging.entities(tags.split()) == expected


def test_random_tags_against_the_rules():
    draw = np.random.default_rng(0)
    names = ["O"] + [f"{prefix}-{kind}" for prefix in "BIES" for kind in ("X", "Y")]
    for _ in range(500):
        tags = draw.choice(names, draw.integers(1, 9)).tolist()
        assert tagging.entities(tags) == chunks(tags), tags


def test_scores_are_micro_averages_over_sentences():
    labels = ["B-X I-X O", "O O", "B-Y"]
    made = [["B-X", "I-X", "B-Y"], ["O", "B-X"], ["B-X"]]
    found = tagging.score("entity_f1", labels, made)
    assert found.value == pytest.approx(2 * 1 / (2 + 4)) and found.n == 3 and found.low is None
    assert tagging.score("tag_accuracy", labels, made).value == pytest.approx(3 / 6)
    none = tagging.score("entity_f1", ["O O"], [["O", "O"]])
    assert none.value is None and "not defined" in none.note
    assert tagging.score("entity_f1", [], []).value is None
    with pytest.raises(ValueError, match="2 tags of a sentence, 1 predicted"):
        tagging.score("entity_f1", ["O O"], [["O"]])


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    from scipy.stats import beta

    labels = ["X"] * 40
    made = [["X"]] * 34 + [["O"]] * 6
    found = tagging.score("tag_accuracy", labels, made)
    assert (found.low, found.high) == pytest.approx((beta.ppf(0.025, 34, 7), beta.ppf(0.975, 35, 6)), abs=0.01)
    perfect = tagging.score("entity_f1", ["B-X"] * 40, [["B-X"]] * 40)
    assert perfect.high == 1 and 0.88 < perfect.low < 0.95


def test_shares_are_jackknife_values():
    labels = ["B-X I-X O", "O O", "B-Y", "B-X"]
    made = [["B-X", "I-X", "B-Y"], ["O", "B-X"], ["B-X"], ["B-X"]]
    whole = tagging.score("entity_f1", labels, made).value
    for i, share in enumerate(tagging.shares("entity_f1", labels, made)):
        rest = [j for j in range(4) if j != i]
        without = tagging.score("entity_f1", [labels[j] for j in rest], [made[j] for j in rest]).value
        assert share == pytest.approx(4 * whole - 3 * without)
    assert tagging.shares("entity_f1", ["O"] * 3, [["O"]] * 3) is None
