"""The stages of dvc.yaml, how often each runs, and the provenance of the figures."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

# stage -> the stages whose outputs it reads
STAGES = {
    "fetch": (),
    "corrupt": ("fetch",),
    "pretrain": ("fetch",),
    "train": ("corrupt", "pretrain"),
    "measure": ("corrupt", "pretrain"),
    "evaluate": ("corrupt", "train"),
    "ensemble": ("evaluate",),
    "report": ("corrupt", "train", "measure", "evaluate", "ensemble"),
}
# of those that only some benchmarks have: what it reads, and who reads it
OPTIONAL = {
    "label": (("fetch",), ("corrupt", "pretrain", "report")),
    "slice": (("corrupt",), ("train", "measure", "evaluate")),
}
# sections of params.yaml that determine a result, and so enter the digest
SECTIONS = (
    "task", "threads", "device", "fetch", "corrupt", "pretrain", "methods", "train", "evaluate", "report", "cells",
    "ensemble",
)  # fmt: skip


def stages(inputs: Inputs) -> list[dict[str, Any]]:
    """For each stage its name, how many runs are asked for, how many have outputs (among those that the report reads; a
    pod has no others), and what it reads.
    """
    cells, runs = inputs.cells.values(), inputs.runs
    pairs = dict.fromkeys((cell.get("measured", cell["encoder"]), cell["method"]) for cell in cells)
    timed = [pair for pair in pairs if "as_long_as" not in (inputs.values["methods"].get(pair[1]) or {})]
    draws = dict.fromkeys((cell["condition"], cell["seed"]) for cell in cells)
    files = {
        "fetch": [None for _ in inputs.values.get("fetch") or {}],
        "corrupt": [runs / "corrupt" / condition / str(seed) for condition, seed in draws],
        "pretrain": [None for _ in {cell.get("trained", cell["encoder"]) for cell in cells}],
        "train": [runs / "train" / cell["path"] for cell in cells],
        "measure": [runs / "measure" / folder / f"{method}.json" for folder, method in timed],
        "evaluate": [runs / "metrics" / f"{cell['path']}.json" for cell in cells],
        "ensemble": [runs / "metrics" / "ensemble" / f"{name}.json" for name in inputs.ensembles],
        "report": [None],
    }
    files["label"] = [runs / "label" / name for name in inputs.values.get("label") or {}]
    files["slice"] = [None for _ in draws] if "slice" in inputs.values else []
    made = []
    for name, reads in _read(inputs.values).items():
        done = sum(file is None or file.exists() for file in files[name])
        made.append({"stage": name, "asked": len(files[name]), "done": done, "reads": list(reads)})
    return made


def _read(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Stage -> the stages whose outputs it reads, in an order in which they run."""
    found: dict[str, tuple[str, ...]] = {}
    for name, reads in STAGES.items():
        found[name] = (*reads, *(one for one, (_, by) in OPTIONAL.items() if one in values and name in by))
        for one, (own, _) in OPTIONAL.items():
            if one in values and own == (name,):
                found[one] = own
    return found


def provenance(inputs: Inputs) -> dict[str, Any]:
    """Digest of the parameters and releases of the libraries; `data` has the digests of the data."""
    chosen = {name: inputs.values.get(name) for name in SECTIONS}
    chosen |= {name: inputs.values[name] for name in ("tasks", "mixtures", "label", "slice") if name in inputs.values}
    text = json.dumps(chosen, sort_keys=True, default=str, ensure_ascii=False)
    return {"parameters": hashlib.sha256(text.encode()).hexdigest(), "versions": inputs.versions}
