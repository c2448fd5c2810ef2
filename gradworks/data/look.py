"""What a file of one's own holds: which column is the label; classes or numbers.

The values of a column decide, and its name where it is a usual one. Rows are read as the stage `fetch` reads them.
"""

from __future__ import annotations

import datetime
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.data import labels, layouts, lines, records

USUAL = (  # names of label columns
    *(name.lower() for name in records.LABELS), "labels", "target", "class", "category", "rating", "stars", "polarity",
    "intent", "topic", "emotion", "stance", "toxicity", "spam", "is_spam", "y", "answer", "annotation",
    "klasse", "kategorie", "urteil", "bewertung", "stimmung", "sterne", "thema", "étiquette", "classe", "catégorie",
)  # fmt: skip
_IDS = re.compile(r"(.*[_\s-])?(id|ids|idx|index|uuid|guid|pairid|unnamed: 0)|", re.IGNORECASE)
_MONTH = r"(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zé.]*"
_DATES = (  # a day or a month of a year in numbers; a time of day; both with a month in words
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}",
    r"\d{1,2}:\d{2}(:\d{2}[.\d]*)?",
    rf"([a-z]{{2,9}}\.?,? )?(\d{{1,2}}\.? {_MONTH},? \d{{2,4}}|{_MONTH} (\d{{1,2}},? )?\d{{4}})",
)
_DATE = re.compile(rf"({'|'.join(_DATES)})([T ,].*)?", re.IGNORECASE)
_TIMES = re.compile(  # names of columns of dates that are numbers: years, seconds
    r"(.*[_\s-])?(date|datetime|time|timestamp|year|month|day|datum|zeit|jahr|monat|tag|fecha|année|jour)|.*_(at|ts)",
    re.IGNORECASE,
)
_MISSING = {
    "",
    "none",
    "null",
    "nan",
    "na",
    "n/a",
    "<na>",
    "-",
}  # as `labels` reads them; -1 depends on the other values
_FEW_NUMBERS = 20  # distinct whole numbers up to which they are classes
_MOST_CLASSES = 1000
PROSE = 3  # words of a text in the mean
_SHARE_BAD = 0.001  # of the rows, as `fetch.SOURCE.bad_rows`


@dataclass
class File:
    """A file as it was read.

    Attributes:
        path: where it is.
        names: of its columns. header: the same where its first line is a row, and the names are ours.
        columns: name -> the value of each row.
        rows: how many there are; bad: how many could not be read, with `reason`, the first.
    """

    path: Path
    names: list[str]
    header: list[str] | None
    columns: dict[str, list[Any]]
    rows: int
    bad: int = 0
    reason: str = ""


@dataclass
class Label:
    """What a label column holds.

    Attributes:
        column: its name; sure: it has a usual name, or is the only one that can be.
        classes: in order, as params.yaml names them; None where labels are numbers.
        values: value in the file -> class, where the file's value is no name for one.
        counts: class -> rows; missing: rows without a label.
        least, most, center, spread: of numbers; mean and standard deviation, rounded.
    """

    column: str
    sure: bool
    classes: list[str] | None
    values: dict[str, str]
    counts: dict[str, int]
    missing: int
    least: float = 0.0
    most: float = 0.0
    center: float = 0.0
    spread: float = 1.0


def read(path: Path) -> File:
    """All rows of a file.

    Raises:
        InputError: it is no data file, is empty, its header is broken, or too many rows cannot be read.
    """
    if lines.suffix(path) not in layouts.SUFFIXES:
        raise InputError(f"{path}: found {path.suffix or 'no suffix'}\nexpected one of: {', '.join(layouts.SUFFIXES)}")
    if not path.stat().st_size:
        raise InputError(f"{path}: empty\nexpected a header and rows")
    layout = layouts.detect(path)
    table, header = layouts.read(path, layout), None
    if layout in ("csv", "tsv") and _is_a_row(table.names):
        header = [f"column_{number}" for number in range(1, len(table.names) + 1)]
        table = layouts.read(path, layout, tuple(header))
    made = File(path, [name for name in table.names if name], header, {n: [] for n in table.names if n}, 0)
    for number, found in table.rows:
        made.rows += 1
        if isinstance(found, str):
            made.bad += 1
            made.reason = made.reason or f"line {number}: {found}"
            continue
        for name, values in made.columns.items():
            values.append(found.get(name))
    if made.bad > _SHARE_BAD * made.rows:
        raise InputError(f"{path}: {made.reason}\n{made.bad} of {made.rows} rows cannot be read")
    if not made.rows:
        raise InputError(f"{path}: no rows\nexpected some under the header {', '.join(map(repr, made.names[:8]))}")
    return made


def _is_a_row(names: Sequence[str]) -> bool:
    """Whether the first line has values, not names: a number or a sentence."""
    return any(_number(name) is not None or len(name.split()) > 6 for name in names if name)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return None
    return float(text)


def filled(values: Iterable[Any]) -> list[Any]:
    return [one for one in values if labels.form(one) not in _MISSING]


def is_id(name: str, values: Sequence[Any]) -> bool:
    if _IDS.fullmatch(name.strip()):
        return True
    forms = [labels.form(one) for one in values]
    if len(set(forms)) < len(forms) or len(forms) < 2:
        return False
    numbers = [_number(one) for one in values]
    if all(one is not None and one.is_integer() for one in numbers):
        return True
    return all(
        " " not in form and len(form) < 65 and re.search(r"\d", form) and _number(form) is None for form in forms
    )


def is_date(name: str, values: Sequence[Any]) -> bool:
    """Whether a column says when: dates and times as files have them, or numbers under such a name."""
    if all(_number(one) is not None for one in values):
        return len(set(values)) > 2 and _TIMES.fullmatch(name.strip()) is not None
    when = sum(isinstance(one, datetime.date | datetime.time) or _DATE.fullmatch(str(one).strip()) is not None
               for one in values)  # fmt: skip
    return when > 0.9 * len(values)


def words(values: Sequence[Any]) -> float:
    """Words of a value in the mean; 0 where the values are no text."""
    if not values or not all(isinstance(one, str) for one in values):
        return 0.0
    if sum(_number(one) is not None for one in values) > len(values) / 2:
        return 0.0
    return sum(
        len(one.split()) + one.count("、") + len(re.findall("[\u3040-\u9fff]", one)) / 2 for one in values
    ) / len(values)


def _is_label(name: str, values: Sequence[Any]) -> bool:
    """Whether a column can hold labels: few classes, or numbers that are neither ids nor dates."""
    if len(values) < 2 or any(isinstance(one, dict | list) for one in values) or is_id(name, values):
        return False
    if is_date(name, values):
        return False
    kinds = len({labels.form(one) for one in values})
    if kinds < 2:
        return False
    if all(_number(one) is not None for one in values):
        return True
    return kinds <= min(_MOST_CLASSES, max(2, len(values) // 4)) and words(values) < PROSE * 2


def label_of(file: File, chosen: str | None) -> str:
    """The label's column. Raises InputError where none can be it; `--label` chooses."""
    shown = ", ".join(repr(name[:40]) for name in file.names[:12])
    if chosen is not None:
        if chosen not in file.names:
            raise InputError(f"{file.path}: --label: found {chosen!r}\nexpected one of: {shown}")
        return chosen
    usual = sorted((n for n in file.names if n.strip().lower() in USUAL), key=lambda n: USUAL.index(n.strip().lower()))
    values = {name: filled(file.columns[name]) for name in file.names}
    for name in usual:
        if _is_label(name, values[name]):
            return name
    if usual and values[usual[0]]:
        return usual[0]  # what is wrong with it is said of it
    there = candidates(file)
    if not there:
        one = next((n for n in file.names if len({labels.form(v) for v in values[n]}) == 1), None)
        why = f"; {one!r} has one value, {values[one][0]!r}, in all rows" if one else ""
        raise InputError(
            f"{file.path}: no column looks like a label{why}\nfound: {shown}\n`--label NAME` says which it is"
        )
    few = {name: len({labels.form(one) for one in values[name]}) for name in there}
    return min(there, key=lambda name: (few[name] > _FEW_NUMBERS, name != file.names[-1], few[name]))


def candidates(file: File) -> list[str]:
    """Columns that can hold labels."""
    return [name for name in file.names if _is_label(name, filled(file.columns[name]))]


def slug(name: str, otherwise: str) -> str:
    """A word of ASCII letters, digits and _ for a name; `otherwise` where little is left of it."""
    text = unicodedata.normalize("NFKD", str(name).replace("ß", "ss"))
    made = re.sub(r"[^A-Za-z0-9]+", "_", "".join(c for c in text if not unicodedata.combining(c))).strip("_").lower()
    if not made or not made[0].isalpha() or sum(c.isalnum() for c in made) < sum(c.isalnum() for c in name) / 2:
        return otherwise
    return made[:40]


def _named(value: Any, column: str) -> str:
    """The class that a value of the file is called in params.yaml."""
    number = _number(value)
    if number is not None:
        return f"{column}_{'minus_' if number < 0 else ''}{abs(number):g}".replace(".", "_")
    return slug(str(value), "")


def _is_name(text: str) -> bool:
    """Whether a value can be a class's name as it is: no number, no truth value, nothing that YAML would read."""
    if text.lower() in ("true", "false", "yes", "no", "on", "off", "y", "n", "null"):
        return False
    return re.fullmatch(r"[A-Za-z][\w' &/+.-]*", text, re.ASCII) is not None and text == text.strip()


def labels_in(column: str, files: Sequence[File], sure: bool) -> Label:
    """What the label column of some files holds. Raises InputError where it is one class, or neither classes nor
    numbers.
    """
    path = files[0].path
    values = [one for file in files for one in file.columns[column]]
    there = filled(values)
    forms = Counter(labels.form(one) for one in there)
    rest = sorted(form for form in forms if form != "-1")
    if len(forms) > len(rest) > 2 and rest == [str(i) for i in range(len(rest))]:  # of -1, 0, 1 all may be classes
        there = [one for one in there if labels.form(one) != "-1"]
        del forms["-1"]
    if len(forms) < 2:
        found = f"one class, {next(iter(forms))!r}" if forms else "no label"
        raise InputError(
            f"{path}: column {column!r}: found {found} in {len(values)} rows\nexpected two classes at least"
        )
    numbers = [_number(one) for one in there]
    if all(one is not None for one in numbers):
        whole = all(one.is_integer() for one in numbers)  # type: ignore[union-attr]
        if not whole or len(forms) > _FEW_NUMBERS:
            known = [one for one in numbers if one is not None]
            center, spread = (float(f"{one:.3g}") for one in (statistics.fmean(known), statistics.pstdev(known)))
            missing = len(values) - len(there)
            return Label(column, sure, None, {}, {}, missing, min(known), max(known), center, spread)
    first = {labels.form(one): one for one in reversed(there)}
    if len(forms) > min(_MOST_CLASSES, len(there) / 2):
        some = ", ".join(repr(str(one)[:20]) for one in list(first.values())[:3])
        raise InputError(
            f"{path}: column {column!r}: found {len(forms)} values in {len(there)} rows: {some}, …\n"
            "expected classes or numbers; `--label NAME` names another column"
        )
    return _classes(column, sure, there, first, len(values) - len(there))


def _classes(column: str, sure: bool, there: list[Any], first: dict[str, Any], missing: int) -> Label:
    order = sorted(first, key=lambda f: ((n := _number(f)) is None, n or 0.0, f))
    short = slug(column, "label")
    named: dict[str, str] = {}
    given: dict[str, str] = {}
    truth = set(order) == {"true", "false"}
    for number, form in enumerate(order):
        raw = str(first[form]).strip()
        if truth:
            name = short.removeprefix("is_") if form == "true" else f"not_{short.removeprefix('is_')}"
        elif _is_name(raw) and _number(raw) is None:
            name = raw
        else:
            name = _named(first[form], short) or f"{short}_{number + 1}"
            name = f"{short}_{name}" if not _is_name(name) else name
        same = next((known for known in named.values() if records_name(known) == records_name(name)), None)
        if same is not None and (name != raw or form in given):
            name = f"{name}_{number + 1}"
            same = None
        named[form] = same or name
        if truth or name != raw:
            given[form] = named[form]
    counts = Counter(named[labels.form(one)] for one in there)
    classes = list(dict.fromkeys(named.values()))
    values = {form: named[form] for form in order} if given else {}
    return Label(column, sure, classes, values, {name: counts[name] for name in classes}, missing)


def records_name(text: str) -> str:
    """One spelling for class names that `labels` reads alike."""
    return re.sub(r"[\s_-]+", "_", text.strip().casefold())
