"""Score one trained cell on the test split: overall, by column, and with and without leaked examples.

Of a cell that trained on several tasks the project's task is scored so; the metrics of the others are under `parts`,
their predictions in parts/TASK of --out. With --slices each slice is scored, too; of a cell that has heads for them, so
is every way to combine these.

Writes predictions with ids and probabilities to --out, those of the selection split beside those of the test split (a
temperature is fitted on them), and every metric with n and its 95 % interval to --metrics. A cell that ran out of
memory or diverged has no predictions: both outputs say so, and the exit status is 0.

examples:
  python -m components.evaluate --run runs/train/noise/reweight/gru/0 --model runs/models/noise/reweight/gru/0 \\
      --data runs/corrupt/noise/0 --out runs/evaluate/noise/reweight/gru/0 --metrics
      runs/metrics/noise/reweight/gru/0.json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data.predictions import SELECTION, TEST, Evaluate, slices, to_table
from gradworks.telemetry import live

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind

WITHOUT_MODEL = ("OOM", "diverged", "not run")  # states whose weights answer nothing


def leaked(data: Path, ids: list[str]) -> set[str]:
    """Ids of the test examples that the training split holds too."""
    table = artifacts.read_parquet(data / "corruptions.parquet", ["id", "kind"])
    found = {i for i, kind in zip(table["id"].to_pylist(), table["kind"].to_pylist(), strict=True) if kind == "leak"}
    strange = found - set(ids)
    if strange:
        raise InputError(f"{data / 'corruptions.parquet'}: leaked id {min(strange)} is not in test.parquet")
    return found


class _Model:
    """The cell's model."""

    def __init__(self, args: Any, settings: Evaluate) -> None:
        from gradworks import models
        from gradworks.base.device import set_up

        self._device = set_up(base.value(args.params, "threads"), base.value(args.params, "device"))
        self._length = artifacts.read_json(args.run / artifacts.MANIFEST)["parameters"]["train"]["max_length"]
        self._model, self._batch = models.load(args.model).to(self._device), settings.batch

    def answers(self, file: Path, table: pa.Table, task: Kind) -> np.ndarray:
        """For the examples of a table."""
        from gradworks.data.tables import to_examples
        from gradworks.predict import answers

        examples = to_examples(table, task, self._model, self._length, str(file)).to(self._device)
        return answers(self._model, task, examples, self._batch, name=f"evaluate {file.stem}")


def _split(folder: Path, name: str, task: Kind) -> tuple[Path, pa.Table]:
    file = folder / f"{name}.parquet"
    return file, artifacts.read_parquet(file, ["id", *task.spec.texts, "label", *task.also])


def _answers(model: _Model, test: tuple[Path, pa.Table], held: tuple[Path, pa.Table], task: Kind) -> list[np.ndarray]:
    """For the test and the selection split, both with what is chosen on the latter."""
    made, kept = (model.answers(*one, task) for one in (test, held))
    truths = task.truths(held[1])
    return [task.tuned(one, kept, truths) for one in (made, kept)]


def _sliced(task: Kind, ran: dict[str, Any], members: dict[str, Any], where: str) -> Kind:
    """The task as it was trained: with the heads of its slices."""
    if "slices" not in ran:
        return task
    from gradworks.tasks.kinds._shared.sliced import Sliced

    asked = ran["slices"]
    for name in asked["names"]:
        if name not in members:
            raise InputError(f"{where}: trained with a head for the slice {name}\nexpected --slices that has it")
    return Sliced(task, {name: members[name] for name in asked["names"]}, asked["combine"], asked["weight"])


def _heads(
    model: _Model, test: tuple[Path, pa.Table], held: tuple[Path, pa.Table], kind: Any, found: dict[str, Any]
) -> list[np.ndarray]:
    """The combined answers of all heads for the two splits; `found` gets the scores of each way to combine them."""
    from gradworks.metrics import scores
    from gradworks.tasks.kinds._shared.sliced import COMBINE

    apart, inside = [], []
    for file, table in (test, held):
        apart.append(model.answers(file, table, kind.apart()))
        inside.append(kind.inside(table["id"].to_pylist()))
    labels, by = kind.truths(test[1]), {name: test[1][name].to_pylist() for name in found["names"]}
    ways = {how: kind.together(apart[0], inside[0], how) for how in COMBINE}
    made = {how: scores(kind.score, kind.reported, labels, one, by) for how, one in ways.items()}
    found |= {"heads": list(kind.names), "combine": kind.combine, "combined": made}
    return [kind.together(a, b, kind.combine) for a, b in zip(apart, inside, strict=True)]


def _parts(args: Any, model: _Model | None, names: list[str], folder: Path) -> dict[str, Any]:
    """The metrics of further tasks; their predictions are written to parts/TASK of `folder`."""
    from gradworks.metrics import scores

    found = {}
    for name in names:
        task, data, out = tasks.of(args.params, name), args.data / "parts" / name, folder / "parts" / name
        out.mkdir(parents=True)
        both = [_split(data, split, task) for split in ("test", "selection")]
        made = [None, None] if model is None else _answers(model, *both, task)
        for (_, table), answers, written in zip(both, made, (TEST, SELECTION), strict=True):
            artifacts.write_parquet(out / written, to_table(table, answers, task, []))
        empty: dict[str, Any] = {"overall": {}, "by": {}}
        labels = task.truths(both[0][1])
        found[name] = empty if made[0] is None else scores(task.score, task.reported, labels, made[0], {})
    return found


def _made_with(args: Any) -> dict[str, Any]:
    """What the run that is scored and its data were made with: their own folders may be of a later run by the time that
    the report is written.
    """
    run, data = (artifacts.read_json(folder / artifacts.MANIFEST) for folder in (args.run, args.data))
    digests = {name: entry["sha256"] for name, entry in data["files"].items()}
    return {"run": run["parameters"], "data": data["parameters"], "digests": digests}


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that `train` wrote with --out")
    parser.add_argument("--model", type=Path, required=True, help="folder that `train` wrote with --model")
    parser.add_argument("--data", type=Path, required=True, help="folder that `corrupt` wrote")
    parser.add_argument("--slices", type=Path, help="folder that `slice` wrote; none = no slices")
    parser.add_argument("--out", type=Path, required=True, help="folder for the predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("evaluate", args)
    settings = base.optional(args.params, "evaluate", Evaluate)
    task = tasks.of(args.params)
    for folder in (args.run, args.model, args.data):
        artifacts.check(folder)
    status = artifacts.read_json(args.run / "status.json")
    ran = artifacts.read_json(args.run / artifacts.MANIFEST)["parameters"]
    trained = ran.get("mixture", {}).get("parts") or [ran.get("task", task.name)]
    further, main_too = [name for name in trained if name != task.name], task.name in trained
    (test, table), (selection, held) = (_split(args.data, name, task) for name in ("test", "selection"))
    if not len(table):
        raise InputError(f"{test}: no rows")
    members: dict[str, Any] = {}
    if args.slices:
        from gradworks.data import members as of_slices

        members = of_slices.read(args.slices, args.data)
        table = of_slices.columns(table, members, str(args.slices))
    columns = [*settings.by, *members]
    by = slices(table, columns, str(test))
    ids = table["id"].to_pylist()
    found: dict[str, Any] = {"overall": {}, "by": {}}
    outputs = on_selection = None
    model = None if status["state"] in WITHOUT_MODEL else _Model(args, settings)
    if model and main_too:
        from gradworks.metrics import scores

        kind, both = _sliced(task, ran, members, str(args.run)), ((test, table), (selection, held))
        about_slices: dict[str, Any] = {"names": list(members)}
        outputs, on_selection = (
            _answers(model, *both, task) if kind is task else _heads(model, *both, kind, about_slices)
        )
        labels = task.truths(table)
        found = scores(task.score, task.reported, labels, outputs, by)
        if members:
            found["slices"] = about_slices
        known = leaked(args.data, ids)
        if known:
            kept = [i for i, key in enumerate(ids) if key not in known]
            there = {c: [v[i] for i in kept] for c, v in by.items()}
            found["without_leaked"] = scores(task.score, task.reported, labels[kept], outputs[kept], there)
            found["without_leaked"]["leaked"] = len(known)
    with artifacts.atomic_folder(args.out) as folder:
        made = to_table(table, outputs, task, columns)
        artifacts.write_parquet(folder / TEST, made)
        artifacts.write_parquet(folder / SELECTION, to_table(held, on_selection, task, []))
        if further:
            found["parts"] = _parts(args, model, further, folder)
        parameters = {"task": task.name, "by": settings.by, **_made_with(args)}
        about = {"rows": len(made), "state": status["state"], "reason": status["reason"]}
        artifacts.write_manifest(folder, "evaluate", parameters, **about)
    counts = {key: status[key] for key in ("state", "reason", "steps", "examples", "skipped")}
    artifacts.write_json(args.metrics, {**found, **counts})


if __name__ == "__main__":
    base.run(main)
