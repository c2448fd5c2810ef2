"""What one task is evaluated on, no other trains on: equal but for case, blanks, punctuation and order."""

import itertools

import pyarrow as pa
import pytest

from gradworks.base.errors import InputError
from gradworks.data import between
from tests.kinds import kind

KINDS = {"rte": kind("rte"), "mrpc": kind("mrpc"), "sst2": kind("sst2"), "multirc": kind("multirc")}


def table(task, rows, **more):
    texts = KINDS[task].spec.texts
    made = {"id": [f"{task}-{rows[0]}-{i}" for i in range(len(rows))], "label": [""] * len(rows), **more}
    return pa.table(made | {t: [row[j] for row in rows] for j, t in enumerate(texts)})


def own(task, name, *extra):
    """Rows of which no other task has the like."""
    n = len(KINDS[task].spec.texts)
    return [*extra, tuple(f"{name} own {i}" for i in range(n))]


def drawn(task, name=None, **splits):
    more = {"group": lambda rows: {"group": [row[1] for row in rows]}}
    rows = {s: own(task, name or task, *splits.get(s, [])) for s in ("train", "clean", "selection", "test")}
    return {s: table(task, r, **(more["group"](r) if task == "multirc" else {})) for s, r in rows.items()}


A, B = "The Osbournes, a “show”.", "It’s on TV"
MADE = {
    "rte": drawn("rte", test=[(A, B)], selection=[("s one", "s two")], train=[("q", "only"), ("keep", "me")]),
    "mrpc": drawn(
        "mrpc",
        train=[('the osbournes a "SHOW"', " it's on  tv "), (B, A), (A, "else"), ("S ONE", "s\ttwo"), ("?", "!")],
        clean=[(B, A)],
        selection=[(A, B), ("s one", "s two")],
        test=[("only", "Q"), ("!", "?")],
    ),
    "sst2": drawn("sst2", train=[(A,), ("a film",)], test=[("keep me",)]),
    "multirc": drawn("multirc", train=[("p", "x", "a"), ("p", "x", "b"), ("p", "y", "a")]),
}


def ids(tables):
    return {task: {name: one["id"].to_pylist() for name, one in splits.items()} for task, splits in tables.items()}


def test_rows_that_another_task_is_evaluated_on_are_left_out_and_counted():
    made, found = between.without_shared(MADE, KINDS, "p")
    texts = {s: set(zip(t["sentence1"].to_pylist(), t["sentence2"].to_pylist(), strict=True))
             for s, t in made["mrpc"].items()}  # fmt: skip
    mine = ("mrpc own 0", "mrpc own 1")
    assert texts["train"] == {(A, "else"), ("?", "!"), mine}  # one sentence of a pair is not the pair
    assert texts["clean"] == {mine}
    assert texts["selection"] == {("s one", "s two"), mine}  # not tested on, and not trained on: it may stay
    assert made["mrpc"]["test"] == MADE["mrpc"]["test"] and made["rte"]["test"] == MADE["rte"]["test"]
    assert made["rte"]["train"]["hypothesis"].to_pylist() == ["me", "rte own 1"]  # the pair, swapped, is in mrpc's test
    assert ids(made)["sst2"] == ids(MADE)["sst2"]
    assert found == {
        "mrpc": {
            "train": {"dropped": 3, "of": {"rte": {"selection": 1, "test": 2}}},
            "clean": {"dropped": 1, "of": {"rte": {"test": 1}}},
            "selection": {"dropped": 1, "of": {"rte": {"test": 1}}},
        },
        "rte": {"train": {"dropped": 1, "of": {"mrpc": {"test": 1}}}},
    }
    assert between.said(found)[1] == (
        "mrpc: 3 rows of train left out, on which another task is evaluated: 1 in selection of rte, 2 in test of rte"
    )


def test_the_order_of_tasks_does_not_matter():
    first = between.without_shared(MADE, KINDS, "p")
    for order in itertools.permutations(MADE):
        made, found = between.without_shared({name: MADE[name] for name in order}, KINDS, "p")
        assert ids(made) == ids(first[0]) and found == first[1]


def test_questions_go_whole():
    same = {"multirc": MADE["multirc"], "other": drawn("multirc", "other", test=[("P.", "X", "B")])}
    made, found = between.without_shared(same, dict.fromkeys(same, KINDS["multirc"]), "p")
    assert made["multirc"]["train"]["answer"].to_pylist() == ["a", "multirc own 2"]
    assert found["multirc"]["train"] == {"dropped": 2, "of": {"other": {"test": 1}}}


def test_a_task_that_only_has_rows_that_another_is_tested_on_is_refused():
    alone = {name: table("mrpc", [("only", "q")]) for name in ("train", "clean", "selection", "test")}
    with pytest.raises(InputError, match=r"p: mrpc: all 1 rows of its split train are evaluated on by rte\n"):
        between.without_shared({"mrpc": alone, "rte": drawn("rte", test=[("q", "only")])}, KINDS, "p")
