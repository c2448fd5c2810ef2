"""The section `report` of params.yaml, and the other inputs of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from gradworks import metrics
from gradworks.base import Section, words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from gradworks.metrics import Score
    from gradworks.tasks.kinds import Kind


class Target(Section):
    """A metric on all test examples, or on those with a given value of a column."""

    metric: str = "accuracy"
    where: dict[str, str | int | bool] = Field(default_factory=dict, max_length=1)

    @model_validator(mode="after")
    def _known(self) -> Target:
        if self.metric not in metrics.NAMES:
            raise ValueError(f"metric {self.metric!r} is unknown; expected one of: {', '.join(metrics.NAMES)}")
        return self

    @property
    def subset(self) -> str:
        """`set = challenge`; empty for all test examples."""
        return "".join(f"{column} = {value}" for column, value in self.where.items())

    @property
    def name(self) -> str:
        """`accuracy, set = challenge`."""
        return ", ".join(filter(None, [self.metric.replace("_", " "), self.subset]))


class Step(Section):
    """A step of the waterfall: the cells that have these names, or an ensemble by its key in cells.yaml.

    Attributes:
        name: what the step adds.
        published: its score as published, in the unit of the primary metric.
    """

    name: str = Field(min_length=1)
    condition: str | None = None
    method: str | None = None
    mixture: str | None = None
    encoder: str | None = None
    ensemble: str | None = None
    published: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Step:
        if self.ensemble and any((self.condition, self.method, self.mixture, self.encoder)):
            raise ValueError("found ensemble beside names of cells; expected one or the other")
        if not self.ensemble and not (self.method or self.encoder):
            raise ValueError("expected `method` or `encoder` of its cells, or an `ensemble`")
        return self

    @property
    def of(self) -> str:
        """`clean · erm · gru`."""
        return self.ensemble or " · ".join(filter(None, [self.condition, self.method, self.mixture, self.encoder]))

    def holds(self, cell: dict[str, Any]) -> bool:
        """Whether a cell is one of the step's."""
        there = cell | {"encoder": cell.get("trained", cell["encoder"])}
        axes = ("condition", "method", "mixture", "encoder")
        return all(getattr(self, axis) in (None, there.get(axis)) for axis in axes)


def check_steps(steps: Sequence[Step], items: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raises InputError where a step names no cell or ensemble of cells.yaml, or several cells of one seed."""
    known = [*items["ensemble"], *items.get("soup", {})]
    for number, step in enumerate(steps):
        at = f"{where}.{number}"
        if step.ensemble:
            if step.ensemble not in known:
                raise InputError(words.unknown(f"{at}.ensemble", step.ensemble, known))
            continue
        own = [key for key, one in items["train"].items() if step.holds(one)]
        if not own:
            raise InputError(f"{at}: no cell of {step.of} in the grid\nexpected one")
        if len({items["train"][key]["seed"] for key in own}) < len(own):
            raise InputError(f"{at}: found {', '.join(own[:4])}\nexpected one cell a seed: name condition, method, "
                             "encoder and mixture")  # fmt: skip


class Report(Section):
    """The section `report`.

    Attributes:
        title: heading of the report.
        primary: the target of the answer.
        secondary: shown beside it; the control with nothing to gain uses it.
        baseline: the method that all others are compared with.
        controls: method -> the method with the same resources but not its idea (as many batches a step, the clean
            labels).
        waterfall: steps, each with one signal more than the one before.
        notes: sentences about the data or the encoders that follow the data in the report and in a README, as what an
            encoder was trained on before.
        price_per_hour: device, as the report names it -> price of a machine with it per hour.
    """

    title: str = "Which gradient method helps?"
    primary: Target = Target()
    secondary: Target | None = None
    baseline: str = "erm"
    controls: dict[str, str] = Field(default_factory=dict)
    waterfall: list[Step] = Field(default_factory=list)
    notes: list[Annotated[str, Field(pattern=r"^\S[^\n]*[.!?]$")]] = Field(default_factory=list)
    price_per_hour: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """All inputs of the results, keyed as in cells.yaml.

    Attributes:
        cells: key -> condition, method, encoder, seed, path and entries.
        metrics: key -> output of `evaluate`; its state is "not run" without one.
        ensembles: key -> item of cells.yaml, and the output of `ensemble` under `metrics`.
        references: condition -> name -> score of the primary and of the secondary target.
        data: condition -> manifest of `corrupt` for its first seed.
        costs: (encoder, method) -> output of `measure`, if there is one.
        versions: library -> release, of versions.json; empty without that file.
        stale: metrics files that no cell names.
    """

    settings: Report
    task: Kind
    values: dict[str, Any]
    runs: Path
    cells: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    ensembles: dict[str, dict[str, Any]]
    references: dict[str, dict[str, list[Score | None]]] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    stale: tuple[Path, ...] = ()
