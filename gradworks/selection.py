"""Which model of a run is the best: by one task's score on its selection split, or by the mean of all tasks'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradworks import metrics
from gradworks.base import words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

MEAN = "mean"


class Looks:
    """The scores of a look at the selection splits.

    Args:
        kinds: of the tasks.
        measures: a metric for each.
        select: the task whose score chooses, or `mean`. None: the mean, or the score of the only task.
        where: begins messages.

    Raises:
        InputError: `select` is neither, or the mean is asked for of metrics of which some are better low.

    Attributes:
        measures: the metric of each task.
        better: 1 where a higher score is better, -1 where a lower one is.
    """

    def __init__(self, kinds: Mapping[str, Kind], measures: Mapping[str, str], select: str | None, where: str) -> None:
        self._kinds, self.measures = kinds, measures
        self.chosen = select or (MEAN if len(kinds) > 1 else next(iter(kinds)))
        if self.chosen not in (*kinds, MEAN):
            raise InputError(words.unknown(where, select, [*kinds, MEAN]))
        ways = {name: metrics.better(measures[name]) for name in kinds if self.chosen in (name, MEAN)}
        if len(set(ways.values())) > 1:
            low = next(name for name, way in ways.items() if way < 0)
            raise InputError(
                f"{where}: found mean, and {measures[low]} of {low} is better low\nexpected one of: {', '.join(kinds)}"
            )
        self.better = next(iter(ways.values()))

    def _named(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """By what history calls them, the one that chooses first."""
        if len(scores) == 1:
            return {self.measures[name]: score for name, score in scores.items()}
        named = {name: f"{name}_{self.measures[name]}" for name in scores}
        if self.chosen != MEAN:
            order = sorted(scores, key=lambda name: name != self.chosen)
            return {named[name]: scores[name] for name in order}
        values = list(scores.values())
        mean = None if None in values else sum(values) / len(values)
        return {MEAN: mean, **{named[name]: score for name, score in scores.items()}}

    def scores(self, labels: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, float | None]:
        """The score of each task by name, the one that chooses first; None where one is not defined.

        Args:
            labels: of the selection splits by task, as `Kind.truths` gives them.
            answers: as `Kind.respond` gives them.
        """
        found = {
            name: kind.score(self.measures[name], labels[name], answers[name]).value
            for name, kind in self._kinds.items()
        }
        return self._named(found)

    def constant(self, labels: Mapping[str, Any]) -> float:
        """The best score of predictions that read no input; of the mean, the mean of each task's best."""
        best = {}
        for name, kind in self._kinds.items():
            way = metrics.better(self.measures[name])
            made = [kind.score(self.measures[name], labels[name], one).value for one in kind.constants(labels[name])]
            best[name] = way * max(way * (value or 0.0) for value in made)
        return next(iter(self._named(best).values()))
