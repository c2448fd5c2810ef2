"""Expand the grid of params.yaml: one named cell per training run, and the items of each stage.

DVC can multiply lists but not look up named methods, and a cell must depend on the files of its own method only. So the
expanded grid is written to cells.yaml (see `cells`).
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gradworks.base import Section, ensembles, fresh_yaml, names, slicing, sources, validate, words
from gradworks.base.errors import InputError
from gradworks.base.place import place
from gradworks.base.points import MethodPoint, Slot, entry_name, method_point
from gradworks.base.together import Given, check_sets, sets_of, streams_of

Seed = Annotated[int, Field(ge=0, lt=2**63)]
ALWAYS_PRESENT = slicing.ALWAYS_PRESENT


class Block(Section):
    """Cells as a product of lists; `mixture` only if params.yaml has mixtures."""

    condition: list[str] = Field(min_length=1)
    method: list[str] = Field(min_length=1)
    mixture: list[str] | None = Field(None, min_length=1)
    encoder: list[str] = Field(min_length=1)
    seed: list[Seed] | None = Field(None, min_length=1)


class Mixture(Section):
    """Tasks that one run trains on.

    Attributes:
        parts: names of tasks.
        schedule: a file of gradworks/schedules/, or {its name: options}; `single` for one part, else `round_robin`.
        batch: examples of a batch of some parts, in the place of train.batch.
        epoch: the part that is read once in an epoch; without it an epoch has as many batches as all parts have.
        epochs: in the place of train.epochs.
        from_: another mixture, from whose trained model this one starts (of the same condition, method, encoder and
            seed). Tasks of both keep their heads, the others get fresh ones.
        select: the task whose score selects the checkpoint, or `mean` over all.
        layer: tasks whose heads share a layer between them and a bi-encoder, see gradworks/models/_shared/pairs.py.
        slices: names of slices of the project's task, each of which gets a head of its own.
        combine: how the predictions of its heads become one; `task` is those of the task's head alone.
        slice_weight: of the loss of each slice beside the task's.
        conflicts: every so many steps the gradients of the tasks are compared; see `gradworks.trace.Conflicts`.
        together: sets of tasks that read the same rows in one forward pass; see gradworks/base/together.py.
    """

    parts: list[str] = Field(min_length=1)
    schedule: Slot | None = None
    batch: dict[str, Annotated[int, Field(gt=0)]] | None = None
    epoch: str | None = None
    epochs: float | None = Field(None, gt=0)
    from_: str | None = Field(None, alias="from")
    select: str | None = None
    layer: dict[Literal["relational"], Annotated[list[str], Field(min_length=1)]] | None = None
    slices: list[str] | None = Field(None, min_length=1)
    combine: Literal["mean", "defer", "residual", "task"] | None = None
    slice_weight: float | None = Field(None, ge=0, allow_inf_nan=False)
    conflicts: Annotated[int, Field(gt=0)] | None = None
    together: list[Given] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _of_slices(self) -> Mixture:
        for key in ("combine", "slice_weight"):
            if getattr(self, key) is not None and not self.slices:
                raise ValueError(f"{key}: found without slices\nexpected slices: names of the section slice")
        if self.conflicts and len(self.parts) < 2:
            raise ValueError("conflicts: found it for one part\nexpected two or more tasks to compare")
        check_sets(self.together or (), self.parts, self.batch or {}, self.conflicts)
        return self

    @property
    def shared(self) -> list[str]:
        """The tasks whose heads read the shared layer."""
        return [name for names_ in (self.layer or {}).values() for name in names_]

    @property
    def sets(self) -> dict[str, dict[str, float]]:
        """Tasks that are read together, by the name of the set: task -> weight."""
        return sets_of(self.together or ())

    @property
    def streams(self) -> dict[str, list[str]]:
        """What a schedule chooses from, parts and sets, and the tasks of each."""
        return streams_of(self.parts, self.sets)

    @property
    def chosen(self) -> Slot:
        """The schedule, or the default one."""
        return self.schedule or ("single" if len(self.streams) == 1 else "round_robin")


class Cells(Section):
    """The section `cells`: blocks of the grid, and default seeds."""

    seeds: list[Seed] = Field(min_length=1)
    grid: list[Block] = Field(min_length=1)


def mixtures(params: Path, values: Mapping[str, Any]) -> dict[str, Mixture]:
    """The section `mixtures`, validated; empty if absent: every cell trains on the project's task."""
    given = values.get("mixtures")
    if given is None:
        return {}
    where = f"{params}: mixtures"
    if not isinstance(given, dict) or not given:
        raise InputError(f"{where}: found {words.shown(given)}\nexpected names, each with parts")
    names.check(given, where)
    made = {}
    for name, one in given.items():
        made[name] = validate(one, Mixture, f"{where}.{name}")
        if len(set(made[name].parts)) < len(made[name].parts):
            raise InputError(f"{where}.{name}.parts: found {made[name].parts}\nexpected each once")
        for key, given_parts in (
            ("batch", made[name].batch or ()),
            ("epoch", [made[name].epoch] if made[name].epoch else ()),
            ("layer.relational", made[name].shared),
        ):
            for part in given_parts:
                if part not in made[name].parts:
                    raise InputError(words.unknown(f"{where}.{name}.{key}", part, made[name].parts))
        slicing.check(made[name].slices, made[name].parts, values, f"{where}.{name}")
    for name in made:
        seen = [name]
        while (before := made[seen[-1]].from_) is not None:
            if before not in made:
                raise InputError(words.unknown(f"{where}.{seen[-1]}.from", before, made))
            if before in seen:
                raise InputError(f"{where}.{name}.from: {' from '.join([*seen, before])}\nexpected no circle")
            seen.append(before)
    return made


def own_tasks(values: Mapping[str, Any]) -> list[str]:
    """The tasks of the section `tasks` that the project, a source or a mixture uses."""
    defined = values.get("tasks")
    used = [values.get("task")]
    used += [one.get("task") for one in values["fetch"].values() if isinstance(one, dict)]
    for one in (values.get("mixtures") or {}).values():
        used += (one or {}).get("parts") or []
    return [name for name in dict.fromkeys(used) if isinstance(defined, dict) and name in defined]


def _given(options: dict[str, Any], root: Path) -> dict[str, str]:
    """Files and folders that an encoder depends on."""
    folder = options.get("from")
    return {
        "from": folder if folder and (root / folder).is_dir() else ALWAYS_PRESENT,  # else a name on the hub
        "text": (options.get("pretrain") or {}).get("corpus")
        or (options.get("vectors") or {}).get("file")
        or ALWAYS_PRESENT,
        "vocabulary": options.get("vocabulary_file") or ALWAYS_PRESENT,
    }


def _axes(
    params: Path, values: dict[str, Any], section: Cells, mixed: Mapping[str, Mixture]
) -> list[tuple[str, dict[str, Any]]]:
    """The position of each cell in the file, and its names: condition, method, mixture (if any), encoder, seed."""
    known = {"condition": values["corrupt"]["conditions"], "method": values["methods"], "encoder": values["pretrain"]}
    made = []
    for number, block in enumerate(section.grid):
        where = f"{params}: cells.grid.{number}"
        lists: dict[str, Any] = {name: getattr(block, name) for name in ("condition", "method", "mixture", "encoder")}
        lists["seed"] = block.seed or section.seeds
        if not mixed:
            if block.mixture:
                raise InputError(f"{where}.mixture: found {block.mixture}\nexpected a section `mixtures` that has them")
            del lists["mixture"]
        elif not block.mixture:
            if len(mixed) > 1:
                raise InputError(f"{where}.mixture: missing\nexpected some of: {', '.join(mixed)}")
            lists["mixture"] = list(mixed)
        for kind, there in (known | ({"mixture": mixed} if mixed else {})).items():
            for name in lists[kind]:
                if name not in there:
                    raise InputError(words.unknown(f"{where}.{kind}", name, there))
        made += [(where, dict(zip(lists, one, strict=True))) for one in itertools.product(*lists.values())]
    return made


def _train(
    params: Path, values: dict[str, Any], points: dict[str, MethodPoint], here: str
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Every cell of the grid: name -> condition, method, encoder, seed, path and the files of its entries."""
    if "ensemble" in values["corrupt"]["conditions"]:
        raise InputError(f"{params}: corrupt.conditions.ensemble: the name is taken by the stage's own results")
    mixed = mixtures(params, values)
    section = validate(values["cells"], Cells, f"{params}: cells")
    cells: dict[str, dict[str, Any]] = {}
    for where, cell in _axes(params, values, section, mixed):
        named = {kind: name for kind, name in cell.items() if kind != "mixture" or len(mixed) > 1}
        key, path = "-".join(map(str, named.values())), "/".join(map(str, named.values()))
        if key in cells and cells[key]["path"] != path:
            raise InputError(f"{where}: {path} and {cells[key]['path']} are both the cell {key}\nrename one")
        if key in cells:
            raise InputError(f"{where}: duplicate cell {key}\nexpected each cell once")
        method, encoder = cell["method"], cell["encoder"]
        # of its cost, by mixture if there are several
        folder = f"{cell['mixture']}/{encoder}" if len(mixed) > 1 else encoder
        cells[key] = {
            **cell,
            "path": path,
            "start": _start(params, points, mixed, named),
            "model": values["pretrain"][encoder].get("model"),
            "schedule": (schedule := _schedule(params, points, method, f"{here}runs/schedule/{folder}")),
            "times": "" if schedule == ALWAYS_PRESENT else f" --schedule {shlex.quote(schedule)}",
            **({"mixture_schedule": entry_name(mixed[cell["mixture"]].chosen)} if mixed else {}),
            **(slicing.item(mixed.get(cell.get("mixture")), cell, here) if "slice" in values else {}),
            **{slot: entry_name(getattr(points[method], slot)) for slot in ("objective", "weighting", "update")},
        }
    for key, cell in cells.items():
        before = cell["start"].removeprefix("models/")
        if before != cell["start"] and before.replace("/", "-") not in cells:
            of = f"methods.{cell['method']}" if points[cell["method"]].from_ else f"mixtures.{cell['mixture']}"
            raise InputError(
                f"{params}: {of}.from: the cell {key} starts from {before.replace('/', '-')}\n"
                "expected that cell in the grid too"
            )
        other = points[cell["method"]].as_long_as
        if other and "measure" not in values:
            raise InputError(f"{params}: methods.{cell['method']}.as_long_as: nothing is measured\nadd `measure: {{}}`")
        same = [(c["method"], c["encoder"], c.get("mixture")) for c in cells.values()]
        if other and (other, cell["encoder"], cell.get("mixture")) not in same:
            raise InputError(
                f"{params}: methods.{cell['method']}.as_long_as: no cell of {other}, {cell['encoder']} in the grid\n"
                "expected one, whose cost is measured"
            )
    return cells


def _schedule(params: Path, points: dict[str, MethodPoint], method: str, folder: str) -> str:
    """The file with the factor on a cell's training length; ALWAYS_PRESENT if it has the default length.

    Raises:
        InputError: `as_long_as` names a method that does not exist, has `as_long_as` itself, or is a second phase.
    """
    other = points[method].as_long_as
    if other is None:
        return ALWAYS_PRESENT
    where = f"{params}: methods.{method}"
    if other not in points or points[other].as_long_as:
        there = (name for name, point in points.items() if not point.as_long_as)
        raise InputError(words.unknown(f"{where}.as_long_as", other, there))
    if points[method].from_:
        raise InputError(f"{where}: found both from and as_long_as\nexpected one of them")
    return f"{folder}/{other}.json"


def _measure(
    params: Path, points: dict[str, MethodPoint], cells: dict[str, dict[str, Any]], several: bool
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """A method's cost on an encoder (and mixture) is measured once, with data and initial model of its first cell."""
    made: dict[str, dict[str, Any]] = {}
    axes = ("mixture", "encoder", "method") if several else ("encoder", "method")
    for cell in cells.values():
        if points[cell["method"]].as_long_as is None:  # its steps are those of another method
            item = {key: value for key, value in cell.items() if key not in ("path", "schedule", "times")}
            key = "-".join(cell[axis] for axis in axes)
            first = made.setdefault(key, item)
            if any(first[axis] != cell[axis] for axis in axes):
                one, other = ("/".join(each[axis] for axis in axes) for each in (cell, first))
                raise InputError(f"{params}: {one} and {other} are both the measurement {key}\nrename one")
    return made


def _start(params: Path, points: dict[str, MethodPoint], mixed: Mapping[str, Mixture], cell: dict[str, Any]) -> str:
    """The folder in runs/ that a cell starts from: its encoder, another method's model, or that of another mixture."""
    method = cell["method"]
    before = points[method].from_
    if before is not None:
        if before not in points or points[before].from_ is not None:
            there = (name for name, point in points.items() if point.from_ is None)
            raise InputError(words.unknown(f"{params}: methods.{method}.from", before, there))
        return "/".join(["models", *map(str, {**cell, "method": before}.values())])
    phase = mixed[cell["mixture"]].from_ if "mixture" in cell else None
    if phase is not None:
        return "/".join(["models", *map(str, {**cell, "mixture": phase}.values())])
    return f"pretrain/{cell['encoder']}"


def check_names(params: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError if a section that the grid needs is missing or holds an invalid name."""
    for needed in ("fetch", "corrupt", "corrupt.conditions", "pretrain", "methods", "cells"):
        section: Any = values
        for part in needed.split("."):
            section = section.get(part)
        if not isinstance(section, dict) or not section:
            found = "missing or empty" if not section else f"found {words.shown(section)}"
            raise InputError(f"{params}: {needed}: {found}\nexpected keys with values")
        if needed not in ("corrupt", "cells"):
            names.check(section, f"{params}: {needed}")
    for part in ("fetch", "pretrain"):
        for name, one in values[part].items():
            if not isinstance(one, dict):
                raise InputError(f"{params}: {part}.{name}: found {words.shown(one)}\nexpected keys with values")


def expand(params: Path, values: dict[str, Any] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """The content of cells.yaml for this params file: for each stage, a name and its items.

    Args:
        params: the params file.
        values: its content, if not that of the file.

    Raises:
        InputError: a name is invalid, a block names a condition, method, mixture or encoder that params.yaml does not
            have, or a cell is a duplicate.
    """
    values = fresh_yaml(params) if values is None else values
    check_names(params, values)
    top, here = place(params, values)
    points = {name: method_point(params, name, value) for name, value in values["methods"].items()}
    mixed = mixtures(params, values)
    cells = _train(params, values, points, here)
    draws = dict.fromkeys((cell["condition"], cell["seed"]) for cell in cells.values())
    encoders = {
        c["encoder"]: {"model": c["model"], **_given(values["pretrain"][c["encoder"]], top)} for c in cells.values()
    }
    measured = _measure(params, points, cells, len(mixed) > 1)
    return {
        "fetch": sources.dependencies(values["fetch"]),
        **({"label": slicing.labels(params, values)} if "label" in values else {}),
        "corrupt": {f"{c}-{seed}": {"condition": c, "seed": seed, "path": f"{c}/{seed}"} for c, seed in draws},
        "pretrain": encoders,
        "train": cells,
        "measure": measured if "measure" in values else {},
        "ensemble": ensembles.expand(params, values, cells, mixed, here),
        **({"soup": ensembles.soups(params, values, cells, mixed, here)} if "soup" in values else {}),
    }
