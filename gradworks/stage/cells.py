"""cells.yaml: params.yaml's grid written out, one named cell per training run, for the `foreach` of dvc.yaml.

DVC multiplies lists but cannot look a named method up while it does, and a cell must depend on the files of its own
method only. So the grid is written out by `gradworks cells`, and the stage `cells` stops a run whose file is stale.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, RootModel

from gradworks.stage import Section, read_yaml, validate
from gradworks.stage.artefacts import atomic_file
from gradworks.stage.errors import InputError

Slot = str | dict[str, dict[str, Any]]  # an entry's name, or {name: its options}
_HEAD = "# Written from params.yaml by `gradworks cells`; a change here is lost.\n"


class MethodPoint(Section):
    """A named method: a point in objective x weighting x update, and the splits it trains on.

    from: another method, whose trained model it starts from (same condition, encoder and seed); none = the encoder.
    trainable: `head` freezes all but the last, linear layer. reinitialise: that layer is drawn anew.
    """

    objective: Slot = "supervised"
    weighting: Slot = "uniform"
    update: Slot = "erm"
    train_on: list[Literal["train", "clean"]] = Field(default_factory=lambda: ["train"])
    from_: str | None = Field(None, alias="from")
    trainable: Literal["all", "head"] = "all"
    reinitialise: bool = False


class Block(Section):
    """Cells as a product of lists."""

    condition: list[str] = Field(min_length=1)
    method: list[str] = Field(min_length=1)
    encoder: list[str] = Field(min_length=1)
    seed: list[int] | None = None


class Ensemble(Section):
    """An ensemble of every seed of some encoders, trained with one method on one condition."""

    condition: str
    method: str
    encoders: list[str] = Field(min_length=1)


class Cells(Section):
    """The section `cells`: blocks of the grid, and the seeds of those that name none."""

    seeds: list[int] = Field(min_length=1)
    grid: list[Block] = Field(min_length=1)


class _Ensembles(RootModel[list[Ensemble]]):
    root: list[Ensemble] = Field(default_factory=list)


def entry_name(slot: Slot) -> str:
    """`erm` of `erm` and of `{erm: {batches: 2}}`."""
    return slot if isinstance(slot, str) else next(iter(slot))


def entry_options(slot: Slot) -> dict[str, Any]:
    """`{}` of `erm`, `{batches: 2}` of `{erm: {batches: 2}}`."""
    return {} if isinstance(slot, str) else next(iter(slot.values()))


def method_point(params: Path, name: str, value: Any) -> MethodPoint:
    """`methods.NAME` validated: every slot names exactly one entry."""
    point = validate(value or {}, MethodPoint, f"{params}: methods.{name}")
    for slot in ("objective", "weighting", "update"):
        chosen = getattr(point, slot)
        if isinstance(chosen, dict) and len(chosen) != 1:
            raise InputError(f"{params}: methods.{name}.{slot}: found {len(chosen)} entries, expected one")
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
        "from": folder if folder and (root / folder).is_dir() else "versions.json",  # else a name on the hub
        "text": (options.get("pretrain") or {}).get("corpus")
        or (options.get("vectors") or {}).get("file")
        or "versions.json",
        "vocabulary": options.get("vocabulary_file") or "versions.json",
    }


def _train(params: Path, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every cell of the grid: name -> condition, method, encoder, seed, path and the files of its entries."""
    points = {name: method_point(params, name, value) for name, value in values["methods"].items()}
    known = {
        "condition": values["corrupt"].get("conditions") or {},
        "method": values["methods"],
        "encoder": values["pretrain"],
    }
    if "ensemble" in known["condition"]:
        raise InputError(f"{params}: corrupt.conditions.ensemble: the name is taken by the stage's own results")
    section = validate(values["cells"], Cells, f"{params}: cells")
    cells: dict[str, dict[str, Any]] = {}
    for number, block in enumerate(section.grid):
        where = f"{params}: cells.grid.{number}"
        for kind, names in known.items():
            for name in getattr(block, kind):
                if name not in names:
                    raise InputError(f"{where}.{kind}: found {name!r}\nexpected one of: {', '.join(names)}")
        for cell in itertools.product(block.condition, block.method, block.encoder, block.seed or section.seeds):
            condition, method, encoder, seed = cell
            key = "-".join(map(str, cell))
            if key in cells:
                raise InputError(f"{where}: the cell {key} stands in an earlier block too")
            cells[key] = {
                **{"condition": condition, "method": method, "encoder": encoder, "seed": seed},
                "path": "/".join(map(str, cell)),
                "start": _start(params, points, cell),
                "model": values["pretrain"][encoder].get("model"),
                **{slot: entry_name(getattr(points[method], slot)) for slot in ("objective", "weighting", "update")},
            }
    for key, cell in cells.items():
        before = cell["start"].removeprefix("models/")
        if before != cell["start"] and before.replace("/", "-") not in cells:
            raise InputError(
                f"{params}: methods.{cell['method']}.from: the cell {key} starts from {before.replace('/', '-')}\n"
                "expected that cell in the grid too"
            )
    return cells


def _start(params: Path, points: dict[str, MethodPoint], cell: tuple[str, str, str, int]) -> str:
    """The folder of runs/ that a cell starts from: its encoder, or the model that another method trained."""
    condition, method, encoder, seed = cell
    before = points[method].from_
    if before is None:
        return f"pretrain/{encoder}"
    if before not in points or points[before].from_ is not None:
        names = ", ".join(name for name, point in points.items() if point.from_ is None)
        raise InputError(f"{params}: methods.{method}.from: found {before!r}\nexpected one of: {names}")
    return f"models/{condition}/{before}/{encoder}/{seed}"


def _ensemble(params: Path, values: dict[str, Any], cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    there = {(cell["condition"], cell["method"], cell["encoder"]) for cell in cells.values()}
    made = {}
    for number, one in enumerate(validate(values.get("ensemble") or [], _Ensembles, f"{params}: ensemble").root):
        for encoder in one.encoders:
            if (one.condition, one.method, encoder) not in there:
                raise InputError(
                    f"{params}: ensemble.{number}: no cell of {one.condition}, {one.method}, {encoder} in the grid"
                )
        key = f"{one.condition}-{one.method}-{'+'.join(one.encoders)}"
        seeds = dict.fromkeys(
            str(c["seed"]) for c in cells.values()
            if (c["condition"], c["method"]) == (one.condition, one.method) and c["encoder"] in one.encoders
        )  # fmt: skip
        made[key] = {
            **{"condition": one.condition, "method": one.method},
            **{"encoders": " ".join(one.encoders), "seeds": " ".join(seeds)},
        }
    return made


def expand(params: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What cells.yaml must hold for this params file: for each stage, a name and its items.

    Raises:
        InputError: a block names a condition, method or encoder that params.yaml does not have, or a cell stands twice.
    """
    values = read_yaml(params)
    for needed in ("fetch", "corrupt", "pretrain", "methods", "cells"):
        if not values.get(needed):
            raise InputError(f"{params}: {needed}: missing or empty")
    cells = _train(params, values)
    draws = dict.fromkeys((cell["condition"], cell["seed"]) for cell in cells.values())
    root = params.parent / values.get("root", ".")
    encoders = {
        c["encoder"]: {"model": c["model"], **_given(values["pretrain"][c["encoder"]], root)} for c in cells.values()
    }
    return {
        "fetch": {name: {"dep": _fetch_dependency(source.get("from", ""))} for name, source in values["fetch"].items()},
        "corrupt": {f"{c}-{seed}": {"condition": c, "seed": seed, "path": f"{c}/{seed}"} for c, seed in draws},
        "pretrain": encoders,
        "train": cells,
        "ensemble": _ensemble(params, values, cells),
    }


def text(params: Path) -> str:
    """The text of cells.yaml."""
    import yaml

    return _HEAD + yaml.safe_dump({"each": expand(params)}, sort_keys=False, width=120, default_flow_style=None)


def write(params: Path) -> Path:
    """Write cells.yaml beside the params file, atomically; returns its path."""
    path = params.parent / "cells.yaml"
    with atomic_file(path) as temporary:
        temporary.write_text(text(params))
    return path


def check(params: Path) -> None:
    """Raises InputError when cells.yaml is not what params.yaml asks for."""
    path = params.parent / "cells.yaml"
    if not path.exists() or path.read_text() != text(params):
        raise InputError(f"{path}: not what {params} asks for\nwrite it anew: gradworks cells {params}")
