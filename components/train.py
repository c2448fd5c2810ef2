"""Train one cell: one data set, encoder, method and seed.

Writes history, statistics of the gradient, example weights and status.json to --out and the best model to --model. The
best model is the one with the highest score on the split `selection`, which is neither the clean nor the test set. A
cell that runs out of memory or diverges writes all of its outputs too, says so in status.json and exits with 0. A run
that was killed goes on from its last checkpoint by itself.

examples:
  python -m components.train --method reweight --seed 0 --data runs/corrupt/noise/0 --start runs/pretrain/gru \\
      --out runs/train/noise/reweight/gru/0 --model runs/models/noise/reweight/gru/0
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gradworks import base
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.base.points import MethodPoint, method_point
from gradworks.telemetry import live

Rate = Annotated[float, Field(gt=0)]


class Select(base.Section):
    """Which checkpoint is kept."""

    metric: str = "accuracy"
    every: float = Field(0.1, gt=0, le=1)


class Train(base.Section):
    """The section `train`."""

    epochs: float = Field(gt=0)
    batch: int = Field(gt=0)
    micro_batch: int | None = Field(None, gt=0)
    clean_batch: int = Field(32, gt=0)
    max_length: int = Field(128, gt=2)
    learning_rate: Rate | dict[str, Rate]
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    clip: float | None = Field(1.0, gt=0)
    optimizer: str = "AdamW"
    precision: Literal["float32", "bf16"] = "float32"
    select: Select = Select()


def method_of(params: Path, name: str, point: MethodPoint, task: Any, seed: int) -> Any:
    from gradworks.methods import Method

    try:
        return Method(point.objective, point.weighting, point.update, task=task, seed=seed)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{params}: methods.{name}: {error}") from None


def _peak(params: Path, train: Train, model: str) -> float:
    if isinstance(train.learning_rate, float | int):
        return train.learning_rate
    if model not in train.learning_rate:
        found = ", ".join(train.learning_rate)
        raise InputError(f"{params}: train.learning_rate: found {found}\nexpected a number or one for {model!r}")
    return train.learning_rate[model]


def out_of_memory(error: BaseException) -> bool:
    import torch

    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "not enough memory" in said)
    )


def _status(trace: Any, ended: tuple[str, str], constant: float, better: int) -> dict[str, Any]:
    """State and reason: what it `ended` as before its time; else by the score of the best constant prediction."""
    state, reason = ended
    if state != "ok":
        pass
    elif trace.diverged:
        state, reason = "diverged", trace.diverged
    elif not trace.best or better * trace.best["score"] <= better * constant:
        reason = f"best selection score {trace.best.get('score')} is not better than that of a constant, {constant}"
        state = "not converged"
    counts = {key: getattr(trace, key) for key in ("examples", "skipped", "passes", "best")}
    about = {"state": state, "reason": reason, "steps": trace.step, "constant": constant}
    return {**about, **counts, "figures": trace.figures()}


class Run:
    """The cell: what its arguments and parameters ask for."""

    def __init__(self, args: argparse.Namespace) -> None:
        from gradworks import tasks

        self.args = args
        self.settings = base.section(args.params, "train", Train)
        self.point = method_point(args.params, args.method, base.value(args.params, f"methods.{args.method}"))
        self.task = tasks.of(args.params)
        artifacts.check(args.data)
        artifacts.check(args.start)
        parameters = {"train": self.settings, "method": self.point}
        self.parameters = {key: value.model_dump(by_alias=True) for key, value in parameters.items()}
        self.parameters |= {"seed": args.seed, "task": self.task.name}
        self.longer: float | None = 1.0  # so many times the batches; None: it should be measured and is not
        if self.point.as_long_as:
            file = args.params.parent / "runs/schedule" / args.start.name / f"{self.point.as_long_as}.json"
            self.longer = self.parameters["longer"] = artifacts.read_json(file)["ratio"]

    def split(self, model: Any, *names: str) -> Any:
        """The examples of some splits together."""
        import pyarrow as pa

        from gradworks.data.tables import to_examples

        columns = ["id", *self.task.spec.texts, "label"]
        files = [self.args.data / f"{name}.parquet" for name in names]
        table = pa.concat_tables([artifacts.read_parquet(file, columns).select(columns) for file in files])
        if not len(table):
            raise InputError(f"{files[0]}: no rows")
        return to_examples(table, self.task, model, self.settings.max_length, str(files[0]))

    def plan(self, kind: str) -> Any:
        """The settings of the loop for a kind of model."""
        from gradworks import loop, metrics

        s, base = self.settings, artifacts.read_parquet(self.args.data / "train.parquet", ["id"]).num_rows
        return loop.Settings(
            batches=round(s.epochs * -(-base // s.batch) * (self.longer or 1)), batch=s.batch, micro=s.micro_batch,
            clean_batch=s.clean_batch, learning_rate=_peak(self.args.params, s, kind), weight_decay=s.weight_decay,
            warmup=s.warmup, clip=s.clip, better=metrics.better(s.select.metric), every=s.select.every,
            optimizer=s.optimizer, bf16=s.precision == "bf16",
        )  # fmt: skip

    def mixture(self, model: Any, clean: bool, device: Any) -> Any:
        """What is trained on."""
        from gradworks.data.mixture import Mixture, Part

        names = {"train": self.point.train_on, "selection": ["selection"], "clean": ["clean"] if clean else []}
        splits = {key: self.split(model, *value).to(device) for key, value in names.items() if value}
        return Mixture({self.task.name: Part(**splits)})

    def model(self, outputs: int) -> Any:
        """The model to train, frozen as the method asks."""
        from gradworks import models

        if self.point.from_ is None:
            model = models.create(self.args.start, outputs, self.args.seed)
        else:
            model = models.load(self.args.start)
            if self.point.reinitialise:
                models.fresh_head(model, self.args.seed)
        if self.point.trainable == "head":
            models.train_head_only(model)
        return model

    def fit(self, saved: Any, stop: base.Stopping, watch: Any) -> tuple[Any, Any, list[tuple[str, str]], float]:
        """The best model, the trace, task and id of each training row, the score of the best constant prediction."""
        from gradworks import loop, models
        from gradworks.base.device import set_up
        from gradworks.predict import predict

        args, task = self.args, self.task
        device = set_up(base.value(args.params, "threads"), base.value(args.params, "device"))
        plan = self.plan(artifacts.read_json(args.start / models.CONFIG)["model"])
        method = method_of(args.params, args.method, self.point, task, args.seed)
        if not loop.steps(plan, method):
            raise InputError(f"{args.params}: train.epochs: found {self.settings.epochs}\nexpected enough for one step")
        model = self.model(task.size).to(device)
        mixture, metric = self.mixture(model, method.clean, device), self.settings.select.metric
        selection = mixture.parts[task.name].selection
        labels = selection.labels.cpu().numpy()

        def score(answers: Any) -> float | None:
            return task.score(metric, labels, answers).value

        def look(model: Any) -> dict[str, float | None]:
            return {metric: score(task.answers(predict(model, task, selection)))}

        trace = loop.fit(model, method, mixture, settings=plan, seed=args.seed, score=look, checkpoint=saved,
                         stop=stop, name=f"train {args.method}", watch=watch)  # fmt: skip
        constants = [plan.better * (score(one) or 0.0) for one in task.constants(labels)]
        return model, trace, mixture.rows(), plan.better * max(constants)


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--method", required=True, help="key of the section `methods`")
    parser.add_argument("--seed", type=int, required=True, help="of initialisation, data order and masks")
    parser.add_argument("--data", type=Path, required=True, help="folder that `corrupt` wrote")
    parser.add_argument("--start", type=Path, required=True, help="what `pretrain` or another cell wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for history, weights and status")
    parser.add_argument("--model", type=Path, required=True, help="folder for the trained model")
    args = parser.parse_args()
    run = Run(args)
    encoder = args.start.name if run.point.from_ is None else args.start.parent.name  # of models/…/ENCODER/SEED
    told = live.begin("train", args, encoder=encoder, condition=args.data.parent.name, task=run.task.name)

    from gradworks import metrics, models
    from gradworks.base import checkpoint
    from gradworks.loop import Stopped
    from gradworks.trace import Trace

    saved = checkpoint.Checkpoint(checkpoint.key("train", [args.data, args.start], run.parameters))
    model, trace, rows, constant, ended = None, Trace(), [], 0.0, ("ok", "")
    with base.Stopping() as stop:
        try:
            if run.longer is None:
                ended = ("not run", f"the time of {run.point.as_long_as}, which it would take, was not measured")
            elif run.point.from_ is None or (args.start / models.CONFIG).exists():
                model, trace, rows, constant = run.fit(saved, stop, told.step)
            else:
                ended = ("not run", f"{run.point.from_}, which it starts from, ended without a model")
        except Stopped as reason:
            print(reason, flush=True)
            raise SystemExit(128 + stop.signal) from None
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            ended = ("OOM", str(error).splitlines()[0])
            print(f"out of memory: {ended[1]}", flush=True)
    better = metrics.better(run.settings.select.metric)
    with artifacts.atomic_folder(args.model) as folder:
        if model is not None:
            models.save(model, folder)
        artifacts.write_manifest(folder, "train", run.parameters)
    with artifacts.atomic_folder(args.out) as folder:
        trace.write(folder, rows)
        artifacts.write_json(folder / "status.json", _status(trace, ended, constant, better))
        artifacts.write_manifest(folder, "train", run.parameters)
    saved.remove()


if __name__ == "__main__":
    base.run(main)
