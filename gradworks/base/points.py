"""Methods of params.yaml: named points in objective x weighting x update."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gradworks.base import Section, names, validate
from gradworks.base.errors import InputError

Slot = str | dict[str, dict[str, Any] | None]  # an entry's name, or {name: its options}


class MethodPoint(Section):
    """A named method: a point in objective x weighting x update, and the splits it trains on.

    from: another method, whose trained model it starts from (same condition, encoder and seed); none = the encoder.
    trainable: `head` freezes all but the last, linear layer. reinitialise: draw that layer again.
    as_long_as: train for the same wall-clock time as this method, by its measured cost per step.
    learning_rate: in the place of train.learning_rate; of what the scale law takes out of a published gradient.
    clip: in the place of train.clip; 0 = no clipping.
    """

    objective: Slot = "supervised"
    weighting: Slot = "uniform"
    update: Slot = "erm"
    train_on: list[Literal["train", "clean"]] = Field(default_factory=lambda: ["train"])
    from_: str | None = Field(None, alias="from")
    trainable: Literal["all", "head"] = "all"
    reinitialise: bool = False
    as_long_as: str | None = None
    learning_rate: float | None = Field(None, gt=0)
    clip: float | None = Field(None, ge=0)


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
