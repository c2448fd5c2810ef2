"""Labelling functions and label models, on truth that is planted here."""

import numpy as np
import pyarrow as pa
import pytest

from gradworks.base.errors import InputError
from gradworks.data import functions, labelling
from gradworks.data.labelling_model import dawid_skene, majority

ACCURACY, COVERAGE = [0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.8], [0.5, 0.6, 0.4, 0.7, 0.8, 0.5, 0.9, 0.3]


def both_ways(draw, n, classes, prior):
    """Votes for all classes: each function votes on its share of rows, is right on its share of these."""
    y = draw.choice(classes, n, p=prior)
    made = np.full((n, len(ACCURACY)), -1)
    for j, (right, cover) in enumerate(zip(ACCURACY, COVERAGE, strict=True)):
        wrong = (y + draw.integers(1, classes, n)) % classes
        made[:, j] = np.where(draw.random(n) < cover, np.where(draw.random(n) < right, y, wrong), -1)
    return y, made


def one_class_each(draw, n, classes, prior):
    """Votes for one class alone, most often where it is the true one."""
    y = draw.choice(classes, n, p=prior)
    made = np.full((n, len(ACCURACY)), -1)
    for j, (right, cover) in enumerate(zip(ACCURACY, COVERAGE, strict=True)):
        mine = y == j % classes
        false = cover * mine.mean() * (1 - right) / right / (1 - mine.mean())
        made[draw.random(n) < np.where(mine, cover, false), j] = j % classes
    return y, made


@pytest.mark.parametrize("plant", [both_ways, one_class_each])
@pytest.mark.parametrize(("classes", "prior"), [(2, [0.5, 0.5]), (2, [0.75, 0.25]), (3, [0.5, 0.3, 0.2])], ids=str)
def test_planted_accuracies_are_recovered(plant, classes, prior):
    """The estimates have no bias over draws and a small spread; labels are better than the majority's, and as sure as
    they are right.
    """
    errors, gains, calibration = [], [], []
    for seed in range(4):
        y, votes = plant(np.random.default_rng(seed), 6000, classes, prior)
        known = (votes >= 0).any(1)
        found = dawid_skene(votes, classes)
        measured = labelling.described([*"abcdefgh"], votes, found, None, None)
        true = np.array([(votes[votes[:, j] >= 0, j] == y[votes[:, j] >= 0]).mean() for j in range(8)])
        errors.append([measured[name]["estimated"] for name in "abcdefgh"] - true)
        right = [(p.argmax(1) == y)[known].mean() for p in (found, majority(votes, classes))]
        gains.append(right[0] - right[1])
        calibration.append(found[known].max(1).mean() - right[0])
    errors = np.array(errors)
    assert abs(errors.mean(0)).max() < 0.03  # no bias
    assert abs(errors).max() < 0.07 and abs(np.mean(calibration)) < 0.02
    assert np.mean(gains) > 0.005  # better labels than the majority's


def test_majority_by_hand():
    votes = np.array([[0, 0, 1], [1, -1, -1], [-1, -1, -1]])
    assert majority(votes, 2).tolist() == [pytest.approx([2 / 3, 1 / 3]), [0, 1], [0.5, 0.5]]


def test_one_step_of_dawid_and_skene_is_theirs(monkeypatch):
    """Equations 2.3 to 2.5 of the paper, written out for each row and function."""
    import gradworks.data.labelling_model as made

    monkeypatch.setattr(made, "_ENOUGH", 2.0)  # one step is enough
    _, votes = both_ways(np.random.default_rng(0), 40, 2, [0.6, 0.4])
    first, n = majority(votes, 2), len(votes)
    prior = [(first[:, c].sum() + 0.01) / (n + 0.02) for c in range(2)]
    expected = []
    for row in votes:
        z = []
        for c in range(2):
            p = prior[c]
            for j, vote in enumerate(row):
                same = sum(first[i, c] for i in range(n) if votes[i, j] == vote)
                p *= (same + 0.01) / (first[:, c].sum() + 0.03)
            z.append(p)
        expected.append([z[0] / sum(z), z[1] / sum(z)])
    assert dawid_skene(votes, 2) == pytest.approx(np.array(expected))


def test_functions_that_are_wrong_together_are_refused():
    y = np.arange(60) % 2
    votes = np.stack([y, 1 - y, np.full(60, -1)], 1)
    with pytest.raises(
        InputError, match=r"label model: found votes right with probability 0\.50, a random one with 0\.50"
    ):
        dawid_skene(votes, 2)


OWN = """
from gradworks.data.labelling import ABSTAIN, labelling_function

@labelling_function
def praise(row):
    return "good" if "great" in row["text"] else ABSTAIN

@labelling_function(name="blame")
def bad(row):
    return "bad" if "poor" in row["text"] else ABSTAIN

@labelling_function
def long(row):
    return "good" if len(row.texts[0]) > 8 else "bad"
"""
TABLE = pa.table({"id": ["a", "b", "c", "d"], "text": ["great", "poor, great", "a poor film", "it"]})


def cast(tmp_path, text=OWN, **more):
    (tmp_path / "own.py").write_text(text)
    asked = labelling.Weak(**{"file": "own.py", "from": "mine/all"} | more)
    return labelling.votes(
        labelling.chosen(asked, tmp_path, "p: label.w"), functions.rows(TABLE, ("text",)), ("bad", "good")
    )


def test_votes_and_what_is_said_of_them(tmp_path):
    votes = cast(tmp_path)
    assert votes.tolist() == [[1, -1, 0], [1, 0, 1], [-1, 0, 1], [-1, -1, 0]]
    p = np.array([[0.25, 0.75]] * 4)
    gold = votes[:3], np.array([1, 1, 0])
    found = labelling.described(["praise", "blame", "long"], votes, p, gold, lambda right, n: (right / n, n))
    assert found["praise"] == {"votes": 2, "coverage": 0.5, "overlap": 0.5, "conflict": 0.5, "estimated": 0.75,
                               "gold": {"votes": 2, "accuracy": 1.0, "low": 1.0, "high": 2}}  # fmt: skip
    assert found["long"]["coverage"] == 1 and found["long"]["overlap"] == 0.75 == found["long"]["conflict"]
    assert found["long"]["estimated"] == 0.5 and found["long"]["gold"]["accuracy"] == pytest.approx(1 / 3)


def test_what_cannot_be_estimated_is_refused_and_what_is_doubted_is_said():
    votes = np.array([[0, 1, -1], [1, 1, -1], [-1, -1, 0], [-1, -1, -1]])
    labelling.check_overlap("ab", votes[:, :2], "p: label.w")
    with pytest.raises(
        InputError, match=r"label\.w\.model: found dawid_skene, and labelling function c votes on no row with"
    ):
        labelling.check_overlap("abc", votes, "p: label.w")
    gold = {"accuracy": 0.7, "low": 0.6, "high": 0.8, "votes": 9}
    rows = {
        "good": {"estimated": 0.75, "gold": gold},
        "bad": {"estimated": 0.95, "gold": gold},
        "none": {"estimated": 1.0},
    }
    assert labelling.doubted(rows) == [
        "bad: estimated accuracy 0.95, measured 0.70 [0.60, 0.80]: functions may not err independently"
    ]


BROKEN = {
    OWN.replace('row["text"] else', 'row["txt"] else', 1): r"labelling function praise: row a: raised KeyError",
    OWN.replace(
        '"good" if "great"', '"fine" if "great"'
    ): r"praise: row a: returned 'fine'\nexpected one of: bad, good, ",
    OWN.replace('"great"', '"grand"'): r"labelling function praise: abstained on all 4 rows",
    OWN.replace('name="blame"', 'name="long"'): r"found two labelling functions called 'long'",
    OWN[: OWN.index("@labelling_function\ndef long")]: r"label\.w\.model: found dawid_skene and 2 functions",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_an_error_in_words(tmp_path, text):
    with pytest.raises(InputError, match=BROKEN[text]) as error:
        cast(tmp_path, text)
    assert len(str(error.value).splitlines()) <= 3
