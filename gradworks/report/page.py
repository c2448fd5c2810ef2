"""The report as one self-contained HTML file, and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from gradworks.report import form, pictures, recorded, slices, words
from gradworks.report.pictures import method_names

if TYPE_CHECKING:
    from jinja2 import Environment

    from gradworks.report.settings import Inputs


def render(results: dict[str, Any], inputs: Inputs) -> dict[str, str]:
    """File name -> text of report.html and report.md, from the results of `gradworks.report.build`."""
    about = {
        "results": results,
        "conditions": conditions(results),
        "breakdown": _breakdown(results, slices.names(inputs)),
        "parts": results.get("parts", []),
        "slices": results.get("slices", []),
        "labels": results.get("labels", {}),
        "shown_confusions": [one for one in results["confusions"] if pictures.highlighted(results, one)],
        "stale": len(inputs.stale),
        "training": inputs.values.get("train") or {},
        "methods": {name: inputs.values["methods"][name] or {} for name in method_names(results)},
    }
    script = _templates().get_template("script.js.j2").render()
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = {"pictures": pictures.pictures(results, inputs), "script": pictures.markup(script), "seal": seal}
    html = _templates().get_template("report.html.j2").render(**about, **shown)
    return {"report.html": html, "report.md": _templates().get_template("report.md.j2").render(**about)}


def tables(results: dict[str, Any]) -> str:
    """The results tables alone, in Markdown: for README.md."""
    return template("tables.md.j2", results=results, conditions=conditions(results))


def template(name: str, **about: Any) -> str:
    """A template of the report, filled in."""
    return _templates().get_template(name).render(**about).strip()


def conditions(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One table per condition: its families of methods, reference rows and the columns it needs."""
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
                "hardware": [h for h in results["cost"]["hardware"] if any(_on(results, row, h) for row in rows)],
            }
        )
    return made


def _on(results: dict[str, Any], summary: dict[str, Any], hardware: str) -> dict[str, Any] | None:
    """The cost of a summary's method, if measured on this hardware."""
    row = form.cost_of(results, summary["encoder"], summary["method"])
    return row if row and row["hardware"] == hardware else None


def escaped(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", str(text)).replace("\n", " ")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("gradworks.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.globals |= {"form": form, "on": _on, "outdated_mark": recorded.MARK}
    made.filters |= {
        "md": escaped,
        "places": lambda names: {name: place for place, name in enumerate(names)},
        "swapped": lambda pairs: [(value, key) for key, value in pairs],
        "doubled": lambda values: [(value, value) for value in values],
    }
    return made


def _breakdown(results: dict[str, Any], left_out: Collection[str] = ()) -> list[dict[str, Any]]:
    """One table for each family and column but `left_out`: a row for each of its values, a column for each method."""
    made = []
    for (condition, encoder), family in words.families(results).items():
        for column in dict.fromkeys(c for row in family for c in row["by"] if c not in left_out):
            there = [row for row in family if column in row["by"]]
            rows = []
            for value in dict.fromkeys(value for row in there for value in row["by"][column]):
                found = [row["by"][column].get(value) for row in there]
                first = next(one for one in found if one)
                means = [one["mean"] if one else None for one in found]
                rows.append({"value": value, "n": first["n"], "small": first["small"], "means": means})
            methods = [row["method"] for row in there]
            about = {"condition": condition, "encoder": encoder, "column": column}
            made.append(about | {"methods": methods, "rows": rows})
    return made
