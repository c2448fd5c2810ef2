"""What label values stand for."""

import pytest

from gradworks.data import labels
from tests.kinds import kind


@pytest.mark.parametrize(
    "task, raw, label",
    [
        ("nli", "neutral", "neutral"),
        ("nli", " Neutral ", "neutral"),
        ("nli", 2, "contradiction"),
        ("nli", 2.0, "contradiction"),
        ("nli", " 2 ", "contradiction"),
        ("nli-binary", "non-entailment", "not_entailment"),
        ("nli-binary", "Not Entailment", "not_entailment"),
        ("nli-binary", "contradiction", "contradiction"),  # the stage corrupt collapses it
        ("sst5", "3", "positive"),
        ("sst5", "very negative", "very_negative"),
        ("qqp", "1.0", "duplicate"),
        ("boolq", True, "true"),
        ("boolq", "FALSE", "false"),
        ("wic", False, "false"),
        ("wic", 1.0, "true"),
        ("rte", True, "entailment"),  # by meaning: by its index it would be not_entailment
        ("wnli", "TRUE", "entailment"),
        ("mrpc", False, "not_equivalent"),
        ("stsb", "3.800", 3.8),
        ("stsb", 3, 3.0),
        ("stsb", "-2.5", -2.5),
    ],
)
def test_labels(task, raw, label):
    assert labels.of(kind(task), raw)[0] == label


@pytest.mark.parametrize("task", ["nli", "boolq", "stsb"])
@pytest.mark.parametrize(
    "raw", ["-", -1, -1.0, "-1", "-1.0", " -1 ", None, "", "  ", "None", "null", "NaN", float("nan"), "<NA>"]
)
def test_what_says_that_there_is_no_label(task, raw):
    assert labels.of(kind(task), raw)[0] is None


@pytest.mark.parametrize(
    "task, raw",
    [("nli", "3"), ("nli", -2), ("nli", "yes"), ("nli", "0.5"), ("nli", True), ("sst2", "TRUE"), ("stsb", "inf"),
     ("stsb", "x"), ("stsb", True), ("rte", []), ("rte", {"a": 1}), ("rte", b"entailment"), ("rte", "\u00b2")],
)  # fmt: skip
def test_what_is_no_label(task, raw):
    with pytest.raises(ValueError):
        labels.of(kind(task), raw)


def test_what_the_source_says_goes_before_all_else():
    given = {"0": "entailment", "-1": "neutral", "true": "contradiction"}
    assert labels.of(kind("nli"), " -1.0", given) == ("neutral", False)
    assert labels.of(kind("nli"), "0", given) == ("entailment", False)
    assert labels.of(kind("nli"), "yes", given) == ("contradiction", False)  # YAML reads the key `yes` as true
    assert labels.of(kind("nli"), "neutral", given) == ("neutral", True)
    with pytest.raises(ValueError):  # an index stands for nothing any more
        labels.of(kind("nli"), 1, given)


def test_a_number_says_that_it_was_no_name():
    assert labels.of(kind("rte"), 1) == ("not_entailment", False)
    assert labels.of(kind("rte"), "entailment") == ("entailment", True)
    assert labels.of(kind("stsb"), 1) == (1.0, True)
