"""The results as plain text, at most 100 columns."""

from __future__ import annotations

from typing import Any

from gradworks.report import form
from gradworks.report.words import families

WIDTH = 100


def table(results: dict[str, Any]) -> str:
    """Methods under each condition: seeds, value, difference to the baseline, time, secondary metric, steps."""
    two, machines = results["secondary"], results["cost"]["hardware"]
    heads = ["method", "seeds", "value", f"against {results['baseline']}"]
    heads += ["time"] if machines else []
    heads += [_short(two["subset"] or two["name"])] if two else []
    heads += ["steps", "skipped"]
    said = f"{results['primary']['name']}: mean ± standard error, or the value of each seed; [95 % interval]"
    blocks = []
    for (condition, encoder), family in families(results).items():
        rows = []
        for one in family:
            cells = [one["method"], _states(one), _close(form.over_seeds(one["primary"]))]
            cells.append(_close(form.gap(one["difference"]["primary"])))
            cells += [_time(results, one, machines[0])] if machines else []
            cells += [_close(form.over_seeds(one["secondary"]))] if two else []
            rows.append([*cells, form.count(one["steps"]), form.count(one["skipped"])])
        blocks.append((f"{condition} · {encoder}", rows))
    every = [heads, *(row for _, rows in blocks for row in rows)]
    widths = _fit([max(len(row[i]) for row in every) for i in range(len(heads))])
    lines = [said[:WIDTH], "", _line(heads, widths)]
    last = {name.split(" · ")[0]: name for name, _ in blocks}
    for name, rows in blocks:
        condition = name.split(" · ")[0]
        lines += [name, *(_line(row, widths) for row in rows)]
        lines += _references(results, condition) if last[condition] == name else []
    if machines:
        more = f"; {len(machines) - 1} more in the report" if len(machines) > 1 else ""
        lines.append(f"time: whole run, × {results['baseline']}, on {machines[0]}{more}"[:WIDTH])
    lines += [f"{form.MARKS[state]} {state}: {form.MEANINGS[state]}" for state in form.marked(results["summaries"])]
    return "\n".join(lines)


def cell_line(results: dict[str, Any], path: str) -> str:
    """One finished cell: `noise/reweight/gru/0  0.642`."""
    cell = next(c for c in results["cells"] if c["path"] == path)
    scored = cell["primary"] is not None and cell["state"] in ("ok", "not converged")
    value = form.number(cell["primary"]["value"]) if scored else ""
    state = "" if cell["state"] == "ok" else cell["state"]
    return f"{path}  {' '.join(filter(None, [value, state]))}"


def _references(results: dict[str, Any], condition: str) -> list[str]:
    rows = [r for r in results["references"] if r["condition"] == condition]
    return ["  " + ", ".join(f"{r['name']} {form.number(r['primary']['value'])}" for r in rows)] if rows else []


def _time(results: dict[str, Any], summary: dict[str, Any], machine: str) -> str:
    """`×1.61` if measured on this machine: a column never mixes two."""
    row = form.cost_of(results, summary["encoder"], summary["method"])
    return form.ratio(row["total"]).replace(" ", "") if row and row["hardware"] == machine else "–"


def _states(row: dict[str, Any]) -> str:
    """`1/2 †`: one of two cells has a score, the mark gives the state of the other."""
    found = row["states"]
    total = sum(found.values())
    good = found.get("ok", 0) + found.get("not converged", 0)
    marks = "".join(form.MARKS[state] for state in form.marked([row]))
    return " ".join(filter(None, [f"{good}/{total}" if good < total else str(total), marks]))


def _close(text: str) -> str:
    return text.replace(", ", " ").replace(" ± ", "±")


def _short(text: str) -> str:
    """`in_distribution` of `set = in_distribution`: a narrow column's head."""
    return text.rpartition(" = ")[2].replace("_", " ")


def _fit(widths: list[int]) -> list[int]:
    """Take from the widest column until the line fits."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH - 2:
        widths[widths.index(max(widths))] -= 1
    return widths


def _line(cells: list[str], widths: list[int]) -> str:
    cut = [c if len(c) <= w else c[: w - 1] + "…" for c, w in zip(cells, widths, strict=True)]
    return "  " + "  ".join(c.ljust(w) for c, w in zip(cut, widths, strict=True)).rstrip()
