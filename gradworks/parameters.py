"""Checks a whole params file before anything runs.

Each section is validated by the model with which its stage reads it, each method is built, and names are looked up
across sections, so that a mistake is found in seconds and not after an hour of training.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gradworks import cell, schedules, tasks
from gradworks.base import Section, cells, fresh_yaml, grid, points, run_cache, slicing, validate, words
from gradworks.base.errors import InputError
from gradworks.base.held import at
from gradworks.base.place import place
from gradworks.data import corruptions, labelling, predictions, sizes, slices, splits
from gradworks.named_files import not_there
from gradworks.report.settings import Report, Target, check_steps
from gradworks.tasks.kinds import Kind
from gradworks.tasks.kinds._shared import sliced, together

_SECTIONS = (
    "root", "here", "threads", "device", "gpu", "task", "tasks", "mixtures", "fetch", "label", "corrupt", "pretrain",
    "methods", "train", "slice", "measure", "evaluate", "report", "cells", "ensemble",
    "soup",
)  # fmt: skip
_LEFT_OUT = ("root", "here", *cells.OPTIONAL)


class _Gpu(Section):
    kind: str
    count: int = Field(ge=0)
    nodes: int = Field(1, ge=1)


class _Surroundings(Section):
    """Top-level values that are not sections."""

    threads: int = Field(ge=1)
    device: Literal["cpu", "cuda", "auto"]
    gpu: _Gpu
    task: str


def check(params: Path, values: dict[str, Any] | None = None, data: bool = False) -> None:
    """Check a params file.

    Args:
        params: the file.
        values: its content, if not that of the file.
        data: whether the files that it names must be there.

    Raises:
        InputError: the first mistake.
    """
    values = fresh_yaml(params) if values is None else values
    for name in values:
        if name not in _SECTIONS and not str(name).startswith("x-"):
            said = f"{params}: {name}: unknown section{words.near(name, _SECTIONS)}"
            raise InputError(f"{said}\nexpected one of: {', '.join(_SECTIONS)}, x-…")
    for name in _SECTIONS:
        if name not in values and name not in _LEFT_OUT:
            raise InputError(f"{params}: {name}: missing")
    top, _ = place(params, values)
    one = validate({name: values[name] for name in _Surroundings.model_fields}, _Surroundings, f"{params}:")
    task = _task(params, values, one.task, "task")
    grid.check_names(params, values)
    run_cache.refuse(params, values)
    _importable(top)
    for key in ("fetch", "corrupt.splits", "corrupt.conditions", "pretrain"):
        section = at(values, key)
        for name, found in section.items() if isinstance(section, dict) else ():
            _no_blanks(found, f"{params}: {key}.{name}")
    sources = _sources(params, values, task)
    if "label" in values:
        sources |= labelling.sources(
            list(slicing.labels(params, values)), values["label"], task, top, f"{params}: label", sources
        )
    drawn = _splits(params, values, task, sources)
    kinds = _encoders(params, values, task)
    _methods(params, values, task)
    _train(params, values, task, kinds, drawn)
    validate(_given(values, "measure"), _program("measure").Measure, f"{params}: measure")
    _figures(params, values, task, sources[drawn.splits.test.from_.split("/")[0]].kind == "synthetic")
    made = grid.expand(params, values)
    _slices(params, values, task, top)
    _mixtures(params, values, sources)
    _grid(params, values, made, kinds)
    _data(params, values, top, sources, drawn, data)


def _given(values: Mapping[str, Any], name: str) -> Any:
    """An optional section."""
    found = values.get(name)
    return {} if found is None else found


def _no_blanks(value: Any, where: str) -> None:
    """Raises InputError for a key without a value, which would read as a missing key, or a negative seed."""
    for key, found in value.items() if isinstance(value, dict) else ():
        if found is None:
            raise InputError(f"{where}.{key}: found nothing\nexpected a value; leave the key out where none is meant")
        if key == "seed" and isinstance(found, int) and found < 0:
            raise InputError(f"{where}.seed: found {found}\nexpected a number of at least 0")
        _no_blanks(found, f"{where}.{key}")


def _importable(top: Path) -> None:
    """Make components/ importable: it is not installed, its programs are those of the checkout."""
    if importlib.util.find_spec("components") is None:
        sys.path.insert(0, str(top))


def _program(name: str) -> Any:
    return importlib.import_module(f"components.{name}")


def _task(params: Path, values: Mapping[str, Any], name: str, key: str) -> Kind:
    return tasks.kind(tasks.find(name, values, str(params), key))


def _sources(params: Path, values: Mapping[str, Any], task: Kind) -> dict[str, Any]:
    made = {}
    for name, given in values["fetch"].items():
        where = f"{params}: fetch.{name}"
        source = made[name] = validate(given, _program("fetch").Source, where)
        own = _task(params, values, source.task, f"fetch.{name}.task") if source.task else task
        for column in source.columns or {}:
            if column not in (known := (*own.spec.texts, "label", "id")):
                raise InputError(words.unknown(f"{where}.columns", column, known))
        _program("fetch").asked_of(source, own, where)
        if source.kind == "synthetic" and own.name != "nli":
            raise InputError(f"{where}: synthetic:nli has examples of the task nli, not of {own.name}\nadd `task: nli`")
        if source.ids is not None and source.ids not in values["fetch"]:
            raise InputError(words.unknown(f"{where}.ids", source.ids, values["fetch"]))
        files = list((source.files or {}).values())
        twice = next((file for file in files if files.count(file) > 1), None)
        if twice:
            raise InputError(f"{where}.files: {twice} is two splits\nexpected one file for each")
    return made


def _splits(params: Path, values: Mapping[str, Any], task: Kind, sources: Mapping[str, Any]) -> sizes.Sizes:
    where = f"{params}: corrupt"
    given = values["corrupt"]
    for name in given:
        if name not in (known := ("splits", "parts", "between_tasks", "conditions")):
            raise InputError(words.unknown(where, name, known))
    if given.get("between_tasks", "drop") not in ("drop", "keep"):
        raise InputError(f"{where}.between_tasks: found {words.shown(given['between_tasks'])}\nexpected drop or keep")
    drawn = _drawn(given.get("splits") or {}, sources, f"{where}.splits", task)
    for name, condition in given["conditions"].items():
        at = f"{where}.conditions.{name}"
        found = validate({} if condition is None else condition, corruptions.Condition, at)
        sizes.check_condition(found, task, drawn, at)
    return drawn


def _drawn(given: Any, sources: Mapping[str, Any], where: str, task: Kind) -> sizes.Sizes:
    """The four splits of one task, from known sources."""
    asked = validate(given, splits.Splits, where)
    rows = {}
    for name in splits.NAMES:
        source, split = getattr(asked, name).from_.split("/")
        if source not in sources:
            raise InputError(words.unknown(f"{where}.{name}.from", source, sources))
        there = sources[source].rows or sources[source].files
        if there is not None and split not in there:
            found = f"{source}/{split}"
            raise InputError(words.unknown(f"{where}.{name}.from", found, [f"{source}/{one}" for one in there]))
        if sources[source].rows:
            rows[f"{source}/{split}"] = sources[source].rows[split]
            sizes.check_columns(getattr(asked, name), f"{where}.{name}.where")
    return sizes.drawn(asked, rows, where, task.together is not None)


def _mixtures(params: Path, values: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Parts must be tasks with splits, and the schedule must meet the needs of each method."""
    mixed = grid.mixtures(params, values)
    found = {m: {part: _task(params, values, part, f"mixtures.{m}.parts") for part in mixed[m].parts} for m in mixed}
    parts = values["corrupt"].get("parts")
    if parts is not None and not isinstance(parts, dict):
        raise InputError(f"{params}: corrupt.parts: found {words.shown(parts)}\nexpected splits by task")
    for name, given in (parts or {}).items():
        task = _task(params, values, name, f"corrupt.parts.{name}")
        used = {part for one in mixed.values() for part in one.parts} - {values["task"]}
        if name not in used:
            raise InputError(words.unknown(f"{params}: corrupt.parts", name, sorted(used)))
        _drawn(given or {}, sources, f"{params}: corrupt.parts.{name}", task)
    trained = [(name, block) for block in values["cells"]["grid"] for name in block.get("mixture") or list(mixed)]
    for name, one in mixed.items():
        where = f"{params}: mixtures.{name}"
        for part in one.parts:
            if part not in (values["task"], *(parts or {})):
                raise InputError(f"{where}.parts: no splits of {part!r}\nexpected corrupt.parts.{part}")
        if one.select not in (None, "mean", *one.parts):
            raise InputError(words.unknown(f"{where}.select", one.select, ("mean", *one.parts)))
        blocks = [block for mixture, block in trained if mixture == name]
        together.check_rows(one, found[name], values, blocks, where)
        methods = dict.fromkeys(m for block in blocks for m in block["method"])
        for method in methods:
            point = points.method_point(params, method, values["methods"][method])
            for task in together.kinds_of(found[name], one.sets).values():
                made = cell.method_of(params, method, point, task, 0)
            schedules.check(one.chosen, made.needs, list(one.streams), f"{where}.schedule, for methods.{method}")
            together.check_method(made, one.sets, where, method)


def _slices(params: Path, values: Mapping[str, Any], task: Kind, top: Path) -> None:
    if "slice" in values:
        found = slices.chosen(validate(values["slice"], slices.Slices, f"{params}: slice"), top, f"{params}: slice")
        sliced.check_mixtures(grid.mixtures(params, values), found, task, f"{params}: mixtures")


def _encoders(params: Path, values: Mapping[str, Any], task: Kind) -> dict[str, str]:
    from gradworks import models

    kinds = {}
    for name, given in values["pretrain"].items():
        where = f"{params}: pretrain.{name}"
        if "model" not in given:
            raise InputError(f"{where}.model: missing")
        try:
            kind = models.find(given["model"], f"{where}.model")
        except InputError as error:
            known = str(error).partition("expected one of: ")[2].split(", ")
            raise InputError(words.unknown(f"{where}.model", given["model"], known)) from None
        options = validate(given, kind.Options, where)
        if models.reads(given["model"]) != task.reads:
            found = f"{given['model']}, which reads {models.reads(given['model'])}"
            raise InputError(f"{where}.model: found {found}\nexpected one for {task.reads}, which {task.name} has")
        if task.reads == "pictures":
            kinds[name] = given["model"]
            continue
        own = getattr(options, "from_", None) or options.vocabulary_file or getattr(options, "vectors", None)
        if not own and not options.vocabulary:
            raise InputError(f"{where}: no vocabulary\nexpected: vocabulary, a number of tokens, or vocabulary_file")
        kinds[name] = given["model"]
    return kinds


def _methods(params: Path, values: Mapping[str, Any], task: Kind) -> None:
    from gradworks.methods._shared import entries

    for name, given in values["methods"].items():
        point = points.method_point(params, name, given)
        for slot in ("objective", "weighting", "update"):
            chosen = points.entry_name(getattr(point, slot))
            if chosen not in (known := entries.names(slot)):
                raise InputError(words.unknown(f"{params}: methods.{name}.{slot}", chosen, known))
        if point.trainable == "head" and not task.size:
            said = f"{params}: methods.{name}.trainable: found head"
            raise InputError(f"{said}\nexpected a task with a head: {task.spec.kind} compares encodings")
        cell.method_of(params, name, point, task, 0)


def _train(params: Path, values: Mapping[str, Any], task: Kind, kinds: Mapping[str, str], drawn: sizes.Sizes) -> None:
    import torch

    where = f"{params}: train"
    train = validate(values["train"] or {}, cell.Train, where)
    task.check_metric(train.select.metric, f"{where}.select.metric")
    for key in ("batch", "micro_batch", "clean_batch"):
        if task.reads == "pictures" and not isinstance(getattr(train, key), int | None):
            raise InputError(f"{where}.{key}: found tokens\nexpected a number of examples: pictures have no tokens")
    known = [n for n in dir(torch.optim) if n[0].isupper() and n not in ("LBFGS", "Optimizer", "SparseAdam")]
    if train.optimizer not in known:
        raise InputError(words.unknown(f"{where}.optimizer", train.optimizer, known))
    if isinstance(train.learning_rate, dict):
        for name in train.learning_rate:
            if name not in kinds.values():
                raise InputError(words.unknown(f"{where}.learning_rate", name, sorted(set(kinds.values()))))
        for encoder, kind in kinds.items():
            if kind not in train.learning_rate:
                raise InputError(f"{where}.learning_rate: none for {kind}, the model of pretrain.{encoder}")
    if isinstance(train.batch, int):
        drawn.at_most("train", train.batch, f"{where}.batch")
    drawn.at_most("clean", train.clean_batch, f"{where}.clean_batch")
    for name, kind in kinds.items():
        positions = values["pretrain"][name].get("positions", 512)
        if kind == "transformer" and "from" not in values["pretrain"][name] and train.max_length > positions:
            raise InputError(f"{where}.max_length: found {train.max_length}\n{name} has {positions} positions")


def _figures(params: Path, values: Mapping[str, Any], task: Kind, synthetic: bool) -> None:
    """What is evaluated and reported."""
    evaluate = validate(_given(values, "evaluate"), predictions.Evaluate, f"{params}: evaluate")
    report = validate(_given(values, "report"), Report, f"{params}: report")
    if synthetic:
        for column in evaluate.by:
            sizes.check_column(column, (), f"{params}: evaluate.by")
    for name in ("primary", "secondary"):
        target: Target | None = getattr(report, name)
        for column in target.where if target else ():
            if column not in evaluate.by:
                said = words.unknown(f"{params}: report.{name}.where", column, evaluate.by)
                raise InputError(f"{said}, the columns of evaluate.by")
            if synthetic and target:
                sizes.check_column(column, [str(target.where[column])], f"{params}: report.{name}.where")
        if target and target.metric not in task.reported:
            raise InputError(words.unknown(f"{params}: report.{name}.metric", target.metric, task.reported))


def _grid(params: Path, values: Mapping[str, Any], made: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """All methods that the report compares must be trained."""
    report = validate(_given(values, "report"), Report, f"{params}: report")
    trained = list(dict.fromkeys(one["method"] for one in made["train"].values()))
    if report.baseline not in values["methods"]:
        raise InputError(words.unknown(f"{params}: report.baseline", report.baseline, values["methods"]))
    if report.baseline not in trained:
        raise InputError(f"{params}: report.baseline: no cell of {report.baseline} in the grid\nexpected one")
    check_steps(report.waterfall, made, f"{params}: report.waterfall")
    for name, control in report.controls.items():
        for one in (name, control):
            if one not in values["methods"]:
                raise InputError(words.unknown(f"{params}: report.controls", one, values["methods"]))


def _data(
    params: Path, values: Mapping[str, Any], top: Path, sources: Mapping[str, Any], drawn: sizes.Sizes, needed: bool
) -> None:  # fmt: skip
    """Named files must exist if `needed`, and no split may be read from another's file."""
    from gradworks.data import files

    found: dict[str, dict[str, Path]] = {}
    for name, source in sources.items():
        folder = top / source.from_.partition(":")[2]
        if source.kind == "file" and (needed or folder.exists()):
            own = _task(params, values, source.task or values["task"], f"fetch.{name}.task")
            found[name] = files.splits_of(folder, source.files, f"{params}: fetch.{name}", own.reads)
    drawn.check_files(found, f"{params}: corrupt.splits")
    for path in dict.fromkeys(getattr(drawn.splits, split).from_ for split in splits.NAMES):
        name, _, split = path.partition("/")
        if name in found:
            where = f"{params}: fetch.{name}"
            own = _task(params, values, sources[name].task or values["task"], f"fetch.{name}.task")
            asked = _program("fetch").asked_of(sources[name], own, where)
            files.check_columns(own, found[name][split], sources[name].layout, asked)
    missing = not_there(params, values)
    if missing and needed:
        path, _, key = missing[0].partition(", of ")
        raise InputError(f"{params}: {key}: {path}: no such file")
