"""Which model is the best: by the score of one task, or by the mean of all."""

import numpy as np
import pytest

from gradworks.base.errors import InputError
from gradworks.selection import Looks
from tests.kinds import classes, values

KINDS = {"mood": classes(2), "near": values()}
LABELS = {"mood": np.array([0, 1, 1, 1]), "near": np.array([0.0, 1.0, 2.0, 3.0])}
ANSWERS = {
    "mood": np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]),  # half right
    "near": np.array([0.0, 2.0, 4.0, 6.0]),  # in a line: 1
}
MEASURES = {"mood": "accuracy", "near": "pearson"}


def looks(select=None, **measures):
    return Looks(KINDS, MEASURES | measures, select, "params.yaml: mixtures.both.select")


@pytest.mark.parametrize(
    ("select", "names", "first", "constant"),
    [
        (None, ["mean", "mood_accuracy", "near_pearson"], 0.75, (0.75 + 0.0) / 2),
        ("mean", ["mean", "mood_accuracy", "near_pearson"], 0.75, (0.75 + 0.0) / 2),
        ("mood", ["mood_accuracy", "near_pearson"], 0.5, 0.75),
        ("near", ["near_pearson", "mood_accuracy"], 1.0, 0.0),
    ],
)
def test_what_chooses_comes_first(select, names, first, constant):
    found = looks(select).scores(LABELS, ANSWERS)
    assert list(found) == names
    assert next(iter(found.values())) == pytest.approx(first)
    assert found["mood_accuracy"] == 0.5 and found["near_pearson"] == pytest.approx(1.0)
    assert looks(select).constant(LABELS) == pytest.approx(constant)
    assert looks(select).better == 1


def test_of_one_task_it_is_its_score_by_its_metric():
    one = Looks({"mood": KINDS["mood"]}, {"mood": "log_loss"}, None, "params.yaml")
    found = one.scores(LABELS, ANSWERS)
    assert list(found) == ["log_loss"]
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.3]).mean())
    assert one.better == -1
    assert one.constant(LABELS) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def test_a_mean_with_a_score_that_is_not_defined_is_not_defined():
    found = looks().scores(LABELS, ANSWERS | {"near": np.ones(4)})
    assert found["near_pearson"] is None and found["mean"] is None and found["mood_accuracy"] == 0.5


def test_what_cannot_choose_is_refused_in_words():
    with pytest.raises(InputError, match="found 'nearr'; did you mean near"):
        looks("nearr")
    with pytest.raises(InputError, match="found mean, and log_loss of mood is better low"):
        looks("mean", mood="log_loss")
    assert looks("mood", mood="log_loss").better == -1
