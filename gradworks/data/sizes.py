"""What can be known of the four splits before any data is read: how many examples they have, and where they overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.base import artifacts, words
from gradworks.base.errors import InputError
from gradworks.data.corruptions import Condition
from gradworks.data.splits import NAMES, ORDER, Splits, Take

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_COLUMNS = {  # of a synthetic source
    "set": ("challenge", "in_distribution"),
    "heuristic": ("none", "lexical_overlap", "subsequence", "constituent"),
    "label": ("entailment", "neutral", "contradiction"),
    "rule": ("entailment", "neutral", "contradiction"),
}


@dataclass(frozen=True)
class Sizes:
    """Examples of each split where they are known; a split that `where` thins out has that many at most.

    Attributes:
        splits: the section.
        most: split -> examples.
    """

    splits: Splits
    most: dict[str, int]

    def at_most(self, name: str, batch: int, where: str) -> None:
        """Raises InputError when a batch of split `name` is larger than the split."""
        if name in self.most and batch > self.most[name]:
            raise InputError(
                f"{where}: found {batch}\nexpected at most {self.most[name]}, the examples of the split {name}"
            )

    def check_files(self, found: Mapping[str, Mapping[str, Path]], where: str) -> None:
        """Raises InputError when a split has no file in `found` (source -> split -> file), or test has train's."""
        read: dict[str, Path] = {}
        for name in NAMES:
            path = getattr(self.splits, name).from_
            source, split = path.split("/")
            if source in found:
                if split not in found[source]:
                    there = [f"{source}/{one}" for one in found[source]]
                    raise InputError(words.unknown(f"{where}.{name}.from", path, there))
                read[path] = found[source][split]
        if len({getattr(self.splits, name).from_ for name in ("train", "test")} & read.keys()) < 2:
            return
        test, train = read[self.splits.test.from_], read[self.splits.train.from_]
        files = test.is_file() and train.is_file() and test.stat().st_size == train.stat().st_size
        same = test == train or (files and artifacts.digest(test) == artifacts.digest(train))
        if same:
            raise InputError(
                f"{where}.test: {self.splits.test.from_} and {self.splits.train.from_} are the same file, {test.name}\n"
                "expected test examples that are not trained on; `size` draws some from one split"
            )


def drawn(asked: Splits, rows: Mapping[str, int], where: str, together: bool = False) -> Sizes:
    """The sizes of the splits that `asked` for.

    Args:
        asked: the section.
        rows: SOURCE/SPLIT -> its examples, where they are known.
        where: file and section.
        together: a size counts what is drawn together, so that the rows of a split are not known.

    Raises:
        InputError: a split takes more than there is, or leaves nothing for another.
    """
    left, before, most = dict(rows), {}, {}
    for name in ORDER:
        take: Take = getattr(asked, name)
        if take.from_ in before:
            raise InputError(
                f"{where}.{before[take.from_]}: it takes all of {take.from_}, and {name} takes from there too\n"
                "give it a `size` or `share`"
            )
        size = take.count(rows.get(take.from_, 0)) if not take.where else take.size
        if take.from_ in left:
            if (size or 1) > left[take.from_]:
                raise InputError(
                    f"{where}.{name}.{'size' if take.size else 'share'}: found {take.size or take.share}\n"
                    f"expected at most {left[take.from_]}, the examples that {take.from_} has for it"
                )
            most[name] = size or left[take.from_]
            left[take.from_] -= most[name] if size else 0
        elif take.size and not together:
            most[name] = take.size
        if not take.size and not take.share and not take.where:
            before[take.from_] = name
    return Sizes(asked, most)


def check_columns(take: Take, where: str) -> None:
    """Raises InputError when `take.where` names a column or value that no synthetic source has."""
    for column, wanted in take.where.items():
        check_column(column, [wanted] if isinstance(wanted, str) else wanted, where)


def check_column(column: str, wanted: Iterable[str], where: str) -> None:
    """Raises InputError when no synthetic source has the column, or not with one of the values `wanted`."""
    if column in ("premise", "hypothesis", "id"):
        return
    if column not in _COLUMNS:
        raise InputError(words.unknown(where, column, _COLUMNS))
    for value in wanted:
        if value not in _COLUMNS[column]:
            raise InputError(words.unknown(f"{where}.{column}", value, _COLUMNS[column]))


def check_condition(condition: Condition, task: Kind, drawn: Sizes, where: str) -> None:
    """Raises InputError when a condition names a class that the task has not, or leaks more than there is."""
    if condition.noise is not None and condition.noise.draws:
        task.drawn_from(f"{where}.noise")
    if condition.imbalance is not None:
        classes = task.drawn_from(f"{where}.imbalance")
        key = "counts" if condition.imbalance.counts is not None else "ratios"
        for label in getattr(condition.imbalance, key):
            if label not in classes:
                raise InputError(words.unknown(f"{where}.imbalance.{key}", label, classes))
    if condition.leak is not None:
        drawn.at_most("test", condition.leak.count, f"{where}.leak.count")
