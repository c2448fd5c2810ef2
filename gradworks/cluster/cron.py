"""The times of a recurring run, as cron has them: five fields here, six in Kubeflow."""

from __future__ import annotations

import re

from gradworks.base.errors import InputError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6))


def kubeflow(given: str) -> str:
    """Kubeflow's form of a cron expression.

    Kubeflow reads seconds first and takes five fields too, with another meaning: of "0 3 * * *" it makes a run every
    hour (kubeflow/kubeflow#5306). So the seconds are put in front here.

    Args:
        given: minute, hour, day of the month, month, day of the week (0 is Sunday), in numbers, as crontab(5).

    Raises:
        InputError: another number of fields, or a value out of its range.
    """
    fields = given.split()
    if len(fields) != len(_FIELDS):
        raise InputError(
            f"--every: found {given!r}, {len(fields)} fields\n"
            'expected five: minute hour day month weekday, as "0 3 * * *" (every night at three)'
        )
    for field, (name, low, high) in zip(fields, _FIELDS, strict=True):
        if not all(_possible(part, low, high) for part in field.split(",")):
            raise InputError(
                f"--every: {name}: found {field!r}\nexpected *, numbers from {low} to {high}, ranges a-b or steps */n"
            )
    return " ".join(("0", *fields))


def _possible(part: str, low: int, high: int) -> bool:
    found = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?", part, re.ASCII)
    if not found:
        return False
    first, last, step = (int(one) if one is not None else None for one in found.groups())
    begin = low if first is None else first
    end = last if last is not None else begin
    return low <= begin <= end <= high and step != 0
