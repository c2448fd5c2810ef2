"""Forest plot: the difference of each method to the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradworks.report.figures import FAINT, INK, axes_of, mark, stand_in, style, svg_of

PAGE = "#030303"  # placeholder for the page's background, which fills hollow markers


def forest(
    rows: list[dict[str, Any]], limits: tuple[float, float], methods: Sequence[str], label: str, alt: str
) -> str:
    """Difference of each method to the baseline with its interval, methods from top to bottom; a small dot per seed.

    Args:
        rows: method, and the parts of a difference: values, mean, low, high (None: no interval), verdict.
        limits: of the horizontal axis, the same in all panels.
        methods: all of the report, in order: the place gives colour and marker.
        label: of the horizontal axis.
        alt: text alternative of the figure.
    """
    axes = axes_of(3.9, 0.6 + 0.28 * len(rows), 0.25 + 0.068 * max(len(row["method"]) for row in rows), 0.08)
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(rows):
        index = methods.index(row["method"])
        look = {"color": stand_in(index), "gid": mark(index)}
        if row["mean"] is None:
            middle = {"transform": axes.get_yaxis_transform(), "ha": "center", "va": "center"}
            axes.text(0.5, place, "no value", color=FAINT, size=8, **middle)
            continue
        axes.plot(row["values"], [place] * len(row["values"]), ".", markersize=3.5, alpha=0.6, **look)
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place] * 2, linewidth=1.6, **look)
            ends = [row["low"], row["high"]]
            axes.plot(ends, [place] * 2, "|", markersize=7, **look)
        face = stand_in(index) if row["verdict"] in ("gain", "loss") else PAGE
        axes.plot([row["mean"]], [place], style(index)["marker"], markersize=6.5, markerfacecolor=face, **look)
    axes.set_xlim(*limits)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "forest-" + alt, alt).replace(PAGE, "var(--page)")
