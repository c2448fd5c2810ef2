"""One cell as its arguments and parameters ask for it: data, method, model and settings of a training run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from gradworks import base
from gradworks.base import artifacts, grid
from gradworks.base.errors import InputError
from gradworks.base.points import MethodPoint, method_point
from gradworks.base.size import WINDOW, Budget
from gradworks.base.together import led_by

if TYPE_CHECKING:
    from gradworks.selection import Looks

Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Select(base.Section):
    """Which checkpoint is kept."""

    metric: str = "accuracy"
    every: float = Field(0.1, gt=0, le=1)


class Train(base.Section):
    """The section `train`.

    batch: a number of examples, or {tokens: 2048}: as many as keep a batch's tokens, padding counted, within that.
    micro_batch: of one forward pass, in the unit of `batch`. window: see `gradworks.data.batching.cuts`.
    """

    epochs: float = Field(gt=0)
    batch: Count | Budget
    micro_batch: Count | Budget | None = None
    window: int = Field(WINDOW, gt=0)
    clean_batch: int = Field(32, gt=0)
    max_length: int = Field(128, gt=2)
    learning_rate: Rate | dict[str, Rate]
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    clip: float | None = Field(1.0, gt=0)
    optimizer: str = "AdamW"
    precision: Literal["float32", "bf16"] = "float32"
    select: Select = Select()

    @model_validator(mode="after")
    def _one_unit(self) -> Train:
        if self.micro_batch and isinstance(self.micro_batch, Budget) != isinstance(self.batch, Budget):
            unit = "tokens" if isinstance(self.batch, Budget) else "examples"
            raise ValueError(f"micro_batch: found {self.micro_batch}\nexpected {unit}, as of batch: {self.batch}")
        return self


def method_of(
    params: Path | base.Params, name: str, point: MethodPoint, task: Any, seed: int, world: Any = None
) -> Any:
    """The method of a point.

    Args:
        task: the kind of the one task, or kinds by task name.
        world: where several processes train together.
    """
    from gradworks.methods import Method

    given = {"tasks": task} if isinstance(task, dict) else {"task": task}
    ranks = {"reduce": world.sum, "rank": world.rank, "ranks": world.size} if world and world.size > 1 else {}
    try:
        return Method(point.objective, point.weighting, point.update, **given, seed=seed, **ranks)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{params}: methods.{name}: {error}") from None


def peak(params: base.Params, train: Train, model: str) -> float:
    """The largest learning rate for a kind of model. Raises InputError where `train` has none for it."""
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


def _mixture(args: argparse.Namespace, task: str) -> grid.Mixture:
    """What the cell trains on: a mixture of the params file, or the project's task alone."""
    name = getattr(args, "mixture", None)
    if name is None:
        return grid.Mixture(parts=[task])
    return base.section(args.params, f"mixtures.{name}", grid.Mixture)


class Run:
    """The cell: what its arguments and parameters ask for."""

    def __init__(self, args: argparse.Namespace, schedule: Path | None = None) -> None:
        from gradworks import tasks
        from gradworks.tasks.kinds._shared import together

        self.args, self.params = args, base.Params(args.params)
        self.settings = self.params.section("train", Train)
        self.point = method_point(args.params, args.method, self.params.value(f"methods.{args.method}"))
        self.main = self.params.value("task")
        self.mixed = _mixture(args, self.main)
        self._at = f"{args.params}: mixtures.{getattr(args, 'mixture', None)}"
        self.kinds = {name: tasks.of(args.params, name) for name in self.mixed.parts}
        self.slices = self._slices()
        self.trained = together.kinds_of(self.kinds, self.mixed.sets)
        self.task = self.kinds[self.main if self.main in self.kinds else self.mixed.parts[0]]
        self.looks = self._looks()
        artifacts.check(args.data)
        artifacts.check(args.start)
        parameters = {"train": self.settings, "method": self.point}
        self.parameters = {key: value.model_dump(by_alias=True) for key, value in parameters.items()}
        self.parameters |= {"seed": args.seed, "task": self.task.name}
        more = {
            key: one
            for key in ("batch", "epoch", "epochs", "from_", "layer", "conflicts", "together")
            if (one := getattr(self.mixed, key))
        }
        if len(self.kinds) > 1 or more:
            chosen = {"schedule": self.mixed.chosen, "select": self.looks.chosen}
            self.parameters["mixture"] = {"parts": self.mixed.parts, **chosen, **more}
        if self.slices:
            self.parameters["slices"] = self.slices
        self.longer: float | None = 1.0  # so many times the batches; None: it should be measured and is not
        if self.point.as_long_as:
            self.longer = self.parameters["longer"] = self._ratio(schedule)

    def _ratio(self, schedule: Path | None) -> float | None:
        """The time of a step of the method that this one takes as long as, over that of plain training."""
        where = f"{self.params}: methods.{self.args.method}.as_long_as: found {self.point.as_long_as}"
        if schedule is None:
            raise InputError(f"{where} and no --schedule\nexpected the file that `measure` wrote for it")
        found = artifacts.read_json(schedule)
        if not isinstance(found, dict) or set(found) != {"ratio"}:
            raise InputError(f"{where} and no ratio in {schedule}\nexpected the file that `measure` wrote for it")
        return found["ratio"]

    def _slices(self) -> dict[str, Any]:
        """What is said of the slices that get heads; the kind of their task is then one with slices."""
        if not self.mixed.slices:
            return {}
        from gradworks.data import members
        from gradworks.tasks.kinds._shared import sliced

        where = f"{self._at}.slices"
        if getattr(self.args, "slices", None) is None:
            raise InputError(f"{where}: found {self.mixed.slices} and no --slices\nexpected what `slice` wrote")
        ids = members.read(self.args.slices, self.args.data, self.mixed.slices)
        sliced.check(self.kinds[self.main], where)
        weight = 1.0 if self.mixed.slice_weight is None else self.mixed.slice_weight
        made = {"names": list(ids), "combine": self.mixed.combine or "mean", "weight": weight}
        self.kinds[self.main] = sliced.Sliced(self.kinds[self.main], ids, made["combine"], weight)
        return made

    def _looks(self) -> Looks:
        """How the best model is chosen: `train.select.metric` of the project's task, the main metric of others."""
        from gradworks.selection import Looks

        found = {name: kind.spec.metrics[0] for name, kind in self.kinds.items()}
        found |= {self.main: self.settings.select.metric} if self.main in found else {}
        return Looks(self.kinds, found, self.mixed.select, f"{self._at}.select")

    def _folder(self, task: str) -> Path:
        """Of the splits of a task."""
        folder = self.args.data if task == self.main else self.args.data / "parts" / task
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder\nexpected the splits of {task}, of corrupt.parts.{task}")
        return folder

    def split(self, model: Any, *names: str, task: str | None = None) -> Any:
        """The examples of some splits together, of the main task or another."""
        import pyarrow as pa

        from gradworks.data.tables import to_examples

        kind = self.kinds[task or self.task.name]
        columns = list(dict.fromkeys(["id", *kind.spec.texts, "label", *kind.also]))
        files = [self._folder(kind.name) / f"{name}.parquet" for name in names]
        tables = [artifacts.read_parquet(file, columns) for file in files]
        soft = [
            n for n in ("distribution",) if getattr(kind, "soft", False) and any(n in t.column_names for t in tables)
        ]
        tables = [table.select([*columns, *(n for n in soft if n in table.column_names)]) for table in tables]
        table = pa.concat_tables(tables, promote_options="default")
        if not len(table):
            raise InputError(f"{files[0]}: no rows")
        return to_examples(table, kind, model, self.settings.max_length, str(files[0]))

    def plan(self, kind: str, mixture: Any = None) -> Any:
        """The settings of the loop for a kind of model; an epoch is one over the training splits of all parts.

        A method that trains on further splits sees as many examples in it: where batches are budgets, as many as its
        batches hold in the mean. For these `mixture` is needed.
        """
        from gradworks import loop, schedules

        s, rate = self.settings, self.point.learning_rate
        clip = s.clip if self.point.clip is None else self.point.clip or None
        each: dict[str, float] = {}
        sizes = mixture.sizes(s.batch) if isinstance(s.batch, Budget) else {}
        for name, (task, *_) in self.mixed.streams.items():
            rows = artifacts.read_parquet(self._folder(task) / "train.parquet", ["id"]).num_rows
            if sizes:
                each[name] = sizes[name] * rows / len(mixture.streams[name].train)
            else:
                each[name] = -(-rows // (self.mixed.batch or {}).get(task, s.batch))
        once = next((name for name, tasks in self.mixed.streams.items() if self.mixed.epoch in tasks), None)
        epoch = schedules.epoch(self.mixed.chosen, each, once, f"{self._at}.schedule")
        return loop.Settings(
            batches=round((self.mixed.epochs or s.epochs) * epoch * (self.longer or 1)), batch=s.batch,
            micro=s.micro_batch, clean_batch=s.clean_batch, learning_rate=rate or peak(self.params, s, kind),
            weight_decay=s.weight_decay, warmup=s.warmup, clip=clip, better=self.looks.better, every=s.select.every,
            optimizer=s.optimizer, bf16=s.precision == "bf16",
            conflicts=self.mixed.conflicts,
        )  # fmt: skip

    def mixture(self, model: Any, clean: bool, device: Any, train_on: list[str] | None = None) -> Any:
        """What is trained on; `train_on`: other splits than the method's."""
        from gradworks.data.mixture import Mixture, Part

        names = {"train": train_on or self.point.train_on, "selection": ["selection"]}
        names["clean"] = ["clean"] if clean else []
        parts = {
            task: Part(**{k: self.split(model, *v, task=task).to(device) for k, v in names.items() if v})
            for task in self.kinds
        }
        for task, part in parts.items() if isinstance(self.settings.batch, Budget) else ():
            longest, most = max(part.train.tokens), self.settings.batch.tokens
            if not longest:
                said = f"{self.params}: train.batch: found tokens, of which examples of {task} have none"
                raise InputError(f"{said}\nexpected a number of examples")
            if longest > most:
                raise InputError(
                    f"{self.params}: train.batch.tokens: found {most}\n"
                    f"expected at least {longest}, the tokens of the longest training example of {task}"
                )
        sets = led_by(self.main, self.mixed.sets)
        try:
            return Mixture(parts, self.mixed.chosen, self.settings.window, self._batches(), sets)
        except InputError as error:  # rows of a set that differ
            raise InputError(f"{self._at}.{error}") from None

    def _batches(self) -> dict[str, int]:
        """Sizes of the batches of some parts. Raises InputError where those of the others are budgets."""
        made = self.mixed.batch or {}
        if made and isinstance(self.settings.batch, Budget):
            raise InputError(f"{self._at}.batch: found {made}, and tokens in train.batch\nexpected a number there")
        return made

    def method(self, world: Any = None) -> Any:
        """Refused in words where an entry does not fit, or the schedule cannot give the update what it needs."""
        from gradworks import schedules
        from gradworks.tasks.kinds._shared import together

        args, several = self.args, len(self.kinds) > 1
        task = dict(self.trained) if len(self.trained) > 1 else next(iter(self.trained.values()))
        made = method_of(args.params, args.method, self.point, task, args.seed, world)
        where = f"{args.params}: methods.{args.method}" + (f": mixtures.{args.mixture}.schedule" if several else "")
        schedules.check(self.mixed.chosen, made.needs, list(self.trained), where)
        together.check_method(made, self.mixed.sets, self._at, args.method)
        return made

    def model(self) -> Any:
        """The model to train, frozen as the method asks."""
        from gradworks import cell_model

        return cell_model.made(self)

    @property
    def later(self) -> bool:
        """Whether it starts from the model of another cell."""
        return self.point.from_ is not None or self.mixed.from_ is not None

    def headed(self, names: list[str]) -> list[str]:
        """The tasks that have a head."""
        from gradworks import tasks

        return [name for name in names if tasks.of(self.args.params, name).size]

    def two_texts(self) -> list[str]:
        """The tasks whose head reads two texts one by one. Raises InputError where a task's kind has no such head."""
        from gradworks.tasks.kinds._shared.sliced import reads_one_vector

        two = {name: kind for name, kind in self.kinds.items() if len(kind.spec.texts) > 1 and kind.size}
        for name, kind in two.items():
            if not reads_one_vector(getattr(kind, "kind", kind)):  # without its slices
                raise InputError(
                    f"{self.args.start}: found an encoder with pair: bi, and {name} of kind {kind.spec.kind}\n"
                    "expected pair: cross, or tasks of kind classification, regression, similarity"
                )
        return list(two)

    @property
    def folders(self) -> list[Path]:
        """What the run reads, for its checkpoint."""
        return [self.args.data, self.args.start, *([self.args.slices] if self.slices else [])]

    def fit(
        self, saved: Any, stop: base.Stopping, watch: Any, world: Any
    ) -> tuple[Any, Any, list[tuple[str, str]], float]:
        """The best model, the trace, task and id of each training row, the score of the best constant prediction."""
        from gradworks import loop, models
        from gradworks.predict import answers

        args, device = self.args, world.device
        method = self.method(world)
        model = self.model()
        inner = method.update if self.task.carries and self.point.trainable == "all" else None
        carries = getattr(inner, "moments", None) is not None
        models.carry(model, carries)
        model = model.to(device)
        mixture = self.mixture(model, method.clean, device)
        for task, kind in self.kinds.items():
            if kind.cuts:  # refused here, not by `evaluate` when all is trained
                self.split(model, "test", task=task)
        plan = self.plan(artifacts.read_json(args.start / models.CONFIG)["model"], mixture)
        if not loop.steps(plan, method):
            raise InputError(f"{self.params}: train.epochs: found {self.settings.epochs}\nexpected enough for one step")
        selection = {name: part.selection for name, part in mixture.parts.items()}
        labels = {name: examples.truths for name, examples in selection.items()}
        asked = {name: kind.scoring((self.looks.measures[name],)) for name, kind in self.kinds.items()}

        def look(model: Any) -> dict[str, float | None]:
            if carries:
                model.moments.hold(*inner.moments)
            made = {n: answers(model, k, selection[n]) for n, k in asked.items()}
            return self.looks.scores(labels, made)

        trace = loop.fit(model, method, mixture, settings=plan, seed=args.seed, score=look, checkpoint=saved,
                         stop=stop, name=f"train {args.method}", watch=watch, world=world)  # fmt: skip
        return model, trace, mixture.rows(), self.looks.constant(labels)
