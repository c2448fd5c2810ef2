"""Average the weights of several models into one, and say what it reaches beside its members and their mean answer.

Members are FOLDER/ENCODER/SEED of --models, trained on DATA/SEED of --data. `uniform` takes all, `greedy` each in turn
that makes the soup no worse (Wortsman et al. 2022, algorithm 1), judged on the selection examples that all members have
and none trained on. Members of different architectures or vocabularies are refused: `ensemble` takes the mean of their
answers. Those without a model are left out and named.

--metrics and --out are as of the stage `ensemble`, with the soup under `rules`, and its answers as the predictions.

examples:
  python -m components.soup --encoders uncased --seeds 0 1 2 --models runs/models/clean/erm --data runs/corrupt/clean \\
      --rule greedy --out OUT --metrics OUT.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.combining import Ensemble
from gradworks.data import predictions
from gradworks.metrics import SMALL
from gradworks.telemetry import live

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from gradworks.ensembles import Member
    from gradworks.tasks.kinds import Kind

_WEIGHTS = "model.safetensors"


class _Pot:
    """The members' weights, and a model that takes those of any soup of them."""

    def __init__(self, args: argparse.Namespace, folders: list[Path], task: Kind, batch: int) -> None:
        from gradworks import models, soups
        from gradworks.base.device import set_up

        soups.check_alike(folders)
        self._device = set_up(base.value(args.params, "threads"), base.value(args.params, "device"))
        self._task, self._batch = task, batch
        self._length = artifacts.read_json(folders[0] / artifacts.MANIFEST)["parameters"]["train"]["max_length"]
        self._model = models.load(folders[0])
        self._states = [models.load(folder).state_dict() for folder in folders]
        self._encoded: dict[str, Any] = {}

    def answers(self, members: list[int], name: str, table: pa.Table) -> np.ndarray:
        """(n, ...) of the soup of some members for a table; one forward pass per example."""
        from gradworks import predict, soups
        from gradworks.data.tables import to_examples

        self._model.cpu().load_state_dict(soups.average([self._states[i] for i in members]))
        if name not in self._encoded:
            self._encoded[name] = to_examples(table, self._task, self._model, self._length, name).to(self._device)
        return predict.answers(self._model.to(self._device), self._task, self._encoded[name], self._batch)


def _folders(args: argparse.Namespace) -> tuple[list[Path], dict[str, str]]:
    """Folders of the members with a model, and why others are left out."""
    found, left_out = [], {}
    for encoder in args.encoders:
        for seed in args.seeds:
            folder = args.models / encoder / str(seed)
            if (folder / _WEIGHTS).is_file():
                ran = artifacts.check(folder)["parameters"]
                if "slices" in ran:
                    raise InputError(f"{folder}: a model with heads of slices\nexpected members without")
                found.append(folder)
            else:
                left_out[f"{encoder}/{seed}"] = "no model" if folder.is_dir() else "missing"
    return found, left_out


def _read(data: Path, split: str, task: Kind) -> pa.Table:
    return artifacts.read_parquet(data / f"{split}.parquet", ["id", *task.spec.texts, "label", *task.also])


def _held(args: argparse.Namespace, folders: list[Path], task: Kind) -> tuple[list[pa.Table], pa.Table]:
    """The selection split of each member, and the examples that are in all of them."""
    tables = [_read(args.data / folder.name, "selection", task) for folder in folders]
    shared = set.intersection(*(set(table["id"].to_pylist()) for table in tables))
    first = tables[0]
    return tables, first.take([i for i, key in enumerate(first["id"].to_pylist()) if key in shared])


def _member(folder: Path, args: argparse.Namespace, task: Kind, table: pa.Table, outputs: np.ndarray) -> Member:
    from gradworks.ensembles import Member

    name = folder.relative_to(args.models).as_posix()
    return Member(name, tuple(table["id"].to_pylist()), task.truths(table), outputs)


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--encoders", nargs="+", required=True, help="sub-folders of --models to take")
    parser.add_argument("--seeds", nargs="+", type=int, required=True, help="seeds to take")
    parser.add_argument("--models", type=Path, required=True, help="folder ENCODER/SEED of models")
    parser.add_argument("--data", type=Path, required=True, help="folder SEED of what `corrupt` wrote")
    parser.add_argument("--rule", choices=("uniform", "greedy"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the soup's predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("soup", args)
    settings = base.optional(args.params, "evaluate", predictions.Evaluate)
    task = tasks.of(args.params)
    folders, left_out = _folders(args)
    if not folders:
        raise InputError(f"{args.models}: no model of {', '.join(args.encoders)} with such a seed")
    pot = _Pot(args, folders, task, settings.batch)
    file = args.data / folders[0].name / "test.parquet"
    test = _read(file.parent, "test", task)
    own, held = _held(args, folders, task)
    if args.rule == "greedy" and len(held) < SMALL:
        there = f"{len(held)} selection examples that all members have, and none trained on"
        raise InputError(
            f"{args.data}: {there}\nexpected at least {SMALL} for the greedy rule, as with one `split_seed`"
        )
    tests, selected = [], []
    for i, (folder, table) in enumerate(zip(folders, own, strict=True)):
        tests.append(_member(folder, args, task, test, pot.answers([i], "test", test)))
        selected.append(_member(folder, args, task, table, pot.answers([i], f"selection {folder}", table)))
    by = predictions.slices(test, settings.by, str(file))
    whole = Ensemble(tests, selected, task, by)
    kept = list(range(len(folders)))
    if args.rule == "greedy":
        from gradworks import soups

        labels = task.truths(held)
        scores = [whole.value(labels, pot.answers([i], "held", held)) for i in kept]
        ranked = sorted(kept, key=lambda i: ([-x for x in scores[i]], tests[i].name))
        kept = soups.greedy(ranked, lambda some: whole.value(labels, pot.answers(some, "held", held)))
    answers = pot.answers(kept, "test", test)
    found: dict[str, Any] = {"state": "ok", "reason": "", "left_out": left_out, **whole.said()}
    rule = f"{args.rule} soup"
    found["rules"][rule] = {"kept": [tests[i].name for i in kept], **whole.scored(answers)}
    if args.rule == "greedy":
        found["rules"][rule]["fitted"] = len(held)
    with artifacts.atomic_folder(args.out) as folder:
        artifacts.write_parquet(folder / predictions.TEST, predictions.to_table(test, answers, task, settings.by))
        on_held = pot.answers(kept, "held", held) if len(held) else None
        artifacts.write_parquet(folder / predictions.SELECTION, predictions.to_table(held, on_held, task, []))
        parameters = {"task": task.name, "encoders": args.encoders, "by": settings.by, "rule": rule}
        names = [member.name for member in tests]
        artifacts.write_manifest(folder, "soup", parameters, rows=len(test), members=names, left_out=left_out)
    artifacts.write_json(args.metrics, found)


if __name__ == "__main__":
    base.run(main)
