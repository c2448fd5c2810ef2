"""The model that a cell trains: an encoder with fresh heads, or the model of another cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks import models
from gradworks.base import artifacts

if TYPE_CHECKING:
    from gradworks.cell import Run


def made(run: Run) -> Any:
    """The model, frozen as the method asks."""
    sizes = {name: _own(kind).size for name, kind in run.kinds.items() if kind.size}
    outputs = sizes if len(run.kinds) > 1 and sizes else _own(run.task).size
    copies = len(run.slices["names"]) if run.slices else 0
    point, seed = run.point, run.args.seed
    fresh = point.from_ is None or point.reinitialise
    if not run.later:
        model = models.create(run.args.start, outputs, seed, **_pairs(run))
    elif point.from_ is None:
        model = models.load(run.args.start)
        only = next(iter(sizes), run.task.name)
        models.replace_heads(model, outputs, only, _headed_before(run), seed, **_pairs(run))
    else:
        model = models.load(run.args.start)
        if copies and fresh:
            models.slice_heads(model, run.main, sizes[run.main], 0)
        if point.reinitialise:
            models.fresh_head(model, seed)
    if copies and fresh:
        models.slice_heads(model, run.main, sizes[run.main], copies)
    if point.trainable == "head":
        models.train_head_only(model)
    return model


def _own(kind: Any) -> Any:
    """The kind of a task without its slices."""
    return getattr(kind, "kind", kind)


def _pairs(run: Run) -> dict[str, list[str]]:
    """Which tasks are of two texts, and whose heads read the shared layer, for a bi-encoder."""
    if artifacts.read_json(run.args.start / models.CONFIG).get("pair") != "bi" and not run.mixed.shared:
        return {}
    return {"pairs": run.two_texts(), "layer": run.mixed.shared}


def _headed_before(run: Run) -> str | None:
    """The task whose head the model has that this cell starts from; None where it has several."""
    ran = artifacts.read_json(run.args.start / artifacts.MANIFEST)["parameters"]
    headed = run.headed(ran.get("mixture", {}).get("parts") or [ran["task"]])
    return headed[0] if len(headed) == 1 else None
