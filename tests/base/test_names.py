"""One rule for the names that people give, and the reason with every refusal."""

import datetime
import shlex
import string

import pytest

from gradworks.base import names
from gradworks.base.errors import InputError


@pytest.mark.parametrize("name", ["erm", "erm+clean", "erm-2", "last_layer", "mnli-hans", "x" * 60, "R3F"])
def test_names(name):
    names.check([name], "p: methods")
    assert shlex.split(f"program --name {name} --next") == ["program", "--name", name, "--next"]


@pytest.mark.parametrize("character", sorted(set(string.printable) - set(string.ascii_letters + string.digits + "_+-")))
def test_no_character_reaches_a_shell_that_has_a_meaning_there(character):
    for name in (f"a{character}b", f"ab{character}", f"{character}ab"):
        with pytest.raises(InputError, match="found the name"):
            names.check([name], "p: methods")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "sam-0.05",
            "a dot in it, and DVC takes keys apart at dots\nexpected a letter, then letters, digits, _, + and",
        ),
        ("sam-0.05", "; for example sam-0_05"),
        ("my sam", "a blank in it, and a name becomes one word of a command"),
        ("sam@2", "@ in it, which DVC has between a stage and its cell"),
        ("größe", "'ö' in it"),
        ("2024", "it begins with no letter\nexpected a letter, then letters, digits, _, + and -; for example x2024"),
        ("-x", "it begins with no letter"),
        ("", "it is empty"),
        ("x" * 61, "61 characters are too many, 60 the most"),
        (2024, "to YAML that is a number"),
        (0.5, "to YAML that is a number"),
        (False, "to YAML that is a truth value"),
        (None, "to YAML that is nothing"),
        (datetime.date(2024, 1, 2), "to YAML that is a date"),
    ],
)
def test_reasons(name, said):
    with pytest.raises(InputError) as error:
        names.check(["erm", name], "p: methods")
    assert str(error.value).startswith(f"p: methods: found the name {name!r}: ")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_names_that_differ_in_capitals_alone():
    with pytest.raises(InputError, match="found the names 'erm' and 'ERM'"):
        names.check(["erm", "sam", "ERM"], "p: methods")
