"""Sets of tasks of a mixture that read the same rows in one batch: `together` of a mixture.

To schedules, updates and counters a set is one part, whose name is those of its tasks with `+` between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

Weight = Annotated[float, Field(gt=0)]
Given = list[str] | dict[str, Weight]  # tasks, or task -> weight of its loss; 1 without


def sets_of(given: Sequence[Given]) -> dict[str, dict[str, float]]:
    """Name of each set -> its tasks and the weights of their losses."""
    return {"+".join(one): dict(one) if isinstance(one, Mapping) else dict.fromkeys(one, 1.0) for one in given}


def streams_of(parts: Sequence[str], sets: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Each part that is drawn from, a task or a set, and its tasks; a set has the place of the first of them."""
    of = {task: name for name, tasks in sets.items() for task in tasks}
    return {of.get(part, part): list(sets.get(of.get(part, part), [part])) for part in parts}


def led_by(main: str, sets: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The same sets, a task first where it is in one: a row then has the id that it has for this task."""
    return {name: dict(sorted(of.items(), key=lambda one: one[0] != main)) for name, of in sets.items()}


def check_sets(given: Sequence[Given], parts: Sequence[str], batch: Mapping[str, int], conflicts: int | None) -> None:
    """Raises ValueError, "KEY: found ..., expected ...", where a mixture cannot have these sets."""
    named = [task for one in given for task in one]
    for one in given:
        if len(one) < 2:
            raise ValueError(f"together: found {list(one)}\nexpected two tasks or more that read the same rows")
        sizes = {batch.get(task) for task in one}
        if len(sizes) > 1:
            raise ValueError(f"batch: found other sizes for {', '.join(one)}\nexpected one size for what is one batch")
    for task in named:
        if task not in parts:
            raise ValueError(f"together: found {task!r}\nexpected some of the parts: {', '.join(parts)}")
        if named.count(task) > 1:
            raise ValueError(f"together: found {task} twice\nexpected each task once")
    if taken := set(sets_of(given)) & set(parts):
        raise ValueError(f"together: {min(taken)} is the name of a task too\nexpected another order of the set's tasks")
    if given and conflicts:
        raise ValueError("conflicts: found it beside together\nexpected one of them: a set has one gradient, the sum's")
