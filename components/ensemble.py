"""Average the predicted probabilities of several models, and say what each of them, the mean and the oracle reach.

Members are --members/ENCODER/SEED/predictions.parquet of the encoders named, aligned by example id. The oracle is right
wherever any member is: how much a perfect choice among them could gain. Members without predictions are left out and
named.

examples:
  python -m components.ensemble --encoders uncased cased --members runs/evaluate/clean/erm \\
      --out runs/ensemble/clean-erm-uncased+cased --metrics runs/metrics/ensemble/clean-erm-uncased+cased.json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import stage
from gradworks.data import predictions
from gradworks.stage import artefacts
from gradworks.stage.errors import InputError
from gradworks.tasks import Row, row
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa


def _folders(root: Path, encoders: list[str], seeds: list[int] | None) -> list[Path]:
    found = []
    for encoder in encoders:
        if not (root / encoder).is_dir():
            there = sorted(p.name for p in root.glob("*") if p.is_dir())
            raise InputError(f"{root / encoder}: no such folder\nfound: {', '.join(there) or 'none'}")
        names = sorted((p.name for p in (root / encoder).iterdir() if p.is_dir()), key=lambda n: (len(n), n))
        found += [root / encoder / name for name in names if seeds is None or name in map(str, seeds)]
    if not found:
        raise InputError(f"{root}: no member of {', '.join(encoders)} with such a seed")
    return found


def _member(folder: Path, root: Path, task: Row, table: pa.Table) -> Any:
    from gradworks.ensembles import Member

    labels = table["label"].to_numpy(zero_copy_only=False)
    name = folder.relative_to(root).as_posix()
    return Member(name, tuple(table["id"].to_pylist()), labels, predictions.outputs(table, task))


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", required=True, help="sub-folders of --members to take")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds to take (default: all that are there)")
    parser.add_argument("--members", type=Path, required=True, help="folder ENCODER/SEED/predictions.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for the averaged predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("ensemble", args)
    settings = stage.optional(args.params, "evaluate", predictions.Evaluate)
    task = row(stage.value(args.params, "task"))
    needed = ["id", "label", *([f"p_{name}" for name in task.classes] if task.classes else ["value"])]
    members, left_out, first = [], {}, None
    for folder in _folders(args.members, args.encoders, args.seeds):
        manifest = artefacts.check(folder)
        table = artefacts.read_parquet(folder / "predictions.parquet", needed)
        if not len(table):
            left_out[folder.relative_to(args.members).as_posix()] = manifest["state"]
            continue
        first = table if first is None else first
        members.append(_member(folder, args.members, task, table))
    found: dict[str, Any] = {"members": {}, "left_out": left_out}
    outputs = None
    if members:
        from gradworks import ensembles
        from gradworks.metrics import scores

        by = predictions.slices(first, settings.by, str(args.members / members[0].name / "predictions.parquet"))
        members = ensembles.align(members)
        outputs = ensembles.mean(members)

        def scored(given: Any) -> dict[str, Any]:
            return scores(task.reported, members[0].labels, given, task.classes, by)

        found["members"] = {member.name: scored(member.outputs) for member in members}
        found["mean"] = scored(outputs)
        found["oracle"] = scored(ensembles.oracle(members, task.classes))
        found["disagreement"] = ensembles.disagreement(members, task.classes)
    found["state"] = "ok" if members else "not run"
    found["reason"] = "" if members else "no member has predictions"
    for name, state in left_out.items():
        print(f"{args.members / name}: left out, {state}", flush=True)
    with artefacts.atomic_folder(args.out) as folder:
        made = predictions.to_table(first, outputs, task, settings.by) if members else table
        artefacts.write_parquet(folder / "predictions.parquet", made)
        parameters = {"task": task.name, "encoders": args.encoders, "by": settings.by}
        names = [member.name for member in members]
        artefacts.write_manifest(folder, "ensemble", parameters, rows=len(made), members=names)
    artefacts.write_json(args.metrics, found)


if __name__ == "__main__":
    stage.run(main)
