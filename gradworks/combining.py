"""What an ensemble makes of its members, and what each of them adds: the rules of the stage `ensemble`.

Nothing is fitted on the test split: temperatures are fitted on each member's own selection split, weights and the
choice of members on the selection examples that all members have. Where splits are drawn by several seeds, what one
member selects by another may have trained on: it is in no selection split of the other, and does not count.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gradworks import calibration, ensembles
from gradworks.metrics import SMALL, better, scores

if TYPE_CHECKING:
    from gradworks.ensembles import Member
    from gradworks.tasks.kinds import Kind

RULES = ("mean", "scaled", "weighted", "greedy")


class Ensemble:
    """The ensemble of some members: its rules, what is fitted for them, and what is said of them.

    Attributes:
        members: on the test split, aligned. held: on the selection examples that all have, aligned; none without
            selection splits.
        outputs: rule -> answers (n, ...) on these two; None where there are no such selection examples.
        rules: of those beside the mean what was fitted, or `note`, why it was not.

    Args:
        members: on the test split.
        own: the same ones, each on its own selection split, or None where it has none.
        task: of all.
        by: columns of the test split by which they are scored, and their values.
    """

    def __init__(
        self, members: Sequence[Member], own: Sequence[Member | None], task: Kind, by: dict[str, list[Any]]
    ) -> None:
        self.task, self.by, self.members = task, by, ensembles.align(members)
        self.labels, self.metric = self.members[0].labels, task.spec.metrics[0]
        self.names = [member.name for member in members]
        self.own = [one for one in own if one is not None]
        self.held: list[Member] = []
        if len(self.own) == len(members):
            shared = ensembles.common(self.own)
            self.held = ensembles.align(shared) if shared[0].ids else []
        self.outputs: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        self._add("mean", self.members, self.held)
        self.rules: dict[str, dict[str, Any]] = {}
        lacking = [name for name, one in zip(self.names, own, strict=True) if one is None]
        if lacking:
            note = f"not fitted: {lacking[0]} has no predictions of its selection split"
            self.rules = {rule: {"note": note} for rule in RULES[1:]}
        else:
            self._scaled()
            self._fitted()

    def _add(self, rule: str, test: Sequence[Member], held: Sequence[Member]) -> None:
        self.outputs[rule] = ensembles.mean(test, self.task), ensembles.mean(held, self.task) if held else None

    def value(self, labels: Any, answers: Any) -> tuple[float, ...]:
        """Higher is better; of classes the log loss decides between equals."""
        names = (self.metric, "log_loss") if self.task.calibrated else (self.metric,)
        scores = [(better(name), self.task.score(name, labels, answers).value) for name in names]
        return tuple(-np.inf if value is None else sign * value for sign, value in scores)

    def _scaled(self) -> None:
        """The mean of members after temperature scaling (Guo et al. 2017), each fitted on its own selection split."""
        if not self.task.calibrated:
            return
        found: dict[str, float] = {}
        for own in self.own:
            if len(own.ids) >= SMALL:
                labels = self.task.indices(own.labels)
                by = calibration.temperature(own.outputs, labels)
                if by is not None and not calibration.at_bound(own.outputs, labels, by):
                    found[own.name] = by
        made = {"temperatures": {name: found.get(name) for name in self.names}}
        if found:
            test, held = (
                [replace(m, outputs=calibration.scaled(m.outputs, found.get(m.name, 1.0))) for m in some]
                for some in (self.members, self.held)
            )
            self._add("scaled", test, held)
        else:
            made["note"] = f"no member has a temperature: {SMALL} selection examples and a finite one are needed"
        self.rules["scaled"] = made

    def _fitted(self) -> None:
        """Weights, and a choice of members, fitted on the selection examples that all have."""
        n = len(self.held[0].ids) if self.held else 0
        if len(self.members) < 2:
            return
        if n < SMALL:
            note = f"not fitted: {n} selection examples that all members have, and none trained on; {SMALL} are needed"
            self.rules |= {"weighted": {"note": note}, "greedy": {"note": note}}
            return
        fitted = {"fitted": n}
        counts = ensembles.greedy(self.held, self.task, lambda answers: self.value(self.held[0].labels, answers))
        test, held = (
            [m for m, count in zip(some, counts, strict=True) for _ in range(count)]
            for some in (self.members, self.held)
        )
        self._add("greedy", test, held)
        self.rules["greedy"] = {**fitted, "counts": dict(zip(self.names, counts, strict=True))}
        if ensembles.has_weights(self.members, self.task):
            weights = ensembles.weights(self.held, self.task)
            answers = [ensembles.weighted(some, weights) for some in (self.members, self.held)]
            self.outputs["weighted"] = answers[0], answers[1]
            self.rules["weighted"] = {**fitted, "weights": dict(zip(self.names, weights, strict=True))}

    def scored(self, answers: Any) -> dict[str, Any]:
        """Scores of answers to the test split."""
        return scores(self.task.score, self.task.reported, self.labels, answers, self.by)

    def _less(self, ours: Any, theirs: Any, comparisons: int = 1) -> dict[str, Any]:
        """The difference of two scores of the main metric on the test split."""
        values = [self.task.score(self.metric, self.labels, one).value for one in (ours, theirs)]
        shares = [self.task.shares(self.metric, self.labels, one) for one in (ours, theirs)]
        span = ensembles.gap(*shares, comparisons) or (None, None)
        value = None if None in values else values[0] - values[1]
        return {"metric": self.metric, "value": value, "low": span[0], "high": span[1], "n": len(self.labels)}

    def said(self) -> dict[str, Any]:
        """What the metrics of an ensemble have beside its state, see components/ensemble.py."""
        mean = self.outputs["mean"][0]
        made: dict[str, Any] = {"members": {m.name: self.scored(m.outputs) for m in self.members}}
        made |= {"mean": self.scored(mean), "oracle": self.scored(ensembles.oracle(self.members, self.task))}
        made["disagreement"] = ensembles.disagreement(self.members, self.task)
        made["rules"] = {name: one | (self.scored(self.outputs[name][0]) if name in self.outputs else {})
                         for name, one in self.rules.items()}  # fmt: skip
        if len(self.members) > 1:
            rest = [[m for m in self.members if m is not one] for one in self.members]
            made["adds"] = {one.name: self._less(mean, ensembles.mean(others, self.task), len(rest))
                            for one, others in zip(self.members, rest, strict=True)}  # fmt: skip
            if len(self.own) == len(self.members):
                values = [self.value(own.labels, own.outputs) for own in self.own]
                best = self.members[values.index(max(values))]
                made["against"] = {"member": best.name, **self._less(mean, best.outputs)}
        made["pairs"] = [about for about, _ in self.pairs()]
        return made

    def pairs(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Two encoders each, the mean of their members: how many examples are in each bucket, and each example's."""
        if not self.task.calibrated:
            return []
        groups: dict[str, list[Member]] = {}
        for member in self.members:
            groups.setdefault(member.name.split("/")[-2], []).append(member)
        answers = {name: ensembles.mean(own, self.task) for name, own in groups.items()}
        made = []
        for one, other in itertools.combinations(answers, 2):
            found = ensembles.buckets(answers[one], answers[other], self.labels, self.task)
            counts = {name: found.count(name) for name in ensembles.BUCKETS}
            p = ensembles.exact(counts["only the first"], counts["only the second"])
            made.append(({"first": one, "second": other, "n": len(found), "counts": counts, "p": p}, found))
        return made
