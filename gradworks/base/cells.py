"""cells.yaml and dvc.yaml beside a params.yaml, both written by `gradworks cells`.

cells.yaml is the expanded grid, for the `foreach` of dvc.yaml. dvc.yaml is rendered from a template with the stages and
dependencies of this params.yaml. The stage `cells` stops a run whose files are stale.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradworks.base import fresh_yaml, run_cache
from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError
from gradworks.base.grid import ALWAYS_PRESENT, expand, own_tasks
from gradworks.base.place import place

OPTIONAL = (
    "tasks",
    "mixtures",
    "label",
    "slice",
    "measure",
    "evaluate",
    "report",
    "ensemble",
    "soup",
)  # optional sections
_TEMPLATE = Path(__file__).parent.parent / "dvc.yaml.j2"  # not in base/, on which every stage depends
_HEAD = "# Written from params.yaml by `gradworks cells`; a change here is lost.\n"


def text(params: Path, values: dict[str, Any] | None = None) -> str:
    """The text of cells.yaml; see `grid.expand`.

    Args:
        params: the params file.
        values: its content, if not that of the file.
    """
    import yaml

    values = fresh_yaml(params) if values is None else values
    top, here = place(params, values)
    made: dict[str, Any] = {"at": shlex.quote(here) if here else ""}
    if "root" not in values:
        made["root"] = os.path.relpath(top, params.absolute().parent.resolve())
    if "here" not in values:
        made["here"] = here
    made["each"] = expand(params, values)
    return _HEAD + yaml.safe_dump(made, sort_keys=False, width=120, default_flow_style=None)


def definition(params: Path, values: dict[str, Any] | None = None) -> str:
    """The text of dvc.yaml: the template with the stages, files and sections that this params file has.

    Args:
        params: the params file.
        values: its content, if not that of the file.
    """
    import jinja2

    values = fresh_yaml(params) if values is None else values
    each = expand(params, values)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        **{"line_statement_prefix": "%%", "line_comment_prefix": "##", "keep_trailing_newline": True},
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(_asked(values, each)).lstrip("\n")


def _asked(values: Mapping[str, Any], each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The template's variables."""

    def optional(*sections: str) -> list[str]:
        named = [one for one in sections if one in values]
        return [f"tasks.{task}" for task in own if "tasks" in named] + [one for one in named if one != "tasks"]

    def given(*sections: str) -> str:
        return "".join(f", {one}" for one in optional(*sections))

    own = own_tasks(values)
    encoders, cells = each["pretrain"].values(), each["train"].values()
    mixed = values.get("mixtures") or {}
    several = "${item.mixture}/" if len(mixed) > 1 else ""
    count, nodes = ((values.get("gpu") or {}).get(key, 0) for key in ("count", "nodes"))
    together = isinstance(count, int) and count > 1  # which changes the bits of a cell
    apart = isinstance(nodes, int) and nodes > 1  # as this does
    return {
        "has": [stage for stage in ("measure", "ensemble") if each[stage]]
        + [s for s in ("label", "slice") if s in values]
        + [s for s in ("soup",) if each.get(s)],
        "optional": optional,
        "given": given,
        "own": given("tasks"),
        "tagger": any("tagger" in source for source in each["fetch"].values()),
        "parts": "".join(f", corrupt.{one}" for one in ("parts", "between_tasks") if one in values["corrupt"]),
        "sizes": run_cache.sizes(values["corrupt"]),
        "files": [name for name in ("from", "text", "vocabulary") if any(e[name] != ALWAYS_PRESENT for e in encoders)],
        "schedules": "${item.times}" if any(cell["times"] for cell in cells) else "",
        "labels": " --labels ${at}runs/label" if "label" in values else "",
        "sliced": "${item.sliced}" if any(cell.get("sliced") for cell in cells) else "",
        "of_slices": " --slices ${at}runs/slice/${item.condition}/${item.seed}" if "slice" in values else "",
        "slice_file": (values.get("slice") or {}).get("file"),
        "longer": any(cell["schedule"] != ALWAYS_PRESENT for cell in cells),
        "schedule": "${item.mixture_schedule}" if mixed else "single",
        "flag": " --mixture ${item.mixture}" if mixed else "",
        "mixture": ', "mixtures.${item.mixture}"' if mixed else "",
        "gpus": ", gpu.count" * together + ", gpu.nodes" * apart,
        # DVC misses a parameter that is dropped later
        "processes": " --processes ${gpu.count}" * together + " --nodes ${gpu.nodes}" * apart,
        "nodes": ', nodes: "${gpu.nodes}"' * apart,
        "one_gpu": "1" if together else '"${gpu.count}"',  # of stages that use one
        "measured": f"{several}${{item.encoder}}/${{item.method}}",
        "trained": "${item.condition}/${item.method}" + ("/${item.mixture}" if several else ""),
        **_members(each["ensemble"], "/${item.mixture}" if several else ""),
    }


def _members(items: Mapping[str, Mapping[str, str]], mixture: str) -> dict[str, Any]:
    """The template's variables of the stage `ensemble`: folders of members; several where one has several."""
    first: Mapping[str, str] = next(iter(items.values()), {})
    more = sorted((name for name in first if name.startswith("folder") and name != "folders"), key=len)
    one = "runs/evaluate/${item.condition}/${item.method}" + mixture
    return {
        "rule": "${item.rule}" if "rule" in first else "",
        "member_folders": "${item.folders}" if more else f"${{at}}{one}",
        "members": [f"${{item.{name}}}" for name in more] or [f"${{here}}{one}"],
    }


def files(params: Path, values: dict[str, Any] | None = None) -> dict[str, str]:
    """Name and text of the two files."""
    values = fresh_yaml(params) if values is None else values
    return {"cells.yaml": text(params, values), "dvc.yaml": definition(params, values)}


def write(params: Path) -> Path:
    """Write cells.yaml and dvc.yaml beside the params file; returns the former's path."""
    for name, made in files(params).items():
        with atomic_file(params.with_name(name)) as temporary:
            temporary.write_text(made)
    return params.with_name("cells.yaml")


def check(params: Path) -> None:
    """Raises InputError when cells.yaml or dvc.yaml is not what params.yaml asks for."""
    for name, made in files(params).items():
        path = params.with_name(name)
        if not path.exists() or path.read_text() != made:
            raise InputError(f"{path}: not what {params} asks for\nrewrite it: gradworks cells {params}")
