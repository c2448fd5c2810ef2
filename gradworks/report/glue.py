"""The GLUE score of what was trained on several of its tasks: the mean over tasks of their official metrics."""

from __future__ import annotations

from typing import Any

from gradworks import glue, statistics


def scores(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per condition, encoder and method that has scores of two tasks of GLUE or more.

    `value`, `se`, `values` are of the average, over seeds; `tasks`: task -> its mean score; `missing`: tasks of GLUE
    without a score, so that the average is that of the others and no GLUE score.

    Args:
        parts: of results.json, see `details.parts`.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[str, list[float]]]] = {}
    for row in parts:
        if row["metric"] in glue.TASKS.get(row["task"], ()):
            own = groups.setdefault((row["condition"], row["encoder"], row["method"]), {})
            own.setdefault(row["task"], {})[row["metric"]] = row["values"]
    made = []
    for (condition, encoder, method), found in groups.items():
        whole = {task: one for task, one in found.items() if set(one) == set(glue.TASKS[task])}
        lengths = {len(values) for one in whole.values() for values in one.values()}
        if len(whole) < 2 or len(lengths) > 1:  # a seed without one of the scores cannot be paired
            continue
        each = [glue.score({task: {name: values[i] for name, values in one.items()} for task, one in whole.items()})
                for i in range(lengths.pop())]  # fmt: skip
        averages = [one["average"] for one in each]
        row = {
            "condition": condition,
            "encoder": encoder,
            "method": method,
            "missing": each[0]["missing"] if each else [],
        }
        row["tasks"] = {t: sum(one["tasks"][t] for one in each) / len(each) for t in (each[0]["tasks"] if each else ())}
        made.append(row | {**vars(statistics.mean(averages)), "values": averages})
    return made
