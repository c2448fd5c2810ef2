"""The report as one HTML file that asks no network for anything, and its Markdown twin."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from gradworks.report import figures, form, read, words

if TYPE_CHECKING:
    from jinja2 import Environment

    from gradworks.report.read import Inputs


def render(results: dict[str, Any], inputs: Inputs) -> dict[str, str]:
    """File name -> text of report.html and report.md."""
    about = {
        "results": results,
        "conditions": conditions(results),
        "breakdown": _breakdown(results),
        "stale": len(inputs.stale),
        "training": inputs.values.get("train") or {},
        "methods": {name: inputs.values["methods"][name] or {} for name in _methods(results)},
    }
    html = _templates().get_template("report.html.j2").render(**about, pictures=_pictures(results, inputs))
    return {"report.html": html, "report.md": _templates().get_template("report.md.j2").render(**about)}


def tables(results: dict[str, Any]) -> str:
    """The results tables alone, in Markdown: for README.md."""
    rows = {"results": results, "conditions": conditions(results)}
    return _templates().get_template("tables.md.j2").render(**rows).strip()


def conditions(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One table each: the condition's families of methods, its reference rows, the columns that it needs."""
    made = []
    families = words.families(results)
    for name in dict.fromkeys(condition for condition, _ in families):
        own = {encoder: rows for (condition, encoder), rows in families.items() if condition == name}
        rows = [row for family in own.values() for row in family]
        made.append(
            {
                "name": name,
                "families": own,
                "references": [r for r in results["references"] if r["condition"] == name],
                "control": any(row["control"]["primary"] for row in rows),
                "leaked": any(row["without_leaked"]["values"] for row in rows),
                "states": form.marked(rows),
            }
        )
    return made


def escaped(text: str) -> str:
    """Text as Markdown shows it, on one line."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", str(text)).replace("\n", " ")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("gradworks.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.globals |= {"form": form}
    made.filters["md"] = escaped
    return made


def _methods(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(summary["method"] for summary in results["summaries"]))


def _pictures(results: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """SVG texts: our own markup around names that are escaped, so safe to stand in the page as they are."""
    from markupsafe import Markup

    methods, name = _methods(results), results["primary"]["name"]
    made: dict[str, Any] = {"dots": [], "curves": [], "style": Markup(_style())}
    made["legend"] = [(method, Markup(figures.swatch(i, method))) for i, method in enumerate(methods)]
    limits = _limits(results)
    for (condition, encoder), rows in words.families(results).items():
        title = f"{condition} · {encoder}"
        histories = _histories(results, inputs, condition, encoder)
        if len(rows) > 1:
            references = [r for r in results["references"] if r["condition"] == condition]
            alt = f"{title}: {name} by method. " + "; ".join(
                f"{row['method']} {form.over_seeds(row['primary'])}" for row in rows
            )
            made["dots"].append((title, Markup(figures.dots(rows, references, limits, methods, name, alt))))
        if histories:
            last = {m: [h["score"][-1] for h in runs] for m, runs in histories.items()}
            alt = f"{title}: score on the selection split against examples seen. At the end: " + "; ".join(
                f"{m} {', '.join(map(form.number, ends))}" for m, ends in last.items()
            )
            svg = figures.curves(histories, methods, "selection score", alt)
            made["curves"].append((title, Markup(svg)))
    return made


def _limits(results: dict[str, Any]) -> tuple[float, float]:
    """Of every value and reference line, with a margin."""
    values = [v for summary in results["summaries"] for v in summary["primary"]["values"]]
    values += [one["primary"]["value"] for one in results["references"]]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _histories(
    results: dict[str, Any], inputs: Inputs, condition: str, encoder: str
) -> dict[str, list[dict[str, list[float]]]]:
    found: dict[str, list[dict[str, list[float]]]] = {}
    for cell in results["cells"]:
        if (cell["condition"], cell["encoder"]) == (condition, encoder):
            history = read.history(inputs, cell["key"])
            if history and history["examples"]:
                found.setdefault(cell["method"], []).append(history)
    return found


def _style() -> str:
    from importlib.resources import files

    return files("gradworks.report").joinpath("templates", "style.css").read_text(encoding="utf-8")


def _breakdown(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One table for each family and column: a row for each value of the column, a column for each method."""
    made = []
    for (condition, encoder), family in words.families(results).items():
        for column in dict.fromkeys(column for row in family for column in row["by"]):
            there = [row for row in family if column in row["by"]]
            rows = []
            for value in dict.fromkeys(value for row in there for value in row["by"][column]):
                found = [row["by"][column].get(value) for row in there]
                first = next(one for one in found if one)
                means = [one["mean"] if one else None for one in found]
                rows.append({"value": value, "n": first["n"], "small": first["small"], "means": means})
            methods = [row["method"] for row in there]
            made.append({"title": f"{condition} · {encoder}", "column": column, "methods": methods, "rows": rows})
    return made
