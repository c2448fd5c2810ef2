"""From the fields of a source's rows to the columns that every split has: id, texts, label, whatever else there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradworks.stage.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks import Row

TEXTS = {  # our column: the names that published files have for it, the first that is there counts
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "sentence1": ("sentence1", "question1", "#1 String", "text1"),
    "sentence2": ("sentence2", "question2", "#2 String", "text2"),
    "sentence": ("sentence", "text"),
    "question": ("question", "query"),
}
LABELS = ("gold_label", "label", "is_duplicate", "similarity", "score", "sentiment", "Quality", "classification")
IDS = ("pairID", "id", "index", "idx", "annotation_id")
_LEFT_OUT = {"sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse", ""}
_SPELLINGS = {"non-entailment": "not_entailment", "non_entailment": "not_entailment"}


@dataclass
class Split:
    """What was read of one split.

    Attributes:
        records: one mapping per example: id, texts, label, other columns.
        bad: rows that are not what they should be: file, line, reason.
        unlabelled: rows that say themselves that they have no label (`-` in SNLI and MNLI), likewise.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    unlabelled: list[dict[str, Any]] = field(default_factory=list)


def _column(names: Iterable[str], header: Iterable[str], where: str, what: str) -> str:
    header = list(header)
    for name in names:
        if name in header:
            return name
    raise InputError(
        f"{where}: no column for {what}: expected {' or '.join(map(repr, names))}\n"
        f"found: {', '.join(map(repr, header))}\n`columns: {{{what}: NAME}}` of the source says which it is"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def label_of(row: Row, raw: Any) -> str | float | None:
    """The label that a file's value stands for; None when it says that there is none.

    Class names stand for themselves (so do the finer ones that the task collapses); numbers are class indices.

    Raises:
        ValueError: it is no label of the task.
    """
    if raw == "-" or raw == -1:  # SNLI and MNLI without a majority; the hub's mark for a missing label
        return None
    if row.classes is None:
        value = float(raw)  # raises ValueError
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError
        return value
    text = _SPELLINGS.get(str(raw).strip(), str(raw).strip())
    for known in (*row.classes, *row.collapse):
        if text == known or text.lower() == known:
            return known
    number = float(raw)  # raises ValueError; True is 1
    if number.is_integer() and 0 <= number < len(row.classes):
        return row.classes[int(number)]
    raise ValueError


def read(
    row: Row,
    fields: Iterable[tuple[int, dict[str, Any] | str]],
    header: Iterable[str],
    file: str,
    prefix: str,
    columns: Mapping[str, str] | None = None,
) -> Split:
    """Read one split.

    Args:
        row: the task.
        fields: line number and the row's fields, or the reason why it could not be read.
        header: names of the columns.
        file: for messages.
        prefix: what ids begin with, unique to the split.
        columns: for people's own files: our column (a text, `label` or `id`) and the file's name for it.

    Raises:
        InputError: a column is missing, there are no rows at all, or every row is bad.
    """
    columns = dict(columns or {})
    header = list(header)
    strange = set(columns) - {*row.texts, "label", "id"}
    if strange:
        raise InputError(
            f"{file}: columns: found {min(strange)!r}\nexpected one of: {', '.join((*row.texts, 'label', 'id'))}"
        )
    texts = {t: _column((columns[t],) if t in columns else TEXTS.get(t, (t,)), header, file, t) for t in row.texts}
    label = _column((columns["label"],) if "label" in columns else LABELS, header, file, "label")
    own = next((name for name in IDS if name in header), None)
    if "id" in columns:
        own = _column((columns["id"],), header, file, "id")
    more = [n for n in header if n not in {*texts.values(), label, own, "id", *_LEFT_OUT} and not n.startswith("label")]
    split, lines = Split(), []
    for line, given in fields:
        if isinstance(given, str):
            split.bad.append({"file": file, "line": line, "reason": given})
            continue
        empty = next((t for t, name in texts.items() if not _text(given.get(name)).strip()), None)
        if empty:
            split.bad.append({"file": file, "line": line, "reason": f"no text in the column {texts[empty]!r}"})
            continue
        try:
            value = label_of(row, given.get(label))
        except (TypeError, ValueError):
            expected = f"one of: {', '.join((*row.classes, *row.collapse))}" if row.classes else "a number"
            reason = f"found label {given.get(label)!r}, expected {expected}"
            split.bad.append({"file": file, "line": line, "reason": reason})
            continue
        if value is None:
            split.unlabelled.append({"file": file, "line": line, "reason": "no gold label"})
            continue
        record = {t: given[name] for t, name in texts.items()}
        others = {n: given.get(n) for n in more if not isinstance(given.get(n), dict | list)}
        split.records.append({"id": given.get(own), **record, "label": value, **others})
        lines.append(line)
    if not split.records and not split.bad:
        found = f"{len(split.unlabelled)} rows, none with a label" if split.unlabelled else "no rows"
        raise InputError(f"{file}: {found}\nexpected labelled examples; `files` of the source chooses what is read")
    times = Counter(record["id"] for record in split.records)
    unique = None not in times and all(count == 1 for count in times.values())
    for record, line in zip(split.records, lines, strict=True):
        record["id"] = f"{prefix}-{record['id'] if unique else line}"
    return split


def to_table(row: Row, records: list[dict[str, Any]]) -> pa.Table:
    """Columns id, texts, label, then the others; all strings but the label of regression, which is float64."""
    import pyarrow as pa

    kind = pa.float64() if row.classes is None else pa.string()
    names = list(dict.fromkeys(name for record in records for name in record))
    texts = ["id", *row.texts]
    made = {}
    for name in [*texts, "label", *(n for n in names if n not in {*texts, "label"})]:
        values = [record.get(name) for record in records]
        if name != "label":
            values = [v if v is None or isinstance(v, str) else str(v) for v in values]
        made[name] = pa.array(values, kind if name == "label" else pa.string())
    return pa.table(made)
