"""What is said of the data: texts that two splits share, labels that were read from numbers."""

from gradworks.report import caveats


def count(alike):
    return {"same": 0, "alike": alike}


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert caveats.said({}) == caveats.said({"clean": {}}) == ""
    assert caveats.said({"clean": {"duplicates": {"test": {"train": count(0)}}}}) == ""


def test_shared_texts_and_labels_read_from_numbers_are_named():
    duplicates = {"clean": {"train": count(1)}, "selection": {"train": count(0)}, "test": {"train": count(1200)}}
    first = {"duplicates": duplicates, "label_values": {"mine/train": {"1": "entailment", "0": "not_entailment"}}}
    second = {"duplicates": {"test": {"train": count(900), "clean": count(2)}}, "duplicates_dropped": {"train": 7}}
    assert caveats.said({"clean": first, "noise": second}) == (
        " Case and blanks aside, 1 clean example has the texts of a training example, 1\u202f200 test examples have the"
        " texts of a training example, 2 test examples have the texts of a clean example."
        " Left out because another split has their texts: 7 of train."
        " Labels of mine/train were read: 0 as not_entailment, 1 as entailment."
    )
