"""Put the predictions of several models together, and say what each of them, the ensemble and the oracle reach.

Members are FOLDER/ENCODER/SEED/predictions.parquet of the folders and encoders named, aligned by example id. Members
without predictions, and members that are missing (a seed that was asked for, or that another of the encoders has), are
left out and named. --metrics holds
    members, mean, oracle   scores; the oracle is right wherever any member is
    rules                   scores of other rules: `scaled`, the mean after a temperature for each member, fitted on its
                            own selection split; `weighted` and `greedy` (Caruana et al. 2004), fitted on the selection
                            examples that all members have, because what one selects by another may have trained on
    adds                    the mean with each member less the mean without it, with its interval
    against                 the mean less the member with the best score on its own selection split, likewise
    disagreement, pairs     of members; of encoders: on how many examples each is right where the other is wrong
--out holds the predictions by --rule, those of the selection examples that all members have, and pairs.parquet: which
of two encoders is right, by example id.

examples:
  python -m components.ensemble --encoders uncased cased --members runs/evaluate/clean/erm \\
      --out runs/ensemble/clean-erm-uncased+cased --metrics runs/metrics/ensemble/clean-erm-uncased+cased.json
  python -m components.ensemble --encoders uncased cased --rule greedy \\
      --members runs/evaluate/split-1/erm runs/evaluate/split-2/erm --out OUT --metrics OUT.json
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.combining import RULES, Ensemble
from gradworks.data import predictions
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


class _Members:
    """The members with predictions, on the test and on the selection split, and what is left out."""

    def __init__(self, args: argparse.Namespace, task: Kind) -> None:
        self.left_out: dict[str, str] = {}
        self.tables: list[tuple[pa.Table, pa.Table | None]] = []  # of members
        self.names: list[str] = []
        self.columns = ["id", "label", *task.also, *task.columns]
        self.base = Path(os.path.commonpath(args.members))
        self.task, self.empty = task, None  # the latter: a table without rows
        found: list[Path] = []
        for root in args.members:
            there, missing = _folders(root, args.encoders, args.seeds)
            found += there
            self.left_out |= {self.name(root / one): "missing" for one in missing}
        for folder in found:
            self._read(folder)

    def name(self, folder: Path) -> str:
        return folder.relative_to(self.base).as_posix()

    def _read(self, folder: Path) -> None:
        manifest, name = artifacts.check(folder), self.name(folder)
        other = manifest["parameters"].get("task", self.task.name)
        if other != self.task.name:
            raise InputError(f"{folder}: predictions of the task {other}\nexpected those of {self.task.name}, as of "
                             "all members of an ensemble")  # fmt: skip
        table = artifacts.read_parquet(folder / predictions.TEST, self.columns)
        if not len(table):
            self.empty = table
            state = manifest["state"]
            self.left_out[name] = f"no predictions of {self.task.name}" if state == "ok" else state
            return
        held = folder / predictions.SELECTION
        self.tables.append((table, artifacts.read_parquet(held, self.columns) if held.exists() else None))
        self.names.append(name)

    def on(self, split: int) -> list[Any]:
        """Members on the test split, 0, or each on its own selection split, 1; None where it has none."""
        from gradworks.ensembles import Member

        pairs = ((n, both[split]) for n, both in zip(self.names, self.tables, strict=True))
        return [None if t is None else Member(n, tuple(t["id"].to_pylist()), self.task.truths(t), self.task.read(t))
                for n, t in pairs]  # fmt: skip


def _write(folder: Path, members: _Members, made: Ensemble, rule: str, by: list[str]) -> int:
    """The files of --out; returns the number of test rows."""
    import pyarrow as pa

    (test, held), (answers, on_held) = members.tables[0], made.outputs[rule]
    table = predictions.to_table(test, answers, members.task, by)
    artifacts.write_parquet(folder / predictions.TEST, table)
    if all(one is not None for _, one in members.tables):
        place = {key: i for i, key in enumerate(held["id"].to_pylist())}
        like = held.take([place[key] for key in made.held[0].ids]) if made.held else held
        artifacts.write_parquet(folder / predictions.SELECTION, predictions.to_table(like, on_held, members.task, []))
    columns: dict[str, list[str]] = {name: [] for name in ("first", "second", "id", "bucket")}
    for about, found in made.pairs():
        for name in ("first", "second"):
            columns[name] += [about[name]] * len(found)
        columns["id"] += made.members[0].ids
        columns["bucket"] += found
    if columns["id"]:
        artifacts.write_parquet(folder / "pairs.parquet", pa.table(columns))
    return len(table)


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
            shown = str(one) if isinstance(one, Path) else repr(one)
            raise InputError(f"{option}: found {shown} twice\nexpected: each once, or it would count twice in the mean")


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", required=True, help="sub-folders of --members to take")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds to take (default: all that are there)")
    parser.add_argument(
        "--members", nargs="+", type=Path, required=True, help="folders ENCODER/SEED/predictions.parquet"
    )
    parser.add_argument("--rule", choices=RULES, default="mean", help="of the predictions in --out (default: mean)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the ensemble's predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("ensemble", args)
    settings = base.optional(args.params, "evaluate", predictions.Evaluate)
    task = tasks.of(args.params)
    _once("--encoders", args.encoders)
    _once("--seeds", args.seeds or [])
    _once("--members", args.members)
    members = _Members(args, task)
    found: dict[str, Any] = {"members": {}, "left_out": members.left_out}
    ensemble = None
    if members.names:
        file = str(members.base / members.names[0] / predictions.TEST)
        by = predictions.slices(members.tables[0][0], settings.by, file)
        ensemble = Ensemble(members.on(0), members.on(1), task, by)
        if args.rule not in ensemble.outputs:
            why = ensemble.rules.get(args.rule, {}).get("note", f"not for {task.name}, or for fewer than two members")
            raise InputError(f"{args.params}: ensemble: rule {args.rule}: {why}\nexpected for `mean`: nothing")
        found |= ensemble.said()
    found["state"] = "ok" if members.names else "not run"
    named = ", ".join(f"{name} ({state})" for name, state in members.left_out.items())
    found["reason"] = "" if members.names else f"no member has predictions: {named}"
    for name, state in members.left_out.items():
        print(f"{members.base / name}: left out, {state}", flush=True)
    with artifacts.atomic_folder(args.out) as folder:
        if ensemble:
            rows = _write(folder, members, ensemble, args.rule, settings.by)
        else:
            rows = 0
            artifacts.write_parquet(folder / predictions.TEST, members.empty)
        parameters = {"task": task.name, "encoders": args.encoders, "by": settings.by}
        parameters |= {"rule": args.rule} if args.rule != "mean" else {}
        artifacts.write_manifest(
            folder, "ensemble", parameters, rows=rows, members=members.names, left_out=members.left_out
        )
    artifacts.write_json(args.metrics, found)


if __name__ == "__main__":
    base.run(main)
