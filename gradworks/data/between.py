"""No leak between tasks: what one task is evaluated on, no other task trains on.

Published sets overlap: GLUE's and SuperGLUE's RTE are one set, and of the 277 rows of its dev file six differ between
the two downloads in quotation marks. So rows are compared by the letters and digits of their texts alone, and by all of
a row's texts in any order. A single sentence of a pair is not enough: the label is the pair's, and premises and
passages are shared by rows with different labels on purpose.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.data.splits import NAMES, read_texts

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind

# split -> what another task must not have in common with it
AGAINST = {"train": ("selection", "test"), "clean": ("selection", "test"), "selection": ("test",)}

Row = tuple[str | bytes, ...]


def letters(text: str | bytes) -> str | bytes:
    """A text without case, blanks and punctuation, compatibility forms as one; as it is where nothing is left."""
    if isinstance(text, bytes):
        return text
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text)).casefold() or "".join(text.split())


def rows(table: pa.Table, texts: tuple[str, ...]) -> list[Row]:
    """What each row is known by: its texts in any order, so that a pair is the same when swapped."""
    return [tuple(sorted(map(letters, row))) for row in read_texts(table, texts)]


def without_shared(
    drawn: Mapping[str, Mapping[str, pa.Table]], kinds: Mapping[str, Kind], where: str
) -> tuple[dict[str, dict[str, pa.Table]], dict[str, dict[str, Any]]]:
    """The splits of every task without the rows that another task is evaluated on.

    Train and clean lose what another task has in selection or test, selection what another has in test; test loses
    nothing. All are compared as they were drawn, so the order of tasks does not matter. Of rows that are drawn together
    (the answers to one question) all go.

    Args:
        drawn: task -> its four splits.
        kinds: of these tasks.
        where: params file, for messages.

    Returns:
        The splits, and for each task and split with such rows `dropped`, their number, and `of`: other task -> its
        split -> rows that both have, where one row may count several times.

    Raises:
        InputError: nothing is left of a split.
    """
    known = {name: {s: rows(made[s], kinds[name].spec.texts) for s in NAMES} for name, made in drawn.items()}
    kept: dict[str, dict[str, pa.Table]] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, made in drawn.items():
        kept[name] = dict(made)
        for split, others in AGAINST.items():
            of: dict[str, dict[str, int]] = {}
            shared: set[int] = set()
            for other, against in ((o, a) for o in sorted(set(drawn) - {name}) for a in others):
                there = set(known[other][against])
                hit = {i for i, row in enumerate(known[name][split]) if row in there}
                if hit:
                    of.setdefault(other, {})[against] = len(hit)
                shared |= hit
            if shared:
                units = made[split][kinds[name].together or "id"].to_pylist()
                gone = {units[i] for i in shared}
                left = [i for i, unit in enumerate(units) if unit not in gone]
                if not left:
                    raise InputError(
                        f"{where}: {name}: all {len(units)} rows of its split {split} are evaluated on by "
                        f"{' and '.join(of)}\nexpected other rows to train on and to select by than to evaluate on\n"
                        "`between_tasks: keep` under corrupt takes them all the same"
                    )
                kept[name][split] = made[split].take(left)
                found.setdefault(name, {})[split] = {"dropped": len(units) - len(left), "of": of}
    return kept, found


def said(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`rte: 12 rows of train left out: 10 in test of sst, ...`, a line each."""
    lines = []
    for name, splits in found.items():
        for split, one in splits.items():
            of = ", ".join(f"{n} in {s} of {other}" for other, counts in one["of"].items() for s, n in counts.items())
            rows_of = f"{one['dropped']} row{'s' * (one['dropped'] != 1)} of {split}"
            lines.append(f"{name}: {rows_of} left out, on which another task is evaluated: {of}")
    return lines
