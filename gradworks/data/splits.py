"""Which examples become train, clean, selection and test: drawn by id, disjoint where they must be."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.data.draws import choose

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("train", "clean", "selection", "test")
ORDER = ("test", "clean", "selection", "train")  # who draws first where two take from one split of a source


class Take(Section):
    """Where one split comes from.

    Attributes:
        from_: SOURCE/SPLIT.
        where: column and the value, or values, that it must have.
        size: how many examples, whole ones: of answers so many questions; all when neither it nor `share` is given.
        share: as a part of the split's examples that `where` asks for, before any other takes some.
        balanced: as many of each label as of the others; with `size`, so many in all, else as many as there are of the
            rarest.
    """

    from_: str = Field(alias="from", pattern=r"^[^/]+/[^/]+$")
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    size: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, lt=1)
    balanced: bool = False

    @model_validator(mode="after")
    def _one(self) -> Take:
        if self.size is not None and self.share is not None:
            raise ValueError("found both size and share; expected one of them")
        if self.balanced and self.share is not None:
            raise ValueError("found both balanced and share; expected size, or neither")
        return self

    def count(self, rows: int) -> int | None:
        """How many of `rows` examples; None for all that are left."""
        return self.size if self.share is None else max(1, round(self.share * rows))

    @field_validator("where", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        """Columns hold text: `year: 2012` means "2012"."""
        if not isinstance(given, dict):
            return given
        simple = bool | int | float
        return {
            k: [str(one) if isinstance(one, simple) else one for one in v] if isinstance(v, list)
            else str(v) if isinstance(v, simple) else v
            for k, v in given.items()
        }  # fmt: skip


class Splits(Section):
    """The section `splits`.

    Attributes:
        train, clean, selection, test: where each comes from.
        duplicates: what becomes of an example whose texts, but for case and blanks, are those of an example of another
            split. `drop`: of test, clean, selection and train, the first in this order keeps it. `keep`: all do.
            Without it all do, and selection and test are refused where train has the texts of all their examples.
        split_seed: by which clean and selection are drawn, in the place of each run's own seed; a condition's goes
            before it.
    """

    train: Take
    clean: Take
    selection: Take
    test: Take
    duplicates: Literal["keep", "drop"] | None = None
    split_seed: int | None = Field(default=None, ge=0)


def _matching(table: pa.Table, take: Take, where: str) -> list[int]:
    """Positions of the rows that `take.where` asks for."""
    chosen = range(table.num_rows)
    for column, wanted in take.where.items():
        if column not in table.column_names:
            raise InputError(
                f"{where}.where: found column {column!r}\nexpected one of: {', '.join(table.column_names)}"
            )
        allowed = {wanted} if isinstance(wanted, str) else set(wanted)
        values = table[column].to_pylist()
        there = {v for v in values if v is not None}
        if not allowed <= there:
            shown = ", ".join(sorted(map(str, there))[:12])
            raise InputError(
                f"{where}.where.{column}: found {sorted(allowed - there)[0]!r}\n{take.from_} has: {shown or 'no value'}"
            )
        chosen = [i for i in chosen if values[i] in allowed]
    return list(chosen)


def _check_whole(units: list[str], chosen: list[int], together: str, where: str) -> None:
    """Raises InputError when `chosen` has some rows of a unit and not all of them."""
    found, of = Counter(units[i] for i in chosen), Counter(units)
    cut = next((unit for unit, rows in found.items() if rows < of[unit]), None)
    if cut is not None:
        raise InputError(
            f"{where}: it holds for {found[cut]} of the {of[cut]} rows whose {together!r} is {cut!r}\n"
            "expected all of them or none: they are one question"
        )


def draw(
    splits: Splits,
    tables: dict[str, pa.Table],
    seed: int,
    where: str,
    texts: tuple[str, ...] = (),
    together: str | None = None,
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """The four splits, in the source's order of rows.

    Test is the same for every seed; clean and selection are drawn by seed, and train is what they leave where they take
    from its split of the source. Where several take from the same
    split of a source, each draws from what those before it (test, clean, selection, train) left.

    Args:
        splits: the section.
        tables: `SOURCE/SPLIT` and its table.
        seed: of the draws: `split_seed`, or that of the run.
        where: params file and section, for messages.
        texts: the task's text columns, by which `duplicates: drop` knows an example again.
        together: the column whose rows of one value are drawn together, and counted as one; each row without it.

    Returns:
        The splits, and how many examples `duplicates: drop` left out before each was drawn.

    Raises:
        InputError: a column or value is not there, a split is empty or smaller than its size, ids are not disjoint, or
            rows that are drawn together would be cut or balanced.
    """
    made: dict[str, pa.Table] = {}
    dropped: dict[str, int] = {}
    taken: dict[str, set[str]] = {}
    read: set[tuple[str | bytes, ...]] = set()  # texts of the splits before
    for name in ORDER:
        take: Take = getattr(splits, name)
        table = tables[take.from_]
        units = table[together or "id"].to_pylist()  # what is drawn
        before = taken.setdefault(take.from_, set())
        matching = _matching(table, take, f"{where}.{name}")
        if together:
            _check_whole(units, matching, together, f"{where}.{name}.where")
        size = take.count(len({units[i] for i in matching}))
        there = [i for i in matching if units[i] not in before]
        alike = _alike(table, texts) if splits.duplicates == "drop" else []
        known = {units[i] for i in there if alike and alike[i] in read}
        repeated = sum(units[i] in known for i in there)
        there = [i for i in there if units[i] not in known]
        if repeated:
            dropped[name] = repeated
        found = dict.fromkeys(units[i] for i in there)
        if not there or len(found) < (size or 0):
            asked = f"{size} examples" if size else "any"
            raise InputError(
                f"{where}.{name}: {take.from_} has {len(found)} examples for it, expected {asked}"
                + ("\nothers take from the same split of the source: give them a `size` or `share`" if before else "")
                + (f"\n`duplicates: drop` left {repeated} out" if repeated else "")
            )
        key = (seed, name) if name in ("clean", "selection") else (name,)
        if take.balanced:
            if together:
                raise InputError(
                    f"{where}.{name}.balanced: rows of one {together!r} have several labels and are drawn together\n"
                    "expected `size` or `share` without it"
                )
            labels = table["label"].to_pylist()
            chosen = _balanced([(units[i], labels[i]) for i in there], size, key, f"{where}.{name}")
            there = [i for i in there if units[i] in chosen]
        elif size:
            chosen = choose(found, size, *key)
            there = [i for i in there if units[i] in chosen]
        before.update(units[i] for i in there)
        read.update(alike[i] for i in there if alike)
        made[name] = table.take(there)
    check_disjoint(made, set())
    return {name: made[name] for name in NAMES}, dropped


def _balanced(rows: list[tuple[str, Any]], size: int | None, key: tuple[int | str, ...], where: str) -> set[str]:
    """Ids with as many of each label as of the others.

    Args:
        rows: id and label of each example there is.
        size: ids in all; None: as many as there are of the rarest label.
        key: of the draws.
        where: params file and key.

    Raises:
        InputError: the size is no multiple of the labels, or a label has fewer examples.
    """
    by_label: dict[Any, list[str]] = {}
    for own, label in rows:
        by_label.setdefault(label, []).append(own)
    rarest = min(by_label, key=lambda label: (len(by_label[label]), str(label)))
    each, left = divmod(size or len(by_label[rarest]) * len(by_label), len(by_label))
    if left:
        raise InputError(f"{where}.size: found {size}\nexpected a multiple of {len(by_label)}, the labels there are")
    if each > len(by_label[rarest]):
        found = f"{len(by_label[rarest])} examples of {rarest!r}"
        raise InputError(f"{where}: found {found}\nexpected {each} of each label, {size} in all")
    return {one for label, ids in by_label.items() for one in choose(ids, each, *key, str(label))}


def check_disjoint(made: dict[str, Any], leaked: set[str]) -> None:
    """Raises InputError when an id is in two splits; `leaked` ids may be in train and test."""
    ids = {name: made[name]["id"].to_pylist() for name in NAMES}
    for name, own in ids.items():
        if len(set(own)) < len(own):
            raise InputError(f"split {name}: duplicate id")
    for i, first in enumerate(NAMES):
        for second in NAMES[i + 1 :]:
            both = set(ids[first]) & set(ids[second])
            if (first, second) == ("train", "test"):
                both -= leaked
            if both:
                raise InputError(f"splits {first} and {second} share {len(both)} ids, for example {min(both)}")


def read_texts(table: Any, texts: tuple[str, ...]) -> list[tuple[str | bytes, ...]]:
    """What is read of each row; of a picture a digest, which is smaller."""
    return list(zip(*(_values(table[t]) for t in texts), strict=True))


def _values(column: Any) -> list[str | bytes]:
    if str(column.type) == "string":
        return column.to_pylist()
    return [hashlib.blake2b(one.as_buffer(), digest_size=16).digest() for one in column]


def _alike(table: Any, texts: tuple[str, ...]) -> list[tuple[str | bytes, ...]]:
    """The texts of each row without case and blanks, which is what cleaning and tokenising change."""
    return [tuple(_plain(one) for one in row) for row in read_texts(table, texts)]


def _plain(value: str | bytes) -> str | bytes:
    return "".join(value.split()).casefold() if isinstance(value, str) else value


def duplicates(made: dict[str, Any], texts: tuple[str, ...], leaked: set[str]) -> dict[str, dict[str, dict[str, int]]]:
    """How many examples of clean, selection and test have the texts of an example of another split.

    Args:
        made: the four splits.
        texts: the task's text columns.
        leaked: ids of test examples that were put into train on purpose; as rows of train they do not count.

    Returns:
        split -> other split -> `same`, the rows whose texts are equal, and `alike`, those that are but for case and
        blanks (the same ones among them).
    """
    pairs = {"clean": ("train",), "selection": ("train", "clean"), "test": ("train", "clean", "selection")}
    own = {name: [i not in leaked or name != "train" for i in made[name]["id"].to_pylist()] for name in NAMES}
    found: dict[str, dict[str, dict[str, int]]] = {name: {other: {} for other in pairs[name]} for name in pairs}
    for kind, read in (("same", read_texts), ("alike", _alike)):
        rows = {name: read(made[name], texts) for name in NAMES}
        known = {name: {row for row, counts in zip(rows[name], own[name], strict=True) if counts} for name in NAMES}
        for name, others in pairs.items():
            for other in others:
                found[name][other][kind] = sum(row in known[other] for row in rows[name])
    return found


def check_not_all_known(splits: Splits, made: dict[str, Any], found: dict[str, Any], where: str) -> None:
    """Raises InputError when train has the texts of all examples of selection or test and `duplicates` is not given."""
    for name in ("test", "selection"):
        if splits.duplicates is None and found[name]["train"]["alike"] == made[name].num_rows:
            raise InputError(
                f"{where}.{name}: train has the texts of all its {made[name].num_rows} examples\n"
                f"expected examples that are not trained on; {splits.train.from_} and {getattr(splits, name).from_} "
                f"may be one file\n`duplicates: keep` under {where} takes them all the same"
            )
