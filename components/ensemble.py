"""Average the predicted probabilities of several models, and say what each of them, the mean and the oracle reach.

Members are --members/ENCODER/SEED/predictions.parquet of the encoders named, aligned by example id. The oracle is right
wherever any member is: how much a perfect choice among them could gain. Members without predictions, and members that
are missing (a seed that was asked for, or that another of the encoders has), are left out and named.

examples:
  python -m components.ensemble --encoders uncased cased --members runs/evaluate/clean/erm \\
      --out runs/ensemble/clean-erm-uncased+cased --metrics runs/metrics/ensemble/clean-erm-uncased+cased.json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import predictions
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


def _folders(root: Path, encoders: list[str], seeds: list[int] | None) -> tuple[list[Path], list[str]]:
    """Folders of the members that are there, and the names of those that are not."""
    there: dict[str, list[str]] = {}
    for encoder in encoders:
        if not (root / encoder).is_dir():
            found = sorted(p.name for p in root.glob("*") if p.is_dir())
            raise InputError(f"{root / encoder}: no such folder\nfound: {', '.join(found) or 'none'}")
        there[encoder] = [p.name for p in (root / encoder).iterdir() if p.is_dir() and any(p.iterdir())]
    wanted = [str(s) for s in seeds or ()] or {name for names in there.values() for name in names}
    members = [(encoder, name) for encoder in encoders for name in sorted(wanted, key=lambda n: (len(n), n))]
    found = [root / encoder / name for encoder, name in members if name in there[encoder]]
    if not found:
        raise InputError(f"{root}: no member of {', '.join(encoders)} with such a seed")
    return found, [f"{encoder}/{name}" for encoder, name in members if name not in there[encoder]]


def _once(option: str, given: list[Any]) -> None:
    for one in given:
        if given.count(one) > 1:
            raise InputError(f"{option}: found {one!r} twice\nexpected: each once, or it would count twice in the mean")


def _member(folder: Path, root: Path, task: Kind, table: pa.Table) -> Any:
    from gradworks.ensembles import Member

    name = folder.relative_to(root).as_posix()
    return Member(name, tuple(table["id"].to_pylist()), task.truths(table), task.read(table))


def _selection(members: list[Any], task: Kind, like: pa.Table) -> pa.Table:
    """The mean over members on the selection examples that all of them have: each seed draws its own, and what one
    member selects by another may have trained on. `like`: the first member's table.
    """
    from gradworks import ensembles

    place = {key: i for i, key in enumerate(like["id"].to_pylist())}
    members = ensembles.common(members)
    if not members[0].ids:
        return predictions.to_table(like, None, task, [])
    members = ensembles.align(members)
    table = like.take([place[key] for key in members[0].ids])
    return predictions.to_table(table, ensembles.mean(members, task), task, [])


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", required=True, help="sub-folders of --members to take")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds to take (default: all that are there)")
    parser.add_argument("--members", type=Path, required=True, help="folder ENCODER/SEED/predictions.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for the averaged predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("ensemble", args)
    settings = base.optional(args.params, "evaluate", predictions.Evaluate)
    task = tasks.of(args.params)
    needed = ["id", "label", *task.also, *task.columns]
    _once("--encoders", args.encoders)
    _once("--seeds", args.seeds or [])
    folders, missing = _folders(args.members, args.encoders, args.seeds)
    members, selections, first, kept = [], [], None, None
    left_out = dict.fromkeys(missing, "missing")
    for folder in folders:
        manifest = artifacts.check(folder)
        table = artifacts.read_parquet(folder / predictions.TEST, needed)
        if not len(table):
            left_out[folder.relative_to(args.members).as_posix()] = manifest["state"]
            continue
        first = table if first is None else first
        members.append(_member(folder, args.members, task, table))
        if (folder / predictions.SELECTION).exists():
            held = artifacts.read_parquet(folder / predictions.SELECTION, needed)
            kept = held if kept is None else kept
            selections.append(_member(folder, args.members, task, held))
    found: dict[str, Any] = {"members": {}, "left_out": left_out}
    outputs = None
    if members:
        from gradworks import ensembles
        from gradworks.metrics import scores

        by = predictions.slices(first, settings.by, str(args.members / members[0].name / predictions.TEST))
        members = ensembles.align(members)
        outputs = ensembles.mean(members, task)

        def scored(given: Any) -> dict[str, Any]:
            return scores(task.score, task.reported, members[0].labels, given, by)

        found["members"] = {member.name: scored(member.outputs) for member in members}
        found["mean"] = scored(outputs)
        found["oracle"] = scored(ensembles.oracle(members, task))
        found["disagreement"] = ensembles.disagreement(members, task)
    found["state"] = "ok" if members else "not run"
    named = ", ".join(f"{name} ({state})" for name, state in left_out.items())
    found["reason"] = "" if members else f"no member has predictions: {named}"
    for name, state in left_out.items():
        print(f"{args.members / name}: left out, {state}", flush=True)
    with artifacts.atomic_folder(args.out) as folder:
        made = predictions.to_table(first, outputs, task, settings.by) if members else table
        artifacts.write_parquet(folder / predictions.TEST, made)
        if members and len(selections) == len(members):
            artifacts.write_parquet(folder / predictions.SELECTION, _selection(selections, task, kept))
        parameters = {"task": task.name, "encoders": args.encoders, "by": settings.by}
        names = [member.name for member in members]
        artifacts.write_manifest(folder, "ensemble", parameters, rows=len(made), members=names, left_out=left_out)
    artifacts.write_json(args.metrics, found)


if __name__ == "__main__":
    base.run(main)
