"""Which examples become train, clean, selection and test."""

import pyarrow as pa
import pytest

from gradworks.base.errors import InputError
from gradworks.data import splits
from gradworks.data.draws import choose, uniform


def table(name, rows, **columns):
    return pa.table({"id": [f"{name}-{i}" for i in range(rows)], "label": ["a", "b"] * (rows // 2), **columns})


def section(**given):
    base = {"train": "s/train", "clean": "s/dev", "selection": "s/dev", "test": "s/test"}
    base = {name: {"from": path} for name, path in base.items()}
    base["clean"]["size"] = 10
    return splits.Splits.model_validate({**base, **given})


TABLES = {
    "s/train": table("train", 60),
    "s/dev": table("dev", 40, kind=["x", "x", "y", None] * 10),
    "s/test": table("test", 20),
}


def draw(seed=0, tables=TABLES, **given):
    made, _ = splits.draw(section(**given), tables, seed, "p: corrupt.splits")
    return {name: one["id"].to_pylist() for name, one in made.items()}


def test_disjoint_and_complete():
    made = draw()
    assert {name: len(ids) for name, ids in made.items()} == {"train": 60, "clean": 10, "selection": 30, "test": 20}
    assert not set(made["clean"]) & set(made["selection"])


def test_one_split_of_a_source_for_all_four():
    parts = {name: {"from": "s/train", "size": 10} for name in ("clean", "selection", "test")}
    made = draw(**parts, train={"from": "s/train"})
    assert sorted(i for ids in made.values() for i in ids) == sorted(TABLES["s/train"]["id"].to_pylist())


def test_test_is_the_same_for_every_seed_and_clean_is_not():
    given = {"test": {"from": "s/test", "size": 5}, "train": {"from": "s/train", "size": 20}}
    zero, one = draw(0, **given), draw(1, **given)
    assert zero == draw(0, **given)
    assert zero["test"] == one["test"] and zero["train"] == one["train"]
    assert zero["clean"] != one["clean"]


def test_the_order_of_rows_does_not_matter():
    turned = {name: one.take(list(range(one.num_rows))[::-1]) for name, one in TABLES.items()}
    zero, other = draw(), draw(tables=turned)
    assert {n: set(ids) for n, ids in zero.items()} == {n: set(ids) for n, ids in other.items()}
    assert zero["clean"] == other["clean"][::-1]  # the source's order is kept


def test_where():
    made = draw(clean={"from": "s/dev", "where": {"kind": "y"}}, selection={"from": "s/dev", "where": {"kind": ["x"]}})
    assert len(made["clean"]) == 10 and len(made["selection"]) == 20


@pytest.mark.parametrize(
    "given, said",
    [
        (
            {"clean": {"from": "s/dev", "where": {"knd": "x"}}},
            "clean.where: found column 'knd'\nexpected one of: id, label, kind",
        ),
        ({"clean": {"from": "s/dev", "where": {"kind": "z"}}}, "clean.where.kind: found 'z'\ns/dev has: x, y"),
        ({"clean": {"from": "s/dev", "size": 41}}, "clean: s/dev has 40 examples for it, expected 41 examples"),
        (
            {"clean": {"from": "s/dev"}},
            "selection: s/dev has 0 examples for it, expected any\nothers take from the same",
        ),
    ],
)
def test_what_cannot_be_drawn_says_why(given, said):
    with pytest.raises(InputError) as caught:
        draw(**given)
    assert str(caught.value).startswith(f"p: corrupt.splits.{said}")


def test_an_id_in_two_splits_is_found():
    made = {name: table(name, 4) for name in splits.NAMES}
    splits.check_disjoint(made, set())
    leaked = {**made, "train": pa.concat_tables([made["train"], made["test"].slice(0, 1)])}
    splits.check_disjoint(leaked, {"test-0"})
    with pytest.raises(InputError, match=r"splits train and test share 1 ids, for example test-0"):
        splits.check_disjoint(leaked, set())
    with pytest.raises(InputError, match=r"splits clean and test share 4 ids"):
        splits.check_disjoint({**made, "clean": made["test"]}, {"test-0", "test-1", "test-2", "test-3"})
    with pytest.raises(InputError, match=r"splits train and clean share"):
        splits.check_disjoint({**made, "clean": made["train"]}, set())
    with pytest.raises(InputError, match=r"split train: duplicate id"):
        splits.check_disjoint({**made, "train": pa.concat_tables([made["train"]] * 2)}, set())


TEXTS = {
    "train": ["A dog runs .", "a cat", "tea", "leaked"],
    "clean": ["A dog runs .", "milk", "tea"],
    "selection": ["a dog runs.", "bread", "Milk"],
    "test": ["a  dog runs .", "A CAT", "tea", "leaked", "own"],
}


def with_texts(texts=TEXTS):
    return {
        name: pa.table({"id": [f"{name}-{one}" for one in own], "label": ["a"] * len(own), "t": own})
        for name, own in texts.items()
    }


def test_duplicates_are_counted_by_letter_and_without_case_and_blanks():
    assert splits.duplicates(with_texts(), ("t",), {"train-leaked"}) == {
        "clean": {"train": {"same": 2, "alike": 2}},
        "selection": {"train": {"same": 0, "alike": 1}, "clean": {"same": 0, "alike": 2}},
        "test": {
            "train": {"same": 1, "alike": 3}, "clean": {"same": 1, "alike": 2}, "selection": {"same": 0, "alike": 1},
        },
    }  # fmt: skip


def dropped(duplicates, size=None, texts=TEXTS):
    take = {name: {"from": f"s/{name}"} for name in splits.NAMES}
    take["clean"] |= {"size": size} if size else {}
    asked = splits.Splits.model_validate({**take, **({"duplicates": duplicates} if duplicates else {})})
    tables = {f"s/{name}": one for name, one in with_texts(texts).items()}
    made, left_out = splits.draw(asked, tables, 0, "p", ("t",))
    return {name: one["t"].to_pylist() for name, one in made.items()}, left_out


def test_duplicates_can_be_left_out():
    assert dropped(None) == dropped("keep") == (TEXTS, {})
    with pytest.raises(InputError, match=r"p.train: s/train has 0 examples for it, expected any\n`dup.*: drop` left 4"):
        dropped("drop")
    more = {**TEXTS, "train": [*TEXTS["train"], "Bread", "water"]}
    made, left_out = dropped("drop", texts=more)
    assert made == {"train": ["water"], "clean": ["milk"], "selection": ["bread"], "test": TEXTS["test"]}
    assert left_out == {"clean": 2, "selection": 2, "train": 5}
    with pytest.raises(
        InputError, match=r"p.clean: s/clean has 1 examples for it, expected 2 examples\n`duplicates: d"
    ):
        dropped("drop", 2)


def test_where_takes_what_yaml_makes_of_a_text():
    take = splits.Take.model_validate({"from": "s/x", "where": {"year": 2012, "kind": ["a", 1.5], "yes": True}})
    assert take.where == {"year": "2012", "kind": ["a", "1.5"], "yes": "True"}


def test_draws_are_uniform_keyed_and_nested():
    values = [uniform(0, "noise", f"id{i}") for i in range(4000)]
    assert min(values) >= 0 and max(values) < 1
    for tenth in range(10):
        assert 330 < sum(tenth <= 10 * v < tenth + 1 for v in values) < 470
    assert uniform(0, "noise", "id1") != uniform(1, "noise", "id1") != uniform(1, "other", "id1")
    assert uniform("a", "bc") != uniform("ab", "c")
    ids = [f"id{i}" for i in range(100)]
    assert choose(ids, 10, 0, "x") < choose(ids[::-1], 30, 0, "x")
    assert choose(ids, 10, 0, "x") != choose(ids, 10, 1, "x")


def test_a_share_is_of_all_that_a_split_of_a_source_has():
    all_four = {
        name: {"from": "s/train", "share": share}
        for name, share in (("clean", 0.1), ("selection", 0.25), ("test", 0.2))
    }
    made = draw(**all_four, train={"from": "s/train"})
    assert {name: len(ids) for name, ids in made.items()} == {"train": 27, "clean": 6, "selection": 15, "test": 12}
    assert draw(clean={"from": "s/dev", "share": 0.25, "where": {"kind": "x"}})["clean"].__len__() == 5  # of 20
    with pytest.raises(InputError, match="clean: s/train has 6 examples for it, expected 30"):
        draw(test={"from": "s/train", "share": 0.9}, clean={"from": "s/train", "share": 0.5})
    with pytest.raises(ValueError, match="both size and share"):
        section(clean={"from": "s/dev", "share": 0.5, "size": 3})


def questions(rows, prefix="", **columns):
    """Two to four answers to each question, not side by side."""
    groups = sorted(f"q{i // 3}" for i in range(rows))[::2] + sorted(f"q{i // 3}" for i in range(rows))[1::2]
    return pa.table(
        {"id": [f"{prefix}{i}" for i in range(rows)], "group": groups, "label": ["a", "b"] * (rows // 2), **columns}
    )


def test_whole_questions_are_drawn_and_none_is_in_two_splits():
    table = questions(90)
    sizes = {"clean": {"size": 4}, "selection": {"share": 0.2}, "test": {"size": 10}, "train": {}}
    asked = splits.Splits.model_validate({name: {"from": "s/all", **one} for name, one in sizes.items()})
    made, _ = splits.draw(asked, {"s/all": table}, 0, "p: corrupt.splits", together="group")
    found = {name: one["group"].to_pylist() for name, one in made.items()}
    assert {name: len(set(one)) for name, one in found.items()} == {"train": 10, "clean": 4, "selection": 6, "test": 10}
    all_rows = table["group"].to_pylist()
    assert all(one.count(group) == all_rows.count(group) for one in found.values() for group in one)
    rows = splits.draw(asked, {"s/all": table}, 0, "p: corrupt.splits")[0]["test"]["group"].to_pylist()
    assert any(rows.count(group) < all_rows.count(group) for group in rows)  # what rows would be


def test_a_question_that_would_be_cut_is_refused_or_left_out():
    table = questions(12, text=[f"t{i}" for i in range(12)], kind=["x"] * 11 + ["y"])
    tables = {"s/train": table, "s/test": questions(6, "test-", text=["t0", "u", "v", "w", "x", "y"], kind=["x"] * 6)}

    def made(**given):
        base = {name: {"from": "s/train", "size": 1} for name in ("clean", "selection")}
        base |= {"train": {"from": "s/train"}, "test": {"from": "s/test"}} | given
        return splits.draw(splits.Splits.model_validate(base), tables, 0, "p", ("text",), "group")

    found, dropped = made(duplicates="drop")
    assert dropped == {"clean": 3, "selection": 3, "train": 3}  # the question of t0, all its rows
    assert sum(one.num_rows for one in found.values()) == 6 + 9
    with pytest.raises(InputError, match=r"p.train.where: it holds for 2 of the 3 rows whose 'group' is 'q3'\n"):
        made(train={"from": "s/train", "where": {"kind": "x"}})
    with pytest.raises(InputError, match=r"p.test.balanced: rows of one 'group' have several labels"):
        made(test={"from": "s/test", "balanced": True})
    with pytest.raises(InputError, match=r"p.test: s/test has 2 examples for it, expected 3 examples"):
        made(test={"from": "s/test", "size": 3})
