"""Make the train, clean, selection and test splits of one condition and seed.

`corrupt.splits` says where each comes from, `corrupt.conditions.NAME` what is done to the training split: imbalance,
label noise, leaked test examples. Examples whose texts another split has, too, are counted, and left out with
`corrupt.splits.duplicates: drop`. corruptions.parquet lists every change (id, kind, old_label, new_label), to undo and
score it. The draws depend on seed and example id only: all conditions of a seed draw the
same rows.

Further tasks, for mixtures: `corrupt.parts.TASK` says where the splits of each come from; they are written, as they
are, to parts/TASK of the folder. What one task has in selection or test is left out of what another trains on, and
counted, unless `corrupt.between_tasks` is `keep`.

Clean and selection are drawn by `split_seed` of the condition or of the splits, else by --seed.

examples:
  python -m components.corrupt --condition noise --seed 0 --data runs/fetch --out runs/corrupt/noise/0
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import between, corruptions, splits
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


def _tables(
    asked: splits.Splits, fetched: Path, labels: Path | None, task: Kind, where: str
) -> tuple[dict[str, pa.Table], dict[str, dict[str, Any]]]:
    """The source splits that are asked for, checked against their manifests; and what their labels were read from."""
    found: dict[str, pa.Table] = {}
    values: dict[str, dict[str, Any]] = {}
    for name in splits.NAMES:
        path = getattr(asked, name).from_
        source, split = path.split("/")
        data = labels if labels and (labels / source).is_dir() else fetched
        if data == labels and name != "train":
            raise InputError(
                f"{where}.{name}.from: found {path!r}, labels of labelling functions\nexpected labels that are known: "
                "weak ones are to train on"
            )
        if path in found:
            continue
        file = data / source / f"{split}.parquet"
        if not (data / source).is_dir():
            there = sorted(p.name for p in data.iterdir() if p.is_dir()) if data.is_dir() else []
            raise InputError(
                f"{where}.{name}.from: no source {source!r} in {data}\nfound: {', '.join(there) or 'none'}"
            )
        manifest = artifacts.check(data / source)
        if file.name not in manifest["files"]:
            why = manifest.get("left_out", {}).get(split)
            raise InputError(
                f"{where}.{name}.from: found {path!r}\n{source} has: {', '.join(manifest['splits'])}"
                + (f"\n{split} was left out: {why}" if why else "")
            )
        read_as = manifest["splits"].get(split, {}).get("label_values")
        if read_as:
            values[path] = read_as
        found[path] = artifacts.read_parquet(file, ["id", *task.spec.texts, "label", *task.also])
    return found, values


def _check_labels(asked: splits.Splits, made: dict[str, pa.Table], data: Path, task: Kind) -> None:
    """Raises InputError where a row that was drawn has a label of another task; `where` may leave these out."""
    for name, table in made.items():
        for key, label in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True):
            if not task.accepts(label):
                source, split = getattr(asked, name).from_.split("/")
                file = data / source / f"{split}.parquet"
                raise InputError(f"{file}: row {key}: found label {label!r}\nexpected {task.expected()}")


def _described(made: dict[str, pa.Table], changes: list[corruptions.Change], task: Kind) -> dict[str, Any]:
    """What was really done, for the manifest."""
    rows: dict[str, Any] = {}
    for name, table in made.items():
        rows[name] = {"rows": table.num_rows, "labels": task.count(table["label"].to_pylist())}
    done: dict[str, Any] = {}
    for kind in dict.fromkeys(change[1] for change in changes):
        own = [change for change in changes if change[1] == kind]
        done[kind] = {"rows": len(own), "changed": sum(old != new for _, _, old, new in own)}
        if kind == "noise":
            of = made["train"].num_rows - sum(change[1] == "leak" for change in changes)  # leaked rows come after it
            done[kind] |= {"share": len(own) / of, "changed_share": done[kind]["changed"] / of}
    return {"splits": rows, "corruptions": done}


def _say(found: dict[str, dict[str, dict[str, int]]], made: dict[str, pa.Table]) -> None:
    for name, others in found.items():
        for other, count in others.items():
            if count["alike"]:
                print(f"{name}: {count['alike']} of {made[name].num_rows} examples have the texts of one of {other}, "
                      f"{count['same']} of them letter by letter", file=sys.stderr)  # fmt: skip


def _drawn(
    task: Kind, asked: splits.Splits, condition: corruptions.Condition, args: Any, where: str
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The splits of a task, and what the manifest says of them."""
    if asked.selection.from_ == asked.test.from_ != asked.train.from_:
        print(f"{where}: selection and test are parts of {asked.test.from_}; where that is an official dev set, select "
              "on a part of the training set", file=sys.stderr)  # fmt: skip
    tables, values = _tables(asked, args.data, args.labels, task, where)
    given = [one for one in (condition.split_seed, asked.split_seed) if one is not None]
    made, dropped = splits.draw(asked, tables, [*given, args.seed][0], where, task.spec.texts, task.together)
    _check_labels(asked, made, args.data, task)
    more: dict[str, Any] = {"duplicates_dropped": dropped} if dropped else {}
    return made, more | ({"label_values": values} if values else {})


def _compared(
    task: Kind, asked: splits.Splits, made: dict[str, pa.Table], leaked: set[str], where: str
) -> dict[str, Any]:
    """The splits are disjoint; how many examples of one have the texts of another's."""
    splits.check_disjoint(made, leaked)
    found = splits.duplicates(made, task.spec.texts, leaked)
    splits.check_not_all_known(asked, made, found, where)
    _say(found, made)
    return {"duplicates": found}


class _Part:
    """One task: what was asked for, its splits, and what the manifest says of them."""

    def __init__(self, task: Kind, section: str, condition: corruptions.Condition, args: Any) -> None:
        self.task, self.where = task, f"{args.params}: {section}"
        self.asked = base.section(args.params, section, splits.Splits)
        self.made, self.more = _drawn(task, self.asked, condition, args, self.where)


def _parts(args: Any, main: Kind, condition: corruptions.Condition) -> dict[str, _Part]:
    """The main task and the further ones by name, the former first; none has in train what another is tested on."""
    given = base.read_yaml(args.params)["corrupt"]
    found = {main.name: _Part(main, "corrupt.splits", condition, args)}
    for name in given.get("parts") or {}:
        section = f"corrupt.parts.{name}"
        if name == main.name:
            raise InputError(f"{args.params}: {section}: its splits are those of corrupt.splits\n"
                             f"expected other tasks than {main.name}")  # fmt: skip
        found[name] = _Part(tasks.of(args.params, name), section, condition, args)
    if len(found) > 1 and given.get("between_tasks", "drop") == "drop":
        drawn, kinds = ({name: getattr(one, what) for name, one in found.items()} for what in ("made", "task"))
        kept, shared = between.without_shared(drawn, kinds, str(args.params))
        for name, one in found.items():
            one.made = kept[name]
            one.more |= {"of_other_tasks": shared[name]} if name in shared else {}
        print(*between.said(shared), sep="\n", end="\n" * bool(shared), file=sys.stderr)
    return found


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--condition", required=True, help="a key of `corrupt.conditions`")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="what `fetch` wrote: a folder of sources")
    parser.add_argument("--labels", type=Path, help="what `label` wrote: a folder of sources")
    parser.add_argument("--out", type=Path, required=True, help="folder of the four splits")
    args = parser.parse_args()
    if args.seed < 0:
        raise InputError(f"--seed: found {args.seed}\nexpected 0 or more")
    live.begin("corrupt", args)
    key = f"corrupt.conditions.{args.condition}"
    condition = base.section(args.params, key, corruptions.Condition)
    main, *others = _parts(args, tasks.of(args.params), condition).values()
    task = main.task
    if condition.noise and "distribution" in main.made["train"].column_names:
        raise InputError(
            f"{args.params}: {key}.noise: the training labels are probabilities, of {main.asked.train.from_}\n"
            "expected noise on labels that are known: labelling functions make errors of their own"
        )
    main.made, changes = corruptions.corrupt(main.made, task, condition, args.seed, f"{args.params}: {key}")
    for one in (main, *others):
        leaked = {i for i, kind, *_ in changes if kind == "leak"} if one is main else set()
        one.more |= _compared(one.task, one.asked, one.made, leaked, one.where)
        one.made = {name: one.task.arrange(name, table, args.seed, one.where) for name, table in one.made.items()}
    with artifacts.atomic_folder(args.out) as folder:
        for name, table in main.made.items():
            artifacts.write_parquet(folder / f"{name}.parquet", table)
        artifacts.write_parquet(folder / "corruptions.parquet", corruptions.changes_table(changes, task))
        parameters = {
            "task": task.name,
            "condition": condition.model_dump(exclude_none=True),
            "splits": main.asked.model_dump(by_alias=True, exclude_none=True),
        }
        more = main.more
        for one in others:
            name = one.task.name
            for split, table in one.made.items():
                artifacts.write_parquet(folder / "parts" / name / f"{split}.parquet", table)
            parameters.setdefault("parts", {})[name] = one.asked.model_dump(by_alias=True, exclude_none=True)
            described = {"splits": _described(one.made, [], one.task)["splits"], **one.more}
            more.setdefault("parts", {})[name] = described
        described = _described(main.made, changes, task)
        artifacts.write_manifest(folder, "corrupt", parameters, seed=args.seed, **described, **more)


if __name__ == "__main__":
    base.run(main)
