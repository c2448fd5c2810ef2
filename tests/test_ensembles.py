"""Alignment by id, never by position; mean, oracle and disagreement by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradworks import ensembles
from gradworks.base.errors import InputError
from gradworks.ensembles import Member
from tests.kinds import classes, values

CLASSES, VALUES = classes("no", "yes"), values()


def member(name, ids, labels, yes):
    yes = np.array(yes, dtype=float)
    return Member(name, tuple(ids), np.array(labels, dtype=object), np.column_stack([1 - yes, yes]))


ONE = member("one", "abcd", ["yes", "yes", "no", "no"], [0.9, 0.4, 0.2, 0.6])
TWO = member("two", "dcba", ["no", "no", "yes", "yes"], [0.1, 0.7, 0.8, 0.3])


def test_aligned_by_id():
    one, two = ensembles.align([ONE, TWO])
    assert two.ids == one.ids == tuple("abcd")
    assert two.outputs[:, 1] == pytest.approx([0.3, 0.8, 0.7, 0.1])
    assert ensembles.mean([one, two], CLASSES)[:, 1] == pytest.approx([0.6, 0.6, 0.45, 0.35])


def test_rows_that_all_members_have():
    fewer = member("fewer", "dbx", ["no", "yes", "no"], [0.1, 0.8, 0.5])
    one, two = ensembles.common([ONE, fewer])
    assert (one.ids, two.ids) == (("b", "d"), ("d", "b"))
    assert one.outputs[:, 1].tolist() == [0.4, 0.6] and two.labels.tolist() == ["no", "yes"]
    assert [m.ids for m in ensembles.common([ONE, member("none", "xyz", ["no"] * 3, [0.1] * 3)])] == [(), ()]


@given(st.permutations("abcd"))
def test_order_changes_nothing(order):
    place = ["dcba".index(i) for i in order]
    moved = Member("two", tuple(order), TWO.labels[place], TWO.outputs[place])
    expected = ensembles.mean(ensembles.align([ONE, TWO]), CLASSES)
    assert (ensembles.mean(ensembles.align([ONE, moved]), CLASSES) == expected).all()


def test_oracle_is_right_wherever_a_member_is():
    members = ensembles.align([ONE, TWO])  # right: one on a, c; two on b, d
    assert ensembles.oracle(members, CLASSES).argmax(1).tolist() == [1, 1, 0, 0]
    wrong = member("wrong", "abcd", ["yes", "yes", "no", "no"], [0.1, 0.4, 0.9, 0.6])
    assert ensembles.oracle([wrong], CLASSES)[:, 1] == pytest.approx([0.1, 0.4, 0.9, 0.6])


def test_disagreement():
    members = ensembles.align([ONE, TWO])
    assert ensembles.disagreement(members, CLASSES) == {"one | two": 1.0}
    assert ensembles.disagreement([ONE, ONE, ONE], CLASSES) == {"one | one": 0.0}


def test_regression():
    labels = np.array([1.0, 2.0])
    one, two = (Member(n, ("a", "b"), labels, np.array(v)) for n, v in (("one", [1.5, 0.0]), ("two", [0.0, 2.5])))
    assert ensembles.mean([one, two], VALUES).tolist() == [0.75, 1.25]
    assert ensembles.oracle([one, two], VALUES).tolist() == [1.5, 2.5]
    assert ensembles.disagreement([one, two], VALUES) == {"one | two": 2.0}


def test_different_id_sets_name_a_missing_id():
    fewer = member("two", "abc", ["yes", "yes", "no"], [0.1] * 3)
    with pytest.raises(InputError, match="two: id d is missing, which one has"):
        ensembles.align([ONE, fewer])
    with pytest.raises(InputError, match="two: id d is missing"):
        ensembles.align([fewer, ONE])


def test_an_id_that_stands_twice():
    with pytest.raises(InputError, match="one: duplicate id a"):
        ensembles.align([member("one", "aab", ["no"] * 3, [0.1] * 3)])


def test_different_labels_of_one_id():
    other = member("two", "abcd", ["yes", "no", "no", "no"], [0.1] * 4)
    with pytest.raises(InputError, match="two: id b: label no, but yes in one"):
        ensembles.align([ONE, other])
