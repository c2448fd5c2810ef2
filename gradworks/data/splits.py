"""Which examples become train, clean, selection and test: drawn by id, disjoint where they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.data.draws import choose
from gradworks.stage import Section
from gradworks.stage.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("train", "clean", "selection", "test")
ORDER = ("test", "clean", "selection", "train")  # who draws first where two take from one split of a source


class Take(Section):
    """Where one split comes from.

    Attributes:
        from_: SOURCE/SPLIT.
        where: column and the value, or values, that it must have.
        size: how many examples; all when it is not given.
    """

    from_: str = Field(alias="from", pattern=r"^[^/]+/[^/]+$")
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    size: int | None = Field(default=None, ge=1)


class Splits(Section):
    """The section `splits`."""

    train: Take
    clean: Take
    selection: Take
    test: Take


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


def draw(splits: Splits, tables: dict[str, pa.Table], seed: int, where: str) -> dict[str, pa.Table]:
    """The four splits, in the source's order of rows.

    Test and train are the same for every seed; clean and selection are drawn by seed. Where several take from the same
    split of a source, each draws from what those before it (test, clean, selection, train) left.

    Args:
        splits: the section.
        tables: `SOURCE/SPLIT` and its table.
        seed: of the run.
        where: params file and section, for messages.

    Raises:
        InputError: a column or value is not there, a split is empty or smaller than its size, or ids are not disjoint.
    """
    made: dict[str, pa.Table] = {}
    taken: dict[str, set[str]] = {}
    for name in ORDER:
        take: Take = getattr(splits, name)
        table = tables[take.from_]
        ids = table["id"].to_pylist()
        before = taken.setdefault(take.from_, set())
        there = [i for i in _matching(table, take, f"{where}.{name}") if ids[i] not in before]
        if not there or len(there) < (take.size or 0):
            asked = f"{take.size} examples" if take.size else "any"
            raise InputError(
                f"{where}.{name}: {take.from_} has {len(there)} examples for it, expected {asked}"
                + ("\nothers take from the same split of the source: give them a `size`" if before else "")
            )
        if take.size:
            key = (seed, name) if name in ("clean", "selection") else (name,)
            chosen = choose((ids[i] for i in there), take.size, *key)
            there = [i for i in there if ids[i] in chosen]
        before.update(ids[i] for i in there)
        made[name] = table.take(there)
    check_disjoint(made, set())
    return {name: made[name] for name in NAMES}


def check_disjoint(made: dict[str, Any], leaked: set[str]) -> None:
    """Raises InputError when an id stands in two splits; `leaked` ids may stand in train and test."""
    ids = {name: made[name]["id"].to_pylist() for name in NAMES}
    for name, own in ids.items():
        if len(set(own)) < len(own):
            raise InputError(f"split {name}: an id stands twice")
    for i, first in enumerate(NAMES):
        for second in NAMES[i + 1 :]:
            both = set(ids[first]) & set(ids[second])
            if (first, second) == ("train", "test"):
                both -= leaked
            if both:
                raise InputError(f"splits {first} and {second} share {len(both)} ids, for example {min(both)}")


def common_texts(made: dict[str, Any], texts: tuple[str, ...]) -> dict[str, int]:
    """How many test examples have the texts of an example of another split (real data repeats itself)."""
    rows = {name: list(zip(*(made[name][t].to_pylist() for t in texts), strict=True)) for name in NAMES}
    others = {name: set(rows[name]) for name in NAMES if name != "test"}
    return {name: sum(row in other for row in rows["test"]) for name, other in others.items()}
