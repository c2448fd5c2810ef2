"""What a column of a file can be: a date is no label. More of it by whole files in tests/test_new.py."""

import csv
import datetime

import pytest

from gradworks.data import look

DATES = {
    "when": ["2024-01-31", "2024-02-01T10:00:00Z"], "seen": ["31.1.2024", "1/2/24 10:00"], "hour": ["7:05", "19:30:00"],
    "posted": ["Jan 31, 2024", "Wed, 1 Feb 2024 10:00"], "year": [2019, 2020, 2021], "made_at": [1.7e9, 1.8e9, 1.9e9],
}  # fmt: skip


def table(path, **columns):
    """60 rows; each column repeats its values."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = ([f"what {i} is said", *(values[i % len(values)] for values in columns.values())] for i in range(60))
        csv.writer(file).writerows([["words", *columns], *rows])
    return look.read(path)


@pytest.mark.parametrize("name", DATES)
def test_a_date_is_no_label(tmp_path, name):
    """Few dates, the last column: what would be taken for classes."""
    file = table(tmp_path / "dated.csv", mood=["neg", "pos"], **{name: DATES[name]})
    assert look.candidates(file) == ["mood"] and look.label_of(file, None) == "mood"
    assert look.label_of(file, name) == name  # asked for


def test_numbers_and_classes_that_are_no_dates(tmp_path):
    plain = {"mood": ["may be", "1-2-3 go"], "rank": range(7), "is_day": [0, 1], "grade": ["3.5", "4.5"]}
    assert look.candidates(table(tmp_path / "plain.csv", **plain)) == list(plain)
    assert look.is_date("x", [datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1, 7)])  # of Parquet
