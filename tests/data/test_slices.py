"""Slicing functions: the general ones on sentences of each sort, and what is wrong with a file of one's own."""

import pyarrow as pa
import pytest

from gradworks.base import names, validate
from gradworks.base.errors import InputError
from gradworks.data import members, slices, slices_general
from gradworks.data.functions import Row

PLAIN = ("The cat sleeps", "The cat sleeps")
IN = {  # texts inside each general slice, and near ones outside it
    "who": (("The man whose car broke", "Nobody"), ("The wholesaler", "")),
    "entity_in_second_only": (("A man left .", "The man from London left"), ("London calls", "He left London .")),
    "why_or_function_word": (("It rains because of clouds", ""), ("Sofas are soft", "")),
    "numbers": (("It has two doors", ""), ("Often a weight", "")),
    "first_or_second_person": (("We left", ""), ("He is in the United States", "")),
    "contraction": (("She doesn't sleep", ""), ("The cat's tail", "")),
    "question_mark": (("", "Really?"), ("Really!", "")),
    "question_word": (("How it works", ""), ("Show it", "")),
    "quotes": (('He said "yes"', ""), ("The dogs' owner's cat", "")),
    "modals": (("It might rain", ""), ("A mighty ship", "")),
    "qualifiers": (("Almost all of it", ""), ("A fewest", "")),
    "long_sentence": (("word " * 40 + "end", ""), ("word " * 20, "word " * 20)),
    "dash_or_semicolon": (("It rains; we stay", ""), ("A man, well: known", "")),
    "ends_with_question_word": (("You know why.", ""), ("Why you know", "")),
    "more_people": (("A dog", "A man and his dog"), ("A man", "A woman")),
    "low_bleu": (("The cat sleeps on the mat", "Quarterly profits rose"), PLAIN),
    "several_pronouns": (("He gave her a book", ""), ("He gave Mary a book", "")),
}


def test_the_general_functions_know_their_sentences():
    found = slices_general.functions()
    assert set(found) == set(IN) and len(found) == 17
    for name, (inside, outside) in IN.items():
        assert found[name](Row({}, inside)) is True, name
        assert found[name](Row({}, outside)) is False, name


def test_bleu_by_hand():
    # 3 of 4 words, 1 of 3 pairs and 0 of 2 and 1 longer ones, 1 added to all but the first; as long as the reference
    expected = (3 / 4 * (1 + 1) / (3 + 1) * (0 + 1) / (2 + 1) * (0 + 1) / (1 + 1)) ** 0.25
    assert slices_general.bleu(list("abcd"), list("abxd")) == pytest.approx(expected)
    assert slices_general.bleu(list("abcd"), list("ab")) == pytest.approx(2.718281828459045**-1)


OWN = """
from gradworks.data.slices import slicing_function

@slicing_function
def negation(row):
    return " not " in row["hypothesis"]

@slicing_function(name="brief")
def short(row):
    assert "label" not in row
    return len(row.texts[0]) < 6
"""
TABLE = pa.table({"id": ["a", "b", "c"], "premise": ["one", "two three", "four"],
                  "hypothesis": ["it is not so", "yes", "no"], "label": ["x", "y", "x"]})  # fmt: skip
TEXTS = ("premise", "hypothesis")


def asked(tmp_path, text, **more):
    (tmp_path / "own.py").write_text(text)
    return slices.chosen(slices.Slices(file="own.py", **more), tmp_path, "params.yaml: slice")


def test_a_file_of_functions(tmp_path):
    found = asked(tmp_path, OWN)
    assert list(found) == ["negation", "brief"] and not (tmp_path / "__pycache__").exists()
    ids, counts = slices.sliced(found, {"train": TABLE, "test": TABLE.slice(0, 1)}, TEXTS)
    assert ids == {"negation": ["a"], "brief": ["a", "c"]}
    assert counts == {"negation": {"train": 1, "test": 1}, "brief": {"train": 2, "test": 1}}
    assert slices.to_table(ids).to_pydict() == {"id": ["a", "a", "c"], "slice": ["negation", "brief", "brief"]}
    assert list(asked(tmp_path, OWN, use=["low_bleu", "brief"])) == ["low_bleu", "brief"]


BROKEN = {
    "import nothing_of_this_name": r"own\.py: reading it raised ModuleNotFoundError: No module",
    "x = 1": r"own\.py: found no function under @slicing_function",
    OWN + "\n@slicing_function\ndef negation(row): return True": r"own\.py: found two slicing functions called 'neg",
    OWN.replace("def negation", "def quotes"): r"own\.py: 'quotes' is the name of a general slicing function too",
    OWN.replace('"brief"', '"br/ef"'): r"own\.py: found the name 'br/ef': / in it",
    OWN.replace('row["hypothesis"]', 'row["hypo"]'): r"own\.py: slicing function negation: row a: raised KeyError",
    OWN.replace('" not " in ', ""): r"function negation: row a: returned 'it is not so'\nexpected True or False",
    OWN.replace('" not "', '"§"'): r"negation: none of the 3 examples of train is a member\nexpected at least one",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_an_error_in_words(tmp_path, text):
    with pytest.raises(InputError, match=BROKEN[text]) as error:
        slices.sliced(asked(tmp_path, text), {"train": TABLE, "test": TABLE}, TEXTS)
    assert len(str(error.value).splitlines()) <= 3


def test_a_slice_needs_members_in_train_and_in_test(tmp_path):
    found, empty = asked(tmp_path, OWN), TABLE.slice(1, 1)
    for name in ("train", "test"):
        splits = {"train": TABLE, "selection": empty, "test": TABLE}
        with pytest.raises(InputError, match=f"none of the 1 examples of {name} is a member"):
            slices.sliced(found, splits | {name: empty}, TEXTS)


def test_a_broken_section_is_an_error_in_words(tmp_path):
    with pytest.raises(InputError, match=r"own\.py: no such file"):
        slices.chosen(slices.Slices(file="own.py"), tmp_path, "params.yaml: slice")
    with pytest.raises(InputError, match=r"slice\.use: found 'brif'; did you mean brief"):
        asked(tmp_path, OWN, use=["brif"])
    with pytest.raises(InputError, match=r"slice\.use: found brief twice"):
        asked(tmp_path, OWN, use=["brief", "brief"])
    with pytest.raises(InputError, match="found neither file nor use"):
        validate({}, slices.Slices, "params.yaml: slice")


def test_a_column_of_the_slices_name_is_an_error():
    made = members.columns(TABLE, {"brief": frozenset("ac")}, "f")
    assert made["brief"].to_pylist() == ["in", None, "in"]
    with pytest.raises(InputError, match="found a column 'premise', as a slice is called"):
        members.columns(TABLE, {"premise": frozenset()}, "f")


def test_general_names_are_names():
    names.check(slices_general.functions(), "general")
