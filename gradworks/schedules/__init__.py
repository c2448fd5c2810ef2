"""Schedules: which task's batch comes next; one file is one schedule, found by its file name.

Every file has `tasks(step, needs, sizes, seed, **options) -> list[str]`, a pure function of its arguments, so that a
run resumes anywhere: the task of each batch of an optimizer step (counted from 0), group after group. `sizes` are
the batches of one epoch by task, in the order of the mixture. A file may have
    Options                                    a Section: keys of `schedule: {NAME: {...}}`; else there are none
    refusal(needs, tasks) -> str               what it cannot do in words, or ""
    shares(sizes, **options) -> {task: share}  of a long run's batches
What an update needs (`spec.Needs`) is kept, or refused by `check` before training.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gradworks.base import validate
from gradworks.base.errors import InputError
from gradworks.base.points import Slot, entry_name, entry_options
from gradworks.base.words import shown, unknown
from gradworks.spec import Needs


def names() -> list[str]:
    """The schedules that there are, sorted."""
    return sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py"))


@functools.cache  # each step asks, and listing a folder takes 2 % of a small step
def load(name: str, where: str = "schedule") -> ModuleType:
    """The file of a schedule. Raises InputError that lists the names there are; `where` begins the message."""
    if name not in names():
        raise InputError(unknown(where, name, names()))
    return importlib.import_module(f"gradworks.schedules.{name}")


def options(chosen: Slot, where: str = "schedule") -> dict[str, Any]:
    """The keyword arguments of a schedule, checked.

    Args:
        chosen: its name, or {name: options}.
        where: begins the message.

    Raises:
        InputError: there is no such schedule, it has no such options, or more than one is named.
    """
    if not isinstance(chosen, str) and len(chosen) != 1:
        raise InputError(f"{where}: found {len(chosen)} schedules\nexpected one")
    return _options(entry_name(chosen), tuple(entry_options(chosen).items()), where)


@functools.cache  # each step asks
def _options(name: str, given: tuple[tuple[str, Any], ...], where: str) -> dict[str, Any]:
    made = getattr(load(name, where), "Options", None)
    if made is None:
        if given:
            raise InputError(f"{where}.{name}: found {shown(dict(given))}\nexpected no options")
        return {}
    return validate(dict(given), made, f"{where}.{name}").model_dump()


def epoch(chosen: Slot, sizes: Mapping[str, float], task: str | None, where: str = "schedule") -> float:
    """Batches of one epoch of a mixture: of all parts, or until one part was read once.

    Args:
        chosen: the schedule.
        sizes: batches of each part.
        task: the part that is read once; None = as many batches as all parts have.
        where: begins the message.

    Raises:
        InputError: the schedule gives a part no share that lasts.
    """
    if task is None:
        return sum(sizes.values(), 0.0)
    name, given = entry_name(chosen), options(chosen, where)
    shares = getattr(load(name, where), "shares", None)
    if shares is None:
        said = f"{where}: found {name}, whose shares of the tasks change, and epoch: {task}"
        raise InputError(f"{said}\nexpected no epoch")
    return round(sizes[task] / shares(sizes, **given)[task])


def group(needs: Needs, tasks: Sequence[str] | Mapping[str, int]) -> int:
    """How many batches one group has; a step has `needs.groups` groups."""
    return len(tasks) if needs.batches == "one_per_task" else needs.batches


def check(chosen: Slot, needs: Needs, tasks: Sequence[str], where: str = "schedule") -> None:
    """Refuse what a schedule cannot give an update.

    Args:
        chosen: the schedule: its name, or {name: options}.
        needs: of the update.
        tasks: of the mixture, each once.
        where: begins the message.

    Raises:
        InputError: there is no such schedule, or not with these options; the update needs more different tasks than
            there are, or one batch of each task and all of the same one; or the schedule's own reason.
    """
    options(chosen, where)
    name, k = entry_name(chosen), group(needs, tasks)
    kind = load(name, where)
    reason = ""
    if needs.tasks == "different" and k > len(tasks):
        reason = f"the update takes {k} batches of different tasks, and there are {len(tasks)}: {', '.join(tasks)}"
    elif needs.tasks == "same" and needs.batches == "one_per_task" and len(tasks) > 1:
        reason = f"the update takes one batch of each task and all of the same task, of {len(tasks)} tasks"
    reason = reason or getattr(kind, "refusal", lambda *_: "")(needs, tasks)
    if reason:
        raise InputError(f"{where}: found {name}: {reason}")


def draw(chosen: Slot, step: int, needs: Needs, sizes: Mapping[str, int], seed: int) -> list[str]:
    """The tasks of the batches of a step, and a look at whether they are what the update needs.

    Raises:
        ValueError: they are not: the schedule's file is wrong.
    """
    name, k = entry_name(chosen), group(needs, sizes)
    made = load(name).tasks(step, needs, sizes, seed, **options(chosen))
    groups = [made[i : i + k] for i in range(0, len(made), k)]
    wrong = len(made) != k * needs.groups or not set(made) <= sizes.keys()
    wrong |= needs.tasks == "same" and any(len(set(one)) > 1 for one in groups)
    different = needs.tasks == "different" or needs.batches == "one_per_task"
    wrong |= different and any(len(set(one)) < len(one) for one in groups)
    if wrong:
        raise ValueError(f"schedule {name}, step {step}: found {made}, expected {needs} of {', '.join(sizes)}")
    return made
