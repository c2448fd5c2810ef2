"""Score one trained cell on the test split: overall, by column, and with and without leaked examples.

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


def _outputs(args: Any, tables: list[tuple[Path, pa.Table]], task: Kind, settings: Evaluate) -> list[np.ndarray]:
    """What the cell's model predicts for the examples of each table."""
    from gradworks import models
    from gradworks.base.device import set_up
    from gradworks.data.tables import to_examples
    from gradworks.predict import predict

    device = set_up(base.value(args.params, "threads"), base.value(args.params, "device"))
    length = artifacts.read_json(args.run / artifacts.MANIFEST)["parameters"]["train"]["max_length"]
    model = models.load(args.model).to(device)
    made = []
    for file, table in tables:
        examples = to_examples(table, task, model, length, str(file)).to(device)
        name = f"evaluate {file.stem}"
        made.append(task.answers(predict(model, task, examples, settings.batch, name=name)))
    return made


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
    parser.add_argument("--out", type=Path, required=True, help="folder for the predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    live.begin("evaluate", args)
    settings = base.optional(args.params, "evaluate", Evaluate)
    task = tasks.of(args.params)
    for folder in (args.run, args.model, args.data):
        artifacts.check(folder)
    status = artifacts.read_json(args.run / "status.json")
    test, selection = (args.data / f"{name}.parquet" for name in ("test", "selection"))
    table, held = (artifacts.read_parquet(file, ["id", *task.spec.texts, "label"]) for file in (test, selection))
    if not len(table):
        raise InputError(f"{test}: no rows")
    by = slices(table, settings.by, str(test))
    ids = table["id"].to_pylist()
    found: dict[str, Any] = {"overall": {}, "by": {}}
    outputs = on_selection = None
    if status["state"] not in WITHOUT_MODEL:
        from gradworks.metrics import scores

        outputs, on_selection = _outputs(args, [(test, table), (selection, held)], task, settings)
        labels = table["label"].to_numpy()
        found = scores(task.score, task.reported, labels, outputs, by)
        known = leaked(args.data, ids)
        if known:
            kept = [i for i, key in enumerate(ids) if key not in known]
            there = {c: [v[i] for i in kept] for c, v in by.items()}
            found["without_leaked"] = scores(task.score, task.reported, labels[kept], outputs[kept], there)
            found["without_leaked"]["leaked"] = len(known)
    with artifacts.atomic_folder(args.out) as folder:
        made = to_table(table, outputs, task, settings.by)
        artifacts.write_parquet(folder / TEST, made)
        artifacts.write_parquet(folder / SELECTION, to_table(held, on_selection, task, []))
        parameters = {"task": task.name, "by": settings.by, **_made_with(args)}
        about = {"rows": len(made), "state": status["state"], "reason": status["reason"]}
        artifacts.write_manifest(folder, "evaluate", parameters, **about)
    counts = {key: status[key] for key in ("state", "reason", "steps", "examples", "skipped")}
    artifacts.write_json(args.metrics, {**found, **counts})


if __name__ == "__main__":
    base.run(main)
