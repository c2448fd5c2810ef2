"""The time ratios as a figure: a dot with its interval, the floor of passes and the target, a panel per model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from benchmarks.table import label, misses

MET, MISSED, PLAIN, FAINT = "#1a7f37", "#cf222e", "#0969da", "#6e7781"


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """SVG text of the rows with a time. The same rows give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = [row for row in rows if row["time_ratio"] is not None]
    columns = list(dict.fromkeys((row["model"], row["hardware"]) for row in rows))
    names = list(dict.fromkeys(label(row) for row in rows))
    height = 1.2 + 0.21 * max(len(names), 1)
    figure = Figure(figsize=(3.0 + 2.3 * max(len(columns), 1), height), layout="constrained")
    panels = figure.subplots(1, max(len(columns), 1), sharey=True, squeeze=False)[0]
    for panel, (model, hardware) in zip(panels, columns, strict=False):
        for row in rows:
            if (row["model"], row["hardware"]) == (model, hardware):
                _dot(panel, row, names.index(label(row)))
        panel.set_xscale("log", base=2)
        panel.axvline(1, color=FAINT, linewidth=0.8)
        panel.set_title(_plain(model), size=9)
        panel.set_xlabel("time over plain training", size=8)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.tick_params(labelsize=8, length=2)
        panel.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), [_plain(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    marks = {
        "met": {"marker": "o", "color": MET}, "missed": {"marker": "X", "color": MISSED},
        "no target": {"marker": "s", "color": PLAIN}, "floor of passes": {"marker": "|", "color": FAINT},
        "target": {"marker": "<", "color": FAINT},
    }  # fmt: skip
    handles = [Line2D([], [], linestyle="", markersize=6, label=name, **look) for name, look in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _dot(panel, row: dict[str, Any], place: int) -> None:
    missed = misses(row)
    marker, colour = ("s", PLAIN) if missed is None else ("X", MISSED) if missed else ("o", MET)
    if row["floor"] is not None:
        panel.plot([row["floor"]], [place], "|", color=FAINT, markersize=9, markeredgewidth=1.5)
    if row["target"].get("time") is not None:
        panel.plot([row["target"]["time"]], [place], "<", color=FAINT, markersize=5)
    if row["low"] is not None:
        panel.plot([row["low"], row["high"]], [place] * 2, color=colour, linewidth=1.5)
    panel.plot([row["time_ratio"]], [place], marker, color=colour, markersize=4.5)


def _plain(text: str) -> str:
    """Without matplotlib's mathematics."""
    return text.replace("$", r"\$")
