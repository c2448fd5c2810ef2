"""Make the train, clean, selection and test splits of one condition and seed.

`corrupt.splits` says where each comes from, `corrupt.conditions.NAME` what is done to the training split: imbalance,
label noise, leaked test examples. corruptions.parquet lists every change (id, kind, old_label, new_label), to undo and
score it. The draws depend on seed and example id only: all conditions of a seed draw the same rows.

examples:
  python -m components.corrupt --condition noise --seed 0 --data runs/fetch --out runs/corrupt/noise/0
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import stage
from gradworks.data import corruptions, splits
from gradworks.stage import artefacts
from gradworks.stage.errors import InputError
from gradworks.tasks import Row, row
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa


def _tables(asked: splits.Splits, data: Path, task: Row, where: str) -> dict[str, pa.Table]:
    """The source splits that are asked for, checked against their manifests."""
    found: dict[str, pa.Table] = {}
    for name in splits.NAMES:
        path = getattr(asked, name).from_
        source, split = path.split("/")
        if path in found:
            continue
        file = data / source / f"{split}.parquet"
        if not (data / source).is_dir():
            there = sorted(p.name for p in data.iterdir() if p.is_dir()) if data.is_dir() else []
            raise InputError(
                f"{where}.{name}.from: no source {source!r} in {data}\nfound: {', '.join(there) or 'none'}"
            )
        manifest = artefacts.check(data / source)
        if file.name not in manifest["files"]:
            raise InputError(f"{where}.{name}.from: found {path!r}\n{source} has: {', '.join(manifest['splits'])}")
        table = found[path] = artefacts.read_parquet(file, ["id", *task.texts, "label"])
        known = (*(task.classes or ()), *task.collapse)
        for key, label in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True):
            if task.classes and label not in known:
                raise InputError(f"{file}: row {key}: found label {label!r}\nexpected one of: {', '.join(known)}")
    return found


def _described(made: dict[str, pa.Table], changes: list[corruptions.Change], task: Row) -> dict[str, Any]:
    """What was really done, for the manifest."""
    rows: dict[str, Any] = {}
    for name, table in made.items():
        labels = dict(Counter(table["label"].to_pylist())) if task.classes else {}
        rows[name] = {"rows": table.num_rows, "labels": labels}
    done: dict[str, Any] = {}
    for kind in dict.fromkeys(change[1] for change in changes):
        own = [change for change in changes if change[1] == kind]
        done[kind] = {"rows": len(own), "changed": sum(old != new for _, _, old, new in own)}
        if kind == "noise":
            of = made["train"].num_rows - sum(change[1] == "leak" for change in changes)  # leaked rows come after it
            done[kind] |= {"share": len(own) / of, "changed_share": done[kind]["changed"] / of}
    return {"splits": rows, "corruptions": done, "test_texts_in": splits.common_texts(made, task.texts)}


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("--condition", required=True, help="a key of `corrupt.conditions`")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="what `fetch` wrote: a folder of sources")
    parser.add_argument("--out", type=Path, required=True, help="folder of the four splits")
    args = parser.parse_args()
    live.begin("corrupt", args)
    task = row(stage.value(args.params, "task"))
    asked = stage.section(args.params, "corrupt.splits", splits.Splits)
    key = f"corrupt.conditions.{args.condition}"
    condition = stage.section(args.params, key, corruptions.Condition)
    where = f"{args.params}: corrupt.splits"
    made = splits.draw(asked, _tables(asked, args.data, task, where), args.seed, where)
    made, changes = corruptions.corrupt(made, task, condition, args.seed, f"{args.params}: {key}")
    splits.check_disjoint(made, {i for i, kind, *_ in changes if kind == "leak"})
    with artefacts.atomic_folder(args.out) as folder:
        for name, table in made.items():
            artefacts.write_parquet(folder / f"{name}.parquet", table)
        artefacts.write_parquet(folder / "corruptions.parquet", corruptions.changes_table(changes, task))
        parameters = {
            "task": task.name,
            "condition": condition.model_dump(exclude_none=True),
            "splits": asked.model_dump(by_alias=True, exclude_none=True),
        }
        artefacts.write_manifest(folder, "corrupt", parameters, seed=args.seed, **_described(made, changes, task))


if __name__ == "__main__":
    stage.run(main)
