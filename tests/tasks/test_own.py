"""Tasks of one's own in params.yaml: what they become, and what is refused before anything runs."""

import pytest

from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.data import labels
from tests.kinds import classes

MINE = {"kind": "classification", "texts": ["review"], "classes": ["bad", "good"], "metrics": ["f1", "accuracy"]}


def find(name="mine", **more):
    return tasks.find(name, {"tasks": {"mine": {**MINE, **more}}}, "p.yaml")


def test_a_row_of_ones_own():
    spec = find()
    assert (spec.name, spec.kind, spec.texts) == ("mine", "classification", ("review",))
    assert (spec.classes, spec.metrics) == (("bad", "good"), ("f1", "accuracy"))
    assert tasks.kind(spec).size == 2 and tasks.kind(find(one_logit=True)).size == 1
    assert tasks.kind(find(kind="regression", classes=None, metrics=None)).spec.metrics == ("pearson",)
    similar = find(kind="similarity", classes=None, metrics=["spearman"], texts=["a", "b"], scale=2.0)
    assert tasks.kind(similar).scale == 2
    assert find("nli").classes == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kind": "clasification"}, "p.yaml: tasks.mine.kind: found 'clasification'; did you mean classification?"),
        ({"clases": ["a", "b"]}, "p.yaml: tasks.mine: found 'clases'; did you mean classes?"),
        ({"classes": ["a"]}, "p.yaml: tasks.mine.classes: found ['a']\nexpected two names or more"),
        ({"classes": ["a", "A"]}, "tasks.mine.classes: found"),
        ({"classes": [False, True]}, "tasks.mine.classes"),
        ({"classes": None}, "tasks.mine.classes: found []"),
        ({"texts": []}, "tasks.mine.texts"),
        ({"texts": ["label"]}, "tasks.mine.texts"),
        ({"texts": "review"}, "tasks.mine.texts"),
        ({"metrics": ["acuracy"]}, "tasks.mine.metrics: found 'acuracy'; did you mean accuracy?"),
        ({"metrics": ["f1"], "classes": ["a", "b", "c"]}, "tasks.mine.metrics: found 'f1'"),
        ({"one_logit": True, "classes": ["a", "b", "c"], "metrics": None}, "tasks.mine.one_logit: found 3 classes"),
        ({"one_logit": "yes"}, "tasks.mine.one_logit"),
        ({"kind": "regression"}, "tasks.mine.classes: found ['bad', 'good']\nexpected none"),
        ({"kind": "similarity", "classes": None, "metrics": None}, "tasks.mine.texts: found ['review']\nexpected two"),
        ({"kind": "similarity", "texts": ["a", "b"], "classes": None, "metrics": None, "scale": 0}, "tasks.mine.scale"),
        ({"collapse": {"worse": "terrible"}}, "tasks.mine.collapse: found worse: terrible"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_file_key_and_what_was_expected(more, said):
    with pytest.raises(InputError) as error:
        find(**more)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_names():
    with pytest.raises(InputError, match=r"p.yaml: task: found 'min'; did you mean mine\?"):
        find("min")
    with pytest.raises(InputError, match=r"p.yaml: tasks.nli: a task that gradworks has already"):
        tasks.find("nli", {"tasks": {"nli": MINE}}, "p.yaml")
    with pytest.raises(InputError, match=r"p.yaml: tasks: found"):
        tasks.find("nli", {"tasks": ["nli"]}, "p.yaml")


@pytest.mark.parametrize("raw", ["1", 1, 1.0, "1.0", " 1"])
def test_classes_that_are_numbers_are_no_indices(raw):
    """Stars from 1 to 5: 1.0 is the class 1, and 0 none."""
    stars = classes("1", "2", "3", "4", "5")
    assert labels.of(stars, raw) == ("1", True)
    with pytest.raises(ValueError):
        labels.of(stars, 0)


def test_an_index_where_classes_have_names():
    assert labels.of(classes("bad", "good"), "1.0") == ("good", False)
