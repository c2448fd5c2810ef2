"""The section `report` of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from gradworks import metrics
from gradworks.base import Section


class Target(Section):
    """One figure of the metrics: a metric on all test examples, or on those where a column has a value."""

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


class Report(Section):
    """The section `report`.

    Attributes:
        title: heading of the report.
        primary: what the answer is about.
        secondary: shown beside it; the control without anything to gain is read from it.
        baseline: the method that all others are compared with.
        controls: method -> the method that has the same means without its idea (as many batches a step, the clean
        labels).
        price_per_hour: device, as the report names it -> money for an hour of a machine that has it.
    """

    title: str = "Which gradient method helps?"
    primary: Target = Target()
    secondary: Target | None = None
    baseline: str = "erm"
    controls: dict[str, str] = Field(default_factory=dict)
    price_per_hour: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
