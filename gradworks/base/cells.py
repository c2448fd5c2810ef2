"""cells.yaml: params.yaml's grid written out, one named cell per training run, for the `foreach` of dvc.yaml.

DVC multiplies lists but cannot look a named method up while it does, and a cell must depend on the files of its own
method only. So the grid is written out by `gradworks cells`, and the stage `cells` stops a run whose file is stale.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from gradworks.base import Section, fresh_yaml, names, validate, words
from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError
from gradworks.base.place import place

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Slot = str | dict[str, dict[str, Any] | None]  # an entry's name, or {name: its options}
NONE = "versions.json"  # a dependency that is there anyway, for a cell that has none of its own
OPTIONAL = ("measure", "evaluate", "report", "ensemble")  # sections that params.yaml need not have
_THERE = "task"  # a key that is there anyway, for a section that is not: DVC knows no optional parameters
_HEAD = "# Written from params.yaml by `gradworks cells`; a change here is lost.\n"


class MethodPoint(Section):
    """A named method: a point in objective x weighting x update, and the splits it trains on.

    from: another method, whose trained model it starts from (same condition, encoder and seed); none = the encoder.
    trainable: `head` freezes all but the last, linear layer. reinitialise: that layer is drawn anew.
    as_long_as: another method, whose time this one takes: its batches are so many times more as that method's step was
    measured to cost times a plain one (equal wall-clock).
    """

    objective: Slot = "supervised"
    weighting: Slot = "uniform"
    update: Slot = "erm"
    train_on: list[Literal["train", "clean"]] = Field(default_factory=lambda: ["train"])
    from_: str | None = Field(None, alias="from")
    trainable: Literal["all", "head"] = "all"
    reinitialise: bool = False
    as_long_as: str | None = None


class Block(Section):
    """Cells as a product of lists."""

    condition: list[str] = Field(min_length=1)
    method: list[str] = Field(min_length=1)
    encoder: list[str] = Field(min_length=1)
    seed: list[Seed] | None = Field(None, min_length=1)


class Ensemble(Section):
    """An ensemble of every seed of some encoders, trained with one method on one condition."""

    condition: str
    method: str
    encoders: list[str] = Field(min_length=1)


class Cells(Section):
    """The section `cells`: blocks of the grid, and the seeds of those that name none."""

    seeds: list[Seed] = Field(min_length=1)
    grid: list[Block] = Field(min_length=1)


class _Ensembles(RootModel[list[Ensemble]]):
    root: list[Ensemble] = Field(default_factory=list)


def entry_name(slot: Slot) -> str:
    """`erm` of `erm` and of `{erm: {batches: 2}}`."""
    return slot if isinstance(slot, str) else next(iter(slot))


def entry_options(slot: Slot) -> dict[str, Any]:
    """`{}` of `erm`, `{batches: 2}` of `{erm: {batches: 2}}`."""
    return {} if isinstance(slot, str) else next(iter(slot.values())) or {}


def method_point(params: Path, name: str, value: Any) -> MethodPoint:
    """`methods.NAME` validated: every slot names exactly one entry."""
    point = validate({} if value is None else value, MethodPoint, f"{params}: methods.{name}")
    for slot in ("objective", "weighting", "update"):
        chosen = getattr(point, slot)
        if isinstance(chosen, dict) and len(chosen) != 1:
            raise InputError(f"{params}: methods.{name}.{slot}: found {len(chosen)} entries, expected one")
        names.check([entry_name(chosen)], f"{params}: methods.{name}.{slot}")  # it becomes the name of a file
    if len(set(point.train_on)) < max(len(point.train_on), 1):
        raise InputError(f"{params}: methods.{name}.train_on: found {point.train_on}\nexpected train, clean, or both")
    return point


def _fetch_dependency(source: str) -> str:
    """The file or folder whose change makes a source's data change."""
    kind, _, rest = source.partition(":")
    if kind == "file":
        return rest
    return "gradworks/data/synthetic.py" if kind == "synthetic" else "gradworks/data/remote.py"


def _given(options: dict[str, Any], root: Path) -> dict[str, str]:
    """Files and folders that an encoder names, for DVC to watch; versions.json, watched anyway, where there is none."""
    folder = options.get("from")
    return {
        "from": folder if folder and (root / folder).is_dir() else NONE,  # else a name on the hub
        "text": (options.get("pretrain") or {}).get("corpus") or (options.get("vectors") or {}).get("file") or NONE,
        "vocabulary": options.get("vocabulary_file") or NONE,
    }


def _train(
    params: Path, values: dict[str, Any], points: dict[str, MethodPoint], here: str
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Every cell of the grid: name -> condition, method, encoder, seed, path and the files of its entries."""
    known = {"condition": values["corrupt"]["conditions"], "method": values["methods"], "encoder": values["pretrain"]}
    if "ensemble" in known["condition"]:
        raise InputError(f"{params}: corrupt.conditions.ensemble: the name is taken by the stage's own results")
    section = validate(values["cells"], Cells, f"{params}: cells")
    cells: dict[str, dict[str, Any]] = {}
    for number, block in enumerate(section.grid):
        where = f"{params}: cells.grid.{number}"
        for kind, there in known.items():
            for name in getattr(block, kind):
                if name not in there:
                    raise InputError(words.unknown(f"{where}.{kind}", name, there))
        for cell in itertools.product(block.condition, block.method, block.encoder, block.seed or section.seeds):
            condition, method, encoder, seed = cell
            key = "-".join(map(str, cell))
            path = "/".join(map(str, cell))
            if key in cells and cells[key]["path"] != path:
                raise InputError(f"{where}: {path} and {cells[key]['path']} are both the cell {key}\nname one anew")
            if key in cells:
                raise InputError(f"{where}: the cell {key} stands twice\nexpected each once in all blocks together")
            cells[key] = {
                **{"condition": condition, "method": method, "encoder": encoder, "seed": seed},
                "path": path,
                "start": _start(params, points, cell),
                "model": values["pretrain"][encoder].get("model"),
                "schedule": (schedule := _schedule(params, points, method, encoder, here)),
                "times": shlex.quote(schedule),  # as a shell takes it
                **{slot: entry_name(getattr(points[method], slot)) for slot in ("objective", "weighting", "update")},
            }
    for key, cell in cells.items():
        before = cell["start"].removeprefix("models/")
        if before != cell["start"] and before.replace("/", "-") not in cells:
            raise InputError(
                f"{params}: methods.{cell['method']}.from: the cell {key} starts from {before.replace('/', '-')}\n"
                "expected that cell in the grid too"
            )
        other = points[cell["method"]].as_long_as
        if other and not any((c["method"], c["encoder"]) == (other, cell["encoder"]) for c in cells.values()):
            raise InputError(
                f"{params}: methods.{cell['method']}.as_long_as: no cell of {other}, {cell['encoder']} in the grid\n"
                "expected one, whose cost is measured"
            )
    return cells


def _schedule(params: Path, points: dict[str, MethodPoint], method: str, encoder: str, here: str) -> str:
    """The file that says how much longer a cell trains; versions.json, watched anyway, where it trains as long as all.

    Raises:
        InputError: it would take the time of a method that is not there, is scheduled itself, or is a second phase.
    """
    other = points[method].as_long_as
    if other is None:
        return NONE
    where = f"{params}: methods.{method}"
    if other not in points or points[other].as_long_as:
        there = (name for name, point in points.items() if not point.as_long_as)
        raise InputError(words.unknown(f"{where}.as_long_as", other, there))
    if points[method].from_:
        raise InputError(f"{where}: found both from and as_long_as\nexpected one of them")
    return f"{here}runs/schedule/{encoder}/{other}.json"


def _measure(
    params: Path, points: dict[str, MethodPoint], cells: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """A method's cost on an encoder is measured once: on the data, and from the start, of its first cell."""
    made: dict[str, dict[str, Any]] = {}
    for cell in cells.values():
        if points[cell["method"]].as_long_as is None:  # its steps are those of another method
            item = {key: value for key, value in cell.items() if key not in ("path", "schedule", "times")}
            key = f"{cell['encoder']}-{cell['method']}"
            first = made.setdefault(key, item)
            if first["method"] != cell["method"]:
                raise InputError(
                    f"{params}: {cell['encoder']}/{cell['method']} and {first['encoder']}/{first['method']} "
                    f"are both the measurement {key}\nname one anew"
                )
    return made


def _start(params: Path, points: dict[str, MethodPoint], cell: tuple[str, str, str, int]) -> str:
    """The folder of runs/ that a cell starts from: its encoder, or the model that another method trained."""
    condition, method, encoder, seed = cell
    before = points[method].from_
    if before is None:
        return f"pretrain/{encoder}"
    if before not in points or points[before].from_ is not None:
        there = (name for name, point in points.items() if point.from_ is None)
        raise InputError(words.unknown(f"{params}: methods.{method}.from", before, there))
    return f"models/{condition}/{before}/{encoder}/{seed}"


def _ensemble(params: Path, values: dict[str, Any], cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    there = {(cell["condition"], cell["method"], cell["encoder"]) for cell in cells.values()}
    made = {}
    for number, one in enumerate(validate(values.get("ensemble") or [], _Ensembles, f"{params}: ensemble").root):
        if len(set(one.encoders)) < len(one.encoders):
            raise InputError(f"{params}: ensemble.{number}.encoders: found {one.encoders}\nexpected each once")
        for encoder in one.encoders:
            if (one.condition, one.method, encoder) not in there:
                raise InputError(
                    f"{params}: ensemble.{number}: no cell of {one.condition}, {one.method}, {encoder} in the grid"
                )
        key = f"{one.condition}-{one.method}-{'+'.join(one.encoders)}"
        if key in made:
            raise InputError(
                f"{params}: ensemble.{number}: {key} stands twice, or another has these names\nname one anew"
            )
        seeds = dict.fromkeys(
            str(c["seed"]) for c in cells.values()
            if (c["condition"], c["method"]) == (one.condition, one.method) and c["encoder"] in one.encoders
        )  # fmt: skip
        made[key] = {
            **{"condition": one.condition, "method": one.method},
            **{"encoders": " ".join(one.encoders), "seeds": " ".join(seeds)},
        }
    return made


def check_names(params: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError when a section that the grid is made of is missing, or holds a name that is none."""
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
    """What cells.yaml must hold for this params file: for each stage, a name and its items.

    Args:
        params: the params file.
        values: what it holds, where that is not what lies there.

    Raises:
        InputError: a name is none, a block names a condition, method or encoder that params.yaml does not have, a cell
            stands twice.
    """
    values = fresh_yaml(params) if values is None else values
    check_names(params, values)
    top, here = place(params, values)
    points = {name: method_point(params, name, value) for name, value in values["methods"].items()}
    cells = _train(params, values, points, here)
    draws = dict.fromkeys((cell["condition"], cell["seed"]) for cell in cells.values())
    encoders = {
        c["encoder"]: {"model": c["model"], **_given(values["pretrain"][c["encoder"]], top)} for c in cells.values()
    }
    return {
        "fetch": {
            name: {"dep": _fetch_dependency(str(source.get("from", "")))} for name, source in values["fetch"].items()
        },
        "corrupt": {f"{c}-{seed}": {"condition": c, "seed": seed, "path": f"{c}/{seed}"} for c, seed in draws},
        "pretrain": encoders,
        "train": cells,
        "measure": _measure(params, points, cells),
        "ensemble": (ensembles := _ensemble(params, values, cells)),
        "report": {"ensembles": f"{here}runs/ensemble" if ensembles else NONE},
    }


def text(params: Path, values: dict[str, Any] | None = None) -> str:
    """The text of cells.yaml; see `expand`."""
    import yaml

    values = fresh_yaml(params) if values is None else values
    top, here = place(params, values)
    made: dict[str, Any] = {"at": shlex.quote(here) if here else ""}
    if "root" not in values:
        made["root"] = os.path.relpath(top, params.absolute().parent.resolve())
    if "here" not in values:
        made["here"] = here
    made["sections"] = {name: name if name in values else _THERE for name in OPTIONAL}
    made["each"] = expand(params, values)
    return _HEAD + yaml.safe_dump(made, sort_keys=False, width=120, default_flow_style=None)


def write(params: Path) -> Path:
    """Write cells.yaml beside the params file, and dvc.yaml as the root has it; returns the former's path."""
    path = params.parent / "cells.yaml"
    for file, made in ((path, text(params)), (params.parent / "dvc.yaml", _definition(params))):
        if made is not None:
            with atomic_file(file) as temporary:
                temporary.write_text(made)
    return path


def _definition(params: Path) -> str | None:
    """The text of the root's dvc.yaml where another folder should have a copy; DVC reads no links at a revision."""
    top = place(params, fresh_yaml(params))[0] / "dvc.yaml"
    own = params.parent / "dvc.yaml"
    if not top.is_file() or (own.exists() and own.samefile(top) and not own.is_symlink()):
        return None
    return top.read_text()


def check(params: Path) -> None:
    """Raises InputError when cells.yaml is not what params.yaml asks for, or dvc.yaml beside it not the root's."""
    for name, made in (("cells.yaml", text(params)), ("dvc.yaml", _definition(params))):
        path = params.parent / name
        if made is not None and (not path.exists() or path.read_text() != made):
            what = f"what {params} asks for" if name == "cells.yaml" else "that of the root"
            raise InputError(f"{path}: not {what}\nwrite it anew: gradworks cells {params}")
