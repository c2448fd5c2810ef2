"""What is done to a training split on purpose, seeded and reversible (requirements of Ren et al. 2018, Chi et al.).

Every function returns the new table and a list of changes (id, kind, old label, new label); a label that is None in a
change means that the row was not there before, or is no longer there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.data.draws import choose, uniform

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind

Change = tuple[str, str, Any, Any]


class Noise(Section):
    """Label noise.

    Attributes:
        share: of the rows whose labels are redrawn.
        to: `any` draws from all classes, the true one included; `other` from the other classes only. For labels of any
            type: `swap` gives each row the label of another one of them, one that differs; `shuffle` puts the words of
            each label, a text, in another order.
    """

    share: float = Field(gt=0, le=1)
    to: Literal["any", "other", "swap", "shuffle"] = "any"

    @property
    def draws(self) -> bool:
        """From classes."""
        return self.to in ("any", "other")


class Imbalance(Section):
    """Class imbalance: how many rows of a class stay, or which share of them; other classes stay whole."""

    counts: dict[str, int] | None = None
    ratios: dict[str, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Imbalance:
        if (self.counts is None) == (self.ratios is None):
            raise ValueError("expected either counts or ratios")
        if any(v < 0 for v in (self.counts or {}).values()):
            raise ValueError("expected counts of 0 or more")
        if any(not 0 <= v <= 1 for v in (self.ratios or {}).values()):
            raise ValueError("expected ratios from 0 to 1, of the class's own rows")
        return self


class Leak(Section):
    """Test examples that are trained on as well."""

    count: int = Field(ge=1)


class Condition(Section):
    """A condition of params.yaml; an empty one leaves the data as it is. Done in this order: imbalance, noise, leak.

    split_seed: by which clean and selection of all tasks are drawn, in the place of each run's own seed.
    """

    imbalance: Imbalance | None = None
    noise: Noise | None = None
    leak: Leak | None = None
    split_seed: int | None = Field(default=None, ge=0)


def _labels(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


def _relabelled(table: pa.Table, new: dict[str, str]) -> pa.Table:
    import pyarrow as pa

    labels = pa.array([new.get(i, old) for i, old in _labels(table).items()], table.schema.field("label").type)
    return table.set_column(table.column_names.index("label"), "label", labels)


def collapse(table: pa.Table, kind: Kind) -> tuple[pa.Table, list[Change]]:
    """Fold a finer label set into the task's classes (`nli-binary`: neutral and contradiction are not_entailment)."""
    becomes = kind.spec.collapse
    if not becomes:
        return table, []
    changes = [(i, "collapse", old, becomes[old]) for i, old in _labels(table).items() if old in becomes]
    return _relabelled(table, {i: new for i, _, _, new in changes}), changes


def imbalance(table: pa.Table, kind: Kind, given: Imbalance, seed: int, where: str) -> tuple[pa.Table, list[Change]]:
    """Keep a drawn part of each class.

    Raises:
        InputError: an unknown class, more rows asked for than there are, or nothing would be left.
    """
    classes = kind.drawn_from(where)
    labels = _labels(table)
    have = Counter(labels.values())
    removed: set[str] = set()
    for label, amount in (given.counts or given.ratios or {}).items():
        if label not in classes:
            raise InputError(f"{where}: found class {label!r}\nexpected one of: {', '.join(classes)}")
        keep = amount if given.counts is not None else round(amount * have[label])
        if keep > have[label]:
            raise InputError(
                f"{where}.counts.{label}: found {keep}, expected at most {have[label]}, the rows there are"
            )
        own = [i for i, one in labels.items() if one == label]
        removed |= set(own) - choose(own, keep, seed, "imbalance")
    if len(removed) == table.num_rows:
        raise InputError(f"{where}: leaves no row")
    left = [n for n, i in enumerate(labels) if i not in removed]
    return table.take(left), [(i, "imbalance", old, None) for i, old in labels.items() if i in removed]


def noise(table: pa.Table, kind: Kind, given: Noise, seed: int, where: str) -> tuple[pa.Table, list[Change]]:
    """Redraw the labels of `share` of the rows, uniformly, or mix them up among these rows.

    Every chosen row is a change, also where the draw gave the old label back: with C classes and `to: any` a share p
    leaves 1-p+p/C of the labels right.

    Raises:
        InputError: the task has no classes to draw from, or the true class would no longer be the most frequent one
            (`to: other` with 1-p <= p/(C-1)), so that nothing right could be learned; more than half of the chosen rows
            have one label and cannot be swapped; no label has words to shuffle.
    """
    labels = _labels(table)
    chosen = sorted(choose(labels, round(given.share * len(labels)), seed, "noise"))
    if given.to == "swap":
        new = _swapped({i: labels[i] for i in chosen}, seed, where)
    elif given.to == "shuffle":
        new = _shuffled({i: labels[i] for i in chosen}, seed, where)
    else:
        new = _redrawn({i: labels[i] for i in chosen}, kind.drawn_from(where), given, seed, where)
    changes: list[Change] = [(i, "noise", labels[i], new[i]) for i in chosen]
    return _relabelled(table, new), changes


def _redrawn(labels: dict[str, str], classes: tuple[str, ...], given: Noise, seed: int, where: str) -> dict[str, str]:
    rest = len(classes) - 1
    if given.to == "other" and 1 - given.share <= given.share / rest:
        raise InputError(
            f"{where}: found share {given.share} with `to: other`\n"
            f"each wrong class gets {given.share / rest:.3g} of the rows, the true one keeps {1 - given.share:.3g}: "
            f"expected less than {rest / len(classes):.3g}, or `to: any`"
        )
    new = {}
    for i, label in labels.items():
        others = classes if given.to == "any" else tuple(c for c in classes if c != label)
        new[i] = others[int(uniform(seed, "noise label", i) * len(others))]
    return new


def _swapped(labels: dict[str, Any], seed: int, where: str) -> dict[str, Any]:
    """Rows of one label lie side by side in a random order, and each gets the label so far on that it differs."""
    counts = Counter(map(repr, labels.values()))
    most = max(counts.values(), default=0)
    if not 0 < 2 * most <= len(labels):
        raise InputError(
            f"{where}: found `to: swap`, and {most} of the {len(labels)} chosen rows have one label\n"
            "expected half of them at most, as each is to get another"
        )
    order = sorted(labels, key=lambda i: (uniform(seed, "noise swap", repr(labels[i])), uniform(seed, "noise swap", i)))
    return {i: labels[order[(n + most) % len(order)]] for n, i in enumerate(order)}


def _shuffled(labels: dict[str, Any], seed: int, where: str) -> dict[str, Any]:
    """A text of one word, or of one word repeated, stays as it is."""
    new = {}
    for i, label in labels.items():
        words = label.split() if isinstance(label, str) else []
        order = sorted(range(len(words)), key=lambda n: uniform(seed, "noise shuffle", i, n))
        made = [words[n] for n in order]
        first = next((n for n, word in enumerate(made) if word != words[0]), 0)
        if made == words:
            made[0], made[first] = made[first], made[0]
        new[i] = " ".join(made) if len(set(words)) > 1 else label
    if all(new[i] == label for i, label in labels.items()):
        raise InputError(f"{where}: found `to: shuffle`, and no label has two words\nexpected labels that are texts")
    return new


def leak(table: pa.Table, test: pa.Table, given: Leak, seed: int, where: str) -> tuple[pa.Table, list[Change]]:
    """Add drawn test examples, under their own ids and with their true labels, at the end of the training split.

    Raises:
        InputError: the test split has fewer.
    """
    import pyarrow as pa

    if given.count > test.num_rows:
        raise InputError(f"{where}.count: found {given.count}, expected at most {test.num_rows}, the test examples")
    chosen = choose(test["id"].to_pylist(), given.count, seed, "leak")
    added = test.take([n for n, i in enumerate(test["id"].to_pylist()) if i in chosen])
    changes: list[Change] = [(i, "leak", None, label) for i, label in _labels(added).items()]
    return pa.concat_tables([table, added], promote_options="default"), changes


def corrupt(
    made: dict[str, pa.Table], kind: Kind, condition: Condition, seed: int, where: str
) -> tuple[dict[str, pa.Table], list[Change]]:
    """The splits under a condition, and every change of the training split.

    Collapse (of all splits) comes first, so that noise is drawn from the task's classes; leaked examples come last, so
    that their labels are true.
    """
    made = dict(made)
    changes: list[Change] = []
    for name, table in made.items():
        made[name], folded = collapse(table, kind)
        if name == "train":
            changes += folded
    train = made["train"]
    if condition.imbalance is not None:
        train, done = imbalance(train, kind, condition.imbalance, seed, f"{where}.imbalance")
        changes += done
    if condition.noise is not None:
        train, done = noise(train, kind, condition.noise, seed, f"{where}.noise")
        changes += done
    if condition.leak is not None:
        train, done = leak(train, made["test"], condition.leak, seed, f"{where}.leak")
        changes += done
    return {**made, "train": train}, changes


def changes_table(changes: list[Change], kind: Kind) -> pa.Table:
    """corruptions.parquet: id, kind (collapse, imbalance, noise, leak), old_label, new_label."""
    import pyarrow as pa

    columns = list(zip(*changes, strict=True)) or [(), (), (), ()]
    return pa.table(
        {
            "id": pa.array(columns[0], pa.string()),
            "kind": pa.array(columns[1], pa.string()),
            "old_label": pa.array(columns[2], kind.label_type),
            "new_label": pa.array(columns[3], kind.label_type),
        }
    )


def restore(train: pa.Table, changes: pa.Table, source: pa.Table) -> pa.Table:
    """The training split as it was before the changes.

    Args:
        train: the corrupted split.
        changes: corruptions.parquet.
        source: the source's split, for the texts of removed rows and the order of rows.
    """
    done = list(zip(changes["id"].to_pylist(), changes["old_label"].to_pylist(), strict=True))
    # of several changes of a row the first knows its old label; a leaked row is no row of the source
    labels = _labels(train) | dict(reversed(done))
    there = [n for n, i in enumerate(source["id"].to_pylist()) if i in labels]
    return _relabelled(source.take(there), labels)
