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


LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0] * 5)


def three(seed=0):
    """Members of different skill, that are sure of different examples."""
    rng = np.random.default_rng(seed)
    made = []
    for name, skill in (("b", 0.3), ("a", 0.9), ("c", 0.6)):
        logit = (2 * LABELS - 1) * skill + rng.normal(size=len(LABELS))
        made.append(
            member(name, map(str, range(len(LABELS))), np.array(["no", "yes"])[LABELS], 1 / (1 + np.exp(-logit)))
        )
    return made


def log_loss(answers):
    return -np.log(answers[np.arange(len(LABELS)), LABELS]).mean()


def test_weights_are_the_best_of_a_fine_grid():
    members = three()
    found = ensembles.weights(members, CLASSES)
    grid = [(a / 200, b / 200, 1 - (a + b) / 200) for a in range(201) for b in range(201 - a)]
    losses = [log_loss(sum(w * m.outputs for w, m in zip(one, members, strict=True))) for one in grid]
    assert sum(found) == pytest.approx(1) and found == pytest.approx(grid[int(np.argmin(losses))], abs=0.006)
    assert log_loss(ensembles.weighted(members, found)) <= min(losses) + 1e-9
    assert ensembles.weights(members[::-1], CLASSES) == found[::-1]


def test_weights_of_numbers_have_the_least_squared_error():
    rng = np.random.default_rng(1)
    labels = rng.normal(size=80)
    made = [Member(n, tuple(map(str, range(80))), labels, labels * s + rng.normal(size=80) * e)
            for n, s, e in (("one", 1.0, 0.5), ("two", 0.2, 0.3), ("three", -1.0, 0.1))]  # fmt: skip
    found = ensembles.weights(made, VALUES)
    grid = [(a / 100, b / 100, 1 - (a + b) / 100) for a in range(101) for b in range(101 - a)]
    errors = [((sum(w * m.outputs for w, m in zip(one, made, strict=True)) - labels) ** 2).mean() for one in grid]
    assert found == pytest.approx(grid[int(np.argmin(errors))], abs=0.011) and sum(found) == pytest.approx(1)
    assert found[2] == 0  # never below it
    assert ensembles.has_weights(made, VALUES) and ensembles.has_weights(three(), CLASSES)


def accuracy(answers):
    return float((answers.argmax(1) == LABELS).mean()), -log_loss(answers)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_selection_step_by_step_by_hand(seed):
    members = three(seed)
    by_name = sorted(members, key=lambda one: one.name)
    bag, best = [], None
    for _ in range(4):
        values = [accuracy(np.mean([one.outputs for one in [*bag, more]], axis=0)) for more in by_name]
        bag.append(by_name[values.index(max(values))])
        if best is None or max(values) > best[0]:
            best = max(values), [one.name for one in bag]
    found = ensembles.greedy(members, CLASSES, accuracy, rounds=4)
    assert found == [best[1].count(one.name) for one in members]
    assert ensembles.greedy(members[::-1], CLASSES, accuracy, rounds=4) == found[::-1]
    chosen = ensembles.weighted(members, np.array(found) / sum(found))
    assert accuracy(chosen)[0] >= max(accuracy(one.outputs)[0] for one in members)


def test_greedy_selection_may_take_one_member_several_times_or_none():
    found = [ensembles.greedy(three(seed), CLASSES, accuracy) for seed in range(6)]
    assert max(max(one) for one in found) > 1 and min(min(one) for one in found) == 0
    same = [member(name, "abcd", [1, 1, 0, 0], [0.9, 0.4, 0.2, 0.6]) for name in ("two", "one")]
    few = lambda answers: (float((answers.argmax(1) == same[0].labels).mean()),)  # noqa: E731
    assert ensembles.greedy(same, CLASSES, few) == [0, 1]  # no gain from a second; the first by name


def test_the_interval_of_a_difference_is_paired():
    ours, theirs = (np.array(one, dtype=float) for one in ([1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0]))
    low, high = ensembles.gap(ours, theirs)
    half = 2.570582 * np.std([0, 1, 0, 0, 1, 0], ddof=1) / np.sqrt(6)  # t of 5 degrees
    assert (low, high) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert ensembles.gap(ours, theirs, 6)[0] < low and ensembles.gap(ours, None) is None


def test_buckets_and_mcnemar_by_hand():
    one, two = ensembles.align([ONE, TWO])
    found = ensembles.buckets(one.outputs, two.outputs, one.labels, CLASSES)
    assert found == ["only the first", "only the second", "only the first", "only the second"]
    both = ensembles.buckets(one.outputs, one.outputs, one.labels, CLASSES)
    assert both == ["both right", "both wrong", "both right", "both wrong"]
    assert ensembles.exact(1, 7) == pytest.approx(2 * (1 + 8) / 256) and ensembles.exact(0, 0) == 1.0
