"""From the fields of a source's rows to the columns of a split: id, texts, label, and all others of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.data import labels
from gradworks.data.lines import Account

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind

TEXTS = {  # our column: the names that published files have for it, the first that is there counts
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "sentence1": ("sentence1", "question1", "#1 String", "text1"),
    "sentence2": ("sentence2", "question2", "#2 String", "text2"),
    "sentence": ("sentence", "text"),
    "question": ("question", "query"),
    "passage": ("passage", "paragraph"),
    "document": ("document", "article", "input"),
    "prompt": ("prompt", "instruction", "question"),
}
LABELS = ("gold_label", "label", "is_duplicate", "similarity", "score", "sentiment", "Quality", "classification")
IDS = ("pairID", "id", "index", "idx", "annotation_id")
_LEFT_OUT = {"sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse", ""}


class Unlabelled(InputError):
    """A split without a column for labels, or with nothing in it."""


@dataclass(frozen=True)
class Asked:
    """What a source says of its files.

    Attributes:
        columns: our column (a text, `label` or `id`) and the file's name for it.
        labels: `labels.form` of a value, and the label that it means.
        header: names of the columns of files that have no header.
        unlabelled: no label is read, and columns that may hold one are left out.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str | float] = field(default_factory=dict)
    header: tuple[str, ...] | None = None
    unlabelled: bool = False


@dataclass
class Split:
    """What was read of one split.

    Attributes:
        records: one mapping per example: id, texts, label, other columns.
        bad: rows that are not what they should be: file, line, reason.
        unlabelled: rows that say themselves that they have no label (`-` in SNLI and MNLI), likewise.
        values: of labels that are not class names: the file's value and the label it was read as.
        account: of the file's lines, where lines are rows.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    unlabelled: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, str | float] = field(default_factory=dict)
    account: Account | None = None


def _column(names: Iterable[str], header: Iterable[str], where: str, what: str) -> str:
    header = list(header)
    for name in names:
        if name in header:
            return name
    raise (Unlabelled if what == "label" else InputError)(
        f"{where}: no column for {what}: expected {' or '.join(map(repr, names))}\n"
        f"found: {', '.join(repr(name[:40]) for name in header[:20]) or 'none'}\n"
        f"`columns: {{{what}: NAME}}` of the source says which it is, `files` what is read, `header: [...]` is for "
        "files without one"
    )


def columns_of(row: Kind, header: Iterable[str], file: str, asked: Asked) -> tuple[dict[str, str], list[str]]:
    """The file's column for each text of the task, and those that may hold the label.

    Raises:
        InputError: there is none, or `columns` names something else; Unlabelled where it is the label's.
    """
    columns, known = asked.columns, (*row.label_columns, *LABELS)
    header = row.headed(list(header), columns)
    strange = set(columns) - {*row.spec.texts, "label", "id"}
    if strange:
        raise InputError(
            f"{file}: columns: found {min(strange)!r}\nexpected one of: {', '.join((*row.spec.texts, 'label', 'id'))}"
        )
    texts = {t: _column((columns[t],) if t in columns else TEXTS.get(t, (t,)), header, file, t) for t in row.spec.texts}
    if asked.unlabelled:
        return texts, []
    if "label" in columns:
        found = [_column((columns["label"],), header, file, "label")]
    else:
        free = [name for name in header if name not in texts.values()]
        _column(known, free, file, "label")
        found = [name for name in known if name in free]
    twice = next((n for n, times in Counter([*texts.values(), found[0]]).items() if times > 1), None)
    if twice is not None:
        what = " and ".join(w for w, n in [*texts.items(), ("label", found[0])] if n == twice)
        raise InputError(
            f"{file}: the column {twice!r} would be {what}\n`columns: {{{what.split()[-1]}: NAME}}` of the source says "
            "which they are"
        )
    return texts, found


def is_whole(row: Kind, fields: Mapping[str, Any], asked: Asked) -> bool:
    """Whether fields are a good row: texts, and a label of the task or none."""
    try:
        texts, found = columns_of(row, fields, "", asked)
        fields = row.unfold(fields, asked.columns)
        _taken(row, fields, texts)
        return not found or labels.of(row, fields[found[0]], asked.labels)[0] is not None
    except ValueError:
        return False


def _taken(row: Kind, fields: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """What the model reads of a row. ValueError: the reason why it cannot be read."""
    return {ours: row.take(fields.get(name), name) for ours, name in texts.items()}


@dataclass(slots=True)
class _Candidate:
    """A row with texts, before it is known which column holds the label."""

    line: int
    id: Any
    texts: dict[str, Any]
    values: tuple[Any, ...]
    others: dict[str, Any]


def _signed(row: Kind, candidates: list[_Candidate], at: int) -> bool:
    """Whether -1 is a value, and no mark for nothing."""
    return row.signed({labels.form(one.values[at]) for one in candidates})


def _labelled(row: Kind, found: list[_Candidate], places: list[str], at: int, file: str, asked: Asked) -> Split:
    """The rows with their labels, those of column `at`. InputError when it is not clear what -1 means."""
    split = Split()
    signed = _signed(row, found, at)
    label_of = labels.reader(row, asked.labels)
    by_name = marked = 0
    for one in found:
        raw = one.values[at]
        key, label = label_of(raw)
        marked += key == "-1"
        if signed and key == "-1":
            label = (-1.0, True)
        if label is None:
            reason = f"found label {raw!r}, expected {row.expected(tuple(asked.labels or ()))}"
            split.bad.append({"file": file, "line": one.line, "reason": reason})
            continue
        value, named = label
        if value is None:
            split.unlabelled.append({"file": file, "line": one.line, "reason": "no gold label"})
            continue
        others = one.others
        if places[at] in others:
            others = {name: v for name, v in others.items() if name != places[at]}
        record = {"id": one.id, **one.texts, "label": value, **others, "": one.line}
        fault = row.fault(record)
        if fault:
            split.bad.append({"file": file, "line": one.line, "reason": fault})
            continue
        by_name += named
        if not named:
            split.values[key] = value
        split.records.append(record)
    values = sorted(split.values)
    classes = row.signs(values, marked)
    if classes and marked and not asked.labels and not by_name:
        there = ["-1", *values]
        shown = ", ".join(f"{one}: {known}" for one, known in zip(there, classes, strict=True))
        raise InputError(
            f"{file}: found labels {', '.join(there)} for {len(classes)} classes: is -1 one of them, or no label?\n"
            f"`labels: {{{shown}}}` of the source, put right, says what they mean"
        )
    return split


def read(
    row: Kind,
    fields: Iterable[tuple[int, dict[str, Any] | str]],
    header: Iterable[str],
    file: str,
    prefix: str,
    asked: Asked | None = None,
) -> Split:
    """Read one split. Which column holds its labels is decided when all rows are known.

    Args:
        row: the task.
        fields: line number and the row's fields, or the reason why it could not be read.
        header: names of the columns.
        file: for messages.
        prefix: what ids begin with, unique to the split.
        asked: for people's own files.

    Raises:
        InputError: a column is missing, there are no rows at all, or -1 and 1 are all labels.
        Unlabelled: no column for labels, or no row has one.
    """
    asked = asked or Asked()
    header = list(header)
    split = Split()
    if not header:
        split.bad = [{"file": file, "line": line, "reason": reason} for line, reason in fields]
        if split.bad:
            return split
        raise InputError(f"{file}: no rows\nexpected labelled examples; `files` of the source chooses what is read")
    texts, places = columns_of(row, header, file, asked)
    own = next((name for name in IDS if name in header), None)
    if "id" in asked.columns:
        own = _column((asked.columns["id"],), header, file, "id")
    left_out = {*texts.values(), *row.spec.texts, own, "id", *_LEFT_OUT}
    left_out |= {*row.label_columns, *LABELS, asked.columns.get("label")} if asked.unlabelled else set()
    more = [n for n in header if n not in left_out and not n.startswith("label")]
    found: list[_Candidate] = []
    for line, given in fields:
        reason, kept = given if isinstance(given, str) else None, {}
        if reason is None:
            try:
                given = row.unfold(given, asked.columns)
                kept = _taken(row, given, texts)
            except InputError:  # not of this row
                raise
            except ValueError as error:
                reason = str(error)
        if reason:
            split.bad.append({"file": file, "line": line, "reason": reason})
            continue
        others = {n: given.get(n) for n in more if not isinstance(given.get(n), dict | list)}
        found.append(_Candidate(line, given.get(own), kept, tuple(given.get(n) for n in places), others))
    if not found and not split.bad:
        raise InputError(f"{file}: no rows\nexpected labelled examples; `files` of the source chooses what is read")
    if asked.unlabelled:
        split.records = [{"id": c.id, **c.texts, "label": None, **c.others, "": c.line} for c in found]
        _number(split, prefix)
        return split
    broken = split.bad
    # the first column with a label counts; where none has one, the first with something in it, which is then at fault
    made = [_labelled(row, found, places, 0, file, asked)]
    while not made[-1].records and len(made) < len(places):
        made.append(_labelled(row, found, places, len(made), file, asked))
    split = made[-1] if made[-1].records else next((one for one in made if one.bad), made[0])
    split.bad = sorted([*broken, *split.bad], key=lambda one: one["line"])
    if not split.records and len(split.unlabelled) > len(split.bad):
        raise Unlabelled(
            f"{file}: {len(split.unlabelled)} rows, none with a label in the column {' or '.join(map(repr, places))}\n"
            "expected labelled examples; `files` of a folder chooses what is read"
        )
    _number(split, prefix)
    return split


def _number(split: Split, prefix: str) -> None:
    """Ids: the source's own where each row has one of its own, else lines."""
    plain = all(isinstance(record["id"], str | int | float) for record in split.records)
    times = Counter(record["id"] for record in split.records) if plain else Counter()
    unique = plain and all(count == 1 for count in times.values())
    for record in split.records:
        line = record.pop("")
        record["id"] = f"{prefix}-{record['id'] if unique else line}"


def to_tables(row: Kind, records: Sequence[dict[str, Any]]) -> Iterator[pa.Table]:
    """Columns id, what the model reads, label, then the others; all strings but the label and pictures, whose types are
    the kind's.

    A part of the rows at a time, as many as the kind says, so that pictures are not in memory twice.
    """
    import pyarrow as pa

    others = dict.fromkeys(name for record in records for name in record)
    names = list(dict.fromkeys(["id", *row.spec.texts, "label", *others]))
    for start in range(0, len(records), row.rows_at_once):
        made = {}
        for name in names:
            values = [record.get(name) for record in records[start : start + row.rows_at_once]]
            if name in row.spec.texts:
                made[name] = row.column(values)
            elif name == "label":
                made[name] = pa.array(values, row.label_type)
            else:
                made[name] = pa.array([v if v is None or isinstance(v, str) else str(v) for v in values], pa.string())
        yield pa.table(made)
