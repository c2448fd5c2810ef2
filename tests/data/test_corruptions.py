"""Corruptions: what is asked for is done, to the same rows under every condition, and can be undone."""

from collections import Counter

import pyarrow as pa
import pytest

from gradworks.base.errors import InputError
from gradworks.data import corruptions
from gradworks.data.corruptions import Condition, Imbalance, Noise
from tests.kinds import kind

NLI, BINARY = kind("nli"), kind("nli-binary")


def table(name, rows, classes=NLI.classes, **more):
    labels = [classes[i % len(classes)] for i in range(rows)]
    ids = [f"{name}-{i}" for i in range(rows)]
    return pa.table({"id": ids, "premise": ids, "hypothesis": ids, "label": labels, **more})


def splits(task=NLI, rows=3000):
    return {
        name: table(name, rows if name == "train" else 300, task.classes)
        for name in ("train", "clean", "selection", "test")
    }


def labels(one):
    return dict(zip(one["id"].to_pylist(), one["label"].to_pylist(), strict=True))


def apply(condition, seed=0, task=NLI, made=None):
    made = made or splits(task)
    out, changes = corruptions.corrupt(made, task, Condition.model_validate(condition), seed, "p: c")
    return made, out, changes


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_noise_draws_from_all_classes(share):
    made, out, changes = apply({"noise": {"share": share}})
    assert len(changes) == share * 3000
    new, old = labels(out["train"]), labels(made["train"])
    assert {i: new for i, _, _, new in changes} == {i: new[i] for i, *_ in changes}
    assert all(new[i] == old[i] for i in set(old) - {i for i, *_ in changes})
    # a third of the draws gives the old label back: 1 - p + p/3 of the labels stay right
    right = sum(new[i] == old[i] for i in old) / 3000
    assert abs(right - (1 - share + share / 3)) < 0.03
    drawn = Counter(new for *_, new in changes)
    assert all(abs(drawn[c] / len(changes) - 1 / 3) < 0.04 for c in NLI.classes)


def test_noise_to_other_always_changes():
    _, _, changes = apply({"noise": {"share": 0.5, "to": "other"}})
    assert len(changes) == 1500 and all(old != new for _, _, old, new in changes)
    drawn = Counter((old, new) for _, _, old, new in changes)
    assert len(drawn) == 6 and max(drawn.values()) < 1.3 * min(drawn.values())


@pytest.mark.parametrize(
    "task, share, allowed", [(NLI, 0.66, True), (NLI, 0.67, False), (BINARY, 0.49, True), (BINARY, 0.5, False)]
)
def test_noise_that_leaves_nothing_to_learn_is_refused(task, share, allowed):
    """With `to: other` the true class must stay the most frequent one: 1 - p > p / (C - 1)."""
    given = Noise(share=share, to="other")
    if allowed:
        corruptions.noise(table("train", 100, task.classes), task, given, 0, "p: c.noise")
    else:
        with pytest.raises(
            InputError, match=r"p: c.noise: found share 0.\d+ with `to: other`\n.*expected less than 0.\d+"
        ):
            corruptions.noise(table("train", 100, task.classes), task, given, 0, "p: c.noise")
    corruptions.noise(table("train", 100, task.classes), task, Noise(share=0.9), 0, "p: c.noise")


def test_imbalance_by_ratios_and_counts():
    _, out, changes = apply({"imbalance": {"ratios": {"neutral": 0.1, "contradiction": 0.25}}})
    assert Counter(labels(out["train"]).values()) == {"entailment": 1000, "neutral": 100, "contradiction": 250}
    assert len(changes) == 1650 and all(new is None and old != "entailment" for _, _, old, new in changes)
    _, out, _ = apply({"imbalance": {"counts": {"entailment": 995, "neutral": 5, "contradiction": 0}}})
    assert Counter(labels(out["train"]).values()) == {"entailment": 995, "neutral": 5}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"counts": {"neutral": 1001}}, "found 1001, expected at most 1000"),
        ({"counts": {"neutrl": 1}}, "found class 'neutrl'\nexpected one of: entailment"),
        ({"counts": dict.fromkeys(NLI.classes, 0)}, "leaves no row"),
    ],
)
def test_an_impossible_imbalance(given, said):
    with pytest.raises(InputError, match=said):
        apply({"imbalance": given})


@pytest.mark.parametrize(
    "given", [{}, {"counts": {"a": 1}, "ratios": {"a": 1.0}}, {"ratios": {"a": 1.5}}, {"counts": {"a": -1}}]
)
def test_an_imbalance_section(given):
    with pytest.raises(ValueError, match=r"expected"):
        Imbalance.model_validate(given)


def test_leaked_examples_stand_in_both_with_true_labels():
    made, out, changes = apply({"leak": {"count": 100}, "noise": {"share": 0.9}})
    leaked = {i: new for i, kind, old, new in changes if kind == "leak"}
    assert len(leaked) == 100 and set(leaked) <= set(labels(made["test"]))
    assert {i: labels(out["train"])[i] for i in leaked} == leaked == {i: labels(out["test"])[i] for i in leaked}
    assert out["train"].num_rows == 3100 and out["test"].equals(made["test"])
    with pytest.raises(InputError, match=r"p: c.leak.count: found 301, expected at most 300"):
        apply({"leak": {"count": 301}})


def test_leaked_rows_may_have_columns_of_their_own():
    made = splits()
    made["test"] = table("test", 300, heuristic=["x"] * 300)
    _, out, _ = apply({"leak": {"count": 2}}, made=made)
    assert out["train"]["heuristic"].to_pylist()[-3:] == [None, "x", "x"]


def test_collapse_folds_every_split_before_noise():
    made = {**splits(), "test": table("test", 300, BINARY.classes)}
    _, out, changes = apply({"noise": {"share": 0.5}}, task=BINARY, made=made)
    for one in out.values():
        assert set(labels(one).values()) == set(BINARY.classes)
    assert Counter(kind for _, kind, *_ in changes) == {"collapse": 2000, "noise": 1500}
    assert {(old, new) for _, kind, old, new in changes if kind == "collapse"} == {
        ("neutral", "not_entailment"), ("contradiction", "not_entailment")
    }  # fmt: skip


def test_all_conditions_of_a_seed_draw_the_same_rows():
    rows = {s: {i for i, *_ in apply({"noise": {"share": s}})[2]} for s in (0.2, 0.5)}
    assert rows[0.2] < rows[0.5]
    alone = {i: new for i, kind, _, new in apply({"noise": {"share": 0.5}})[2]}
    with_leak = {
        i: new for i, kind, _, new in apply({"noise": {"share": 0.5}, "leak": {"count": 9}})[2] if kind == "noise"
    }
    assert alone == with_leak
    assert alone != {i: new for i, _, _, new in apply({"noise": {"share": 0.5}}, seed=1)[2]}


def test_the_order_of_rows_does_not_matter():
    made = splits()
    turned = {n: one.take(list(range(one.num_rows))[::-1]) for n, one in made.items()}
    condition = {"imbalance": {"ratios": {"neutral": 0.5}}, "noise": {"share": 0.5}, "leak": {"count": 9}}
    _, out, changes = apply(condition, made=made)
    _, other, turned_changes = apply(condition, made=turned)
    assert sorted(changes, key=str) == sorted(turned_changes, key=str)
    assert labels(out["train"]) == labels(other["train"])


def test_only_train_changes():
    made, out, _ = apply({"noise": {"share": 0.5}, "imbalance": {"ratios": {"neutral": 0.5}}, "leak": {"count": 5}})
    assert all(out[n].equals(made[n]) for n in ("clean", "selection", "test"))


@pytest.mark.parametrize("task", [NLI, BINARY], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"noise": {"share": 0.5}},
        {"imbalance": {"ratios": {"entailment": 0.5}}},
        {"leak": {"count": 7}},
        {"noise": {"share": 0.9}, "imbalance": {"counts": {"entailment": 10}}, "leak": {"count": 7}},
    ],
    ids=lambda c: "+".join(c) or "none",
)
def test_every_corruption_can_be_undone(task, condition):
    made = splits()  # three classes: the binary task collapses them
    _, out, changes = apply(condition, task=task, made=made)
    listed = corruptions.changes_table(changes, task)
    assert corruptions.restore(out["train"], listed, made["train"]).equals(made["train"])
    if condition:
        assert not out["train"].equals(made["train"])


def test_regression_has_no_classes_to_corrupt():
    stsb = kind("stsb")
    made = {
        n: pa.table({"id": [f"{n}1", f"{n}2"], "label": [1.0, 2.5]}) for n in ("train", "clean", "selection", "test")
    }
    for condition in ({"noise": {"share": 0.5}}, {"imbalance": {"counts": {"a": 1}}}):
        with pytest.raises(InputError, match=r"the task stsb has no classes"):
            apply(condition, task=stsb, made=made)
    _, out, changes = apply({"leak": {"count": 1}}, task=stsb, made=made)
    assert out["train"].num_rows == 3
    assert corruptions.restore(out["train"], corruptions.changes_table(changes, stsb), made["train"]).equals(
        made["train"]
    )


TEXTS = kind("cnn_dailymail")


def written(rows=400):
    """Labels of one to four words; one label in five is the same."""
    words = ["a", "b", "c", "d", "e"]
    texts = [
        "a b" if i % 5 == 0 else " ".join(words[(i + k) % 5] for k in range(1 + i % 4)) + f" {i}" for i in range(rows)
    ]
    made = {
        n: pa.table({"id": [f"{n}{i}" for i in range(3)], "label": ["x", "y", "z"]})
        for n in ("clean", "selection", "test")
    }
    return made | {"train": pa.table({"id": [f"t{i}" for i in range(rows)], "label": texts})}


def test_swapped_labels_are_those_of_other_rows_and_differ():
    made, out, changes = apply({"noise": {"share": 0.3, "to": "swap"}}, task=TEXTS, made=written())
    assert len(changes) == 120 and all(old != new for _, _, old, new in changes)
    assert Counter(old for _, _, old, _ in changes) == Counter(new for *_, new in changes)
    given = {i: out["train"]["label"][n].as_py() for n, i in enumerate(out["train"]["id"].to_pylist())}
    assert all(given[i] == new for i, _, _, new in changes)
    assert sum(given[i] != label for i, label in labels(made["train"]).items()) == 120
    other = apply({"noise": {"share": 0.3, "to": "swap"}}, seed=1, task=TEXTS, made=written())[2]
    assert {i for i, *_ in other} != {i for i, *_ in changes}
    listed = corruptions.changes_table(changes, TEXTS)
    assert corruptions.restore(out["train"], listed, made["train"]).equals(made["train"])
    drawn = {i for i, *_ in apply({"noise": {"share": 0.3}}, made=splits(rows=400))[2]}
    assert len(drawn) == 120
    # numbers and classes may be swapped too
    nli = apply({"noise": {"share": 0.5, "to": "swap"}})[2]
    assert len(nli) == 1500 and all(old != new for _, _, old, new in nli)


def test_shuffled_labels_have_the_same_words_in_another_order():
    made, out, changes = apply({"noise": {"share": 0.5, "to": "shuffle"}}, task=TEXTS, made=written())
    assert len(changes) == 200
    for _, _, old, new in changes:
        assert Counter(old.split()) == Counter(new.split())
        assert (old == new) == (len(set(old.split())) == 1)
    listed = corruptions.changes_table(changes, TEXTS)
    assert corruptions.restore(out["train"], listed, made["train"]).equals(made["train"])


def test_noise_that_labels_do_not_allow_is_refused():
    for made, condition, said in [
        (
            written(),
            {"share": 0.3},
            r"p: c.noise: the task cnn_dailymail has no classes\nexpected `to: swap` or `to: shuffle`",
        ),
        (
            written(6),
            {"share": 0.2, "to": "swap"},
            r"p: c.noise: found `to: swap`, and 1 of the 1 chosen rows have one label",
        ),
        (splits(), {"share": 0.5, "to": "shuffle"}, "p: c.noise: found `to: shuffle`, and no label has two words"),
    ]:
        with pytest.raises(InputError, match=said):
            apply({"noise": condition}, task=TEXTS if "premise" not in made["train"].column_names else NLI, made=made)


def test_an_empty_list_of_changes_has_the_columns():
    empty = corruptions.changes_table([], NLI)
    assert empty.column_names == ["id", "kind", "old_label", "new_label"] and empty.num_rows == 0
