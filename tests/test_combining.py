"""The rules of an ensemble on members made by hand; what each member adds; nothing depends on their order."""

import numpy as np
import pytest

from gradworks.combining import Ensemble
from gradworks.ensembles import Member
from tests.kinds import classes, values

CLASSES, VALUES = classes("no", "yes"), values()
SURE = {"a/0": 4.0, "a/1": 0.25, "b/0": 1.0}  # how many times too sure


def members(seed=0, n=200):
    """Test and own selection split of three members; the split of the second shares 60 rows with the others'."""
    rng = np.random.default_rng(seed)
    made = []
    for name, (ids, labels) in {"test": rows(rng, n, "t"), "held": rows(rng, n, "s")}.items():
        own = []
        for number, (member, by) in enumerate(SURE.items()):
            logit = (2 * labels - 1) * (0.5 + 0.4 * number) + rng.normal(size=n)
            p = 1 / (1 + np.exp(-logit * by))
            keep = slice(0, n) if name == "test" or number != 1 else slice(n - 60, n)
            own.append(
                Member(member, ids[keep], np.array(["no", "yes"])[labels][keep], np.column_stack([1 - p, p])[keep])
            )
        made.append(own)
    return made


def rows(rng, n, prefix):
    return tuple(f"{prefix}{i}" for i in range(n)), rng.integers(2, size=n)


def test_each_member_is_scaled_by_the_temperature_of_its_own_selection_split():
    test, held = members()
    found = Ensemble(test, held, CLASSES, {})
    grid, expected = np.exp(np.linspace(-3, 3, 3001)), []
    for one, own in zip(test, held, strict=True):
        z, truth = np.log(own.outputs[:, 1] / own.outputs[:, 0]), np.where(own.labels == "yes", 1, -1)
        by = grid[np.argmin([np.log1p(np.exp(-truth * z / t)).mean() for t in grid])]
        assert found.rules["scaled"]["temperatures"][one.name] == pytest.approx(by, rel=5e-3)
        expected.append(1 / (1 + (one.outputs[:, 0] / one.outputs[:, 1]) ** (1 / by)))
    assert found.outputs["scaled"][0][:, 1] == pytest.approx(np.mean(expected, axis=0), abs=2e-3)
    assert found.rules["greedy"]["fitted"] == 60 == len(found.held[0].ids)
    assert {len(one) for _, one in found.outputs.values()} == {60}


def test_the_order_of_members_changes_nothing_that_is_fitted():
    test, held = members()
    one, other = Ensemble(test, held, CLASSES, {}), Ensemble(test[::-1], held[::-1], CLASSES, {})
    assert one.rules == other.rules
    for rule, (answers, _) in one.outputs.items():
        assert answers == pytest.approx(other.outputs[rule][0], abs=1e-12)
    adds = one.said()["adds"]
    for name, gap in other.said()["adds"].items():
        assert gap == pytest.approx(adds[name], abs=1e-12)


def test_what_a_member_adds_is_paired_by_example_and_holds_for_all_members_at_once():
    test, held = members()
    found = Ensemble(test, held, CLASSES, {}).said()["adds"]["b/0"]
    right = [
        np.mean([m.outputs for m in some], axis=0).argmax(1) == (test[0].labels == "yes") for some in (test, test[:2])
    ]
    gap = right[0].astype(float) - right[1]
    half = 2.4143 * gap.std(ddof=1) / np.sqrt(200)  # Student's t of 199 degrees at 1 - 0.025 / 3
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (gap.mean(), gap.mean() - half, gap.mean() + half), abs=1e-4
    )


def test_a_member_without_a_selection_split_leaves_the_mean():
    test, held = members()
    found = Ensemble(test, [held[0], None, held[2]], CLASSES, {})
    assert set(found.outputs) == {"mean"} and found.outputs["mean"][1] is None
    assert found.rules["greedy"]["note"] == "not fitted: a/1 has no predictions of its selection split"
    assert "against" not in found.said()


def test_numbers_have_weights_and_no_temperature():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=50)
    made = [
        Member(f"e/{i}", tuple(map(str, range(50))), labels, labels + rng.normal(size=50) * (i + 0.2)) for i in range(2)
    ]
    found = Ensemble(made, made, VALUES, {})
    assert set(found.outputs) == {"mean", "greedy", "weighted"} and found.said()["pairs"] == []
    assert found.rules["weighted"]["weights"]["e/0"] > 0.9
