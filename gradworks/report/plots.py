"""Pictures of cost, gradients, scores of examples, calibration, ensembles and the pipeline, drawn as in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.report.figures import DASHES, FAINT, INK, MARKERS, axes_of, mark, stand_in, style, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ONE, OTHER = 1, 2  # colours of two things that are no methods: --m1 and --m2


def scatter(points: list[dict[str, Any]], methods: Sequence[str], label: str, alt: str) -> str:
    """Quality against cost: a marker with its name, bars for the interval of the time and the standard error.

    Args:
        points: method, x, low, high (None: no interval), y, se (None below three seeds).
        methods: all of the report, in order: the place gives colour and marker.
        label: of the vertical axis.
        alt: what the figure shows, for those who do not see it.
    """
    axes = axes_of(5.2, 3.3, 0.64, 0.12)
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=":")
    for point in points:
        index = methods.index(point["method"])
        look = {"color": stand_in(index), "gid": mark(index)}
        if point["low"] is not None:
            axes.plot([point["low"], point["high"]], [point["y"]] * 2, linewidth=1, **look)
        if point["se"] is not None:
            axes.plot([point["x"]] * 2, [point["y"] - point["se"], point["y"] + point["se"]], linewidth=1, **look)
        axes.plot([point["x"]], [point["y"]], style(index)["marker"], markersize=6.5, **look)
    xs, ys = [p["x"] for p in points] + [1.0], [p["y"] for p in points]
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 0.1
    axes.set_xlim(min(xs) - 0.12 * wide, max(xs) + 0.3 * wide)
    axes.set_ylim(min(ys) - 0.15 * high, max(ys) + 0.15 * high)
    _names(axes, points, methods)
    axes.set_xlabel("time of the run, × that of the baseline (left is cheaper)")
    axes.set_ylabel(label)
    axes.grid(color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "cost-" + alt, alt)


def _names(axes: Axes, points: list[dict[str, Any]], methods: Sequence[str]) -> None:
    """Each name beside its marker, at the first place where it covers no other name and no marker."""
    place = axes.transData.transform
    markers = [tuple(place((p["x"], p["y"]))) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in markers]
    for point, (x, y) in sorted(zip(points, markers, strict=True), key=lambda one: (-one[1][1], one[1][0])):
        length = 4.6 * len(point["method"]) * axes.figure.dpi / 72
        beside = [(9, 0), (9, -13), (9, 13), (-9 - length, 0), (-9 - length, 13), (-9 - length, -13), (9, -26), (9, 26)]
        boxes = [(x + dx, y + dy - 6, x + dx + length, y + dy + 6) for dx, dy in beside]
        own = (x - 6, y - 6, x + 6, y + 6)
        free = [b for b in boxes if not any(_meet(b, t) for t in taken if t != own)]
        box = (free or boxes)[0]
        taken.append(box)
        at = axes.transData.inverted().transform((box[0], (box[1] + box[3]) / 2))
        index = methods.index(point["method"])
        axes.text(*at, point["method"], size=8, va="center", color=INK, gid=mark(index))


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def products(rows: list[dict[str, Any]], methods: Sequence[str], alt: str) -> str:
    """Dot product of the gradients of batches of one step against examples, one line a seed."""
    axes = axes_of(3.9, 2.7, 0.66, 0.14)
    axes.locator_params(axis="x", nbins=6)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for row in rows:
        index = methods.index(row["method"])
        for one in row["lines"]:
            look = {"color": stand_in(index), "linestyle": DASHES[style(index)["dash"]], "gid": mark(index)}
            axes.plot(one["examples"], one["dot"], linewidth=1.2, alpha=0.85, **look)
    axes.set_xlabel("training examples seen")
    axes.set_ylabel("gradient dot product")
    axes.grid(axis="y", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "dot-" + alt, alt)


def densities(row: dict[str, Any], names: tuple[str, str], label: str, alt: str) -> str:
    """Two histograms over each other: corrupted examples (dashed) and the others (filled)."""
    axes, found = axes_of(3.9, 2.5, 0.5, 0.22), row["histogram"]
    axes.stairs(found["others"], found["edges"], color=stand_in(ONE), fill=True, alpha=0.3)
    axes.stairs(found["others"], found["edges"], color=stand_in(ONE), linewidth=1.3)
    axes.stairs(found["corrupted"], found["edges"], color=stand_in(OTHER), linewidth=1.5, linestyle="--")
    axes.axvline(0, color=FAINT, linewidth=0.8)
    for name, colour, y in ((names[0], OTHER, 0.97), (names[1], ONE, 0.88)):
        axes.text(0.02, y, name, transform=axes.transAxes, color=stand_in(colour), size=8, va="top")
    axes.set_xlabel(label)
    axes.set_ylabel("share of its examples")
    return svg_of(axes, "score-" + alt, alt)


def reliability(row: dict[str, Any], alt: str) -> str:
    """Accuracy against confidence, before (dashed, hollow) and after scaling; the diagonal is perfect."""
    axes = axes_of(3.9, 2.7, 0.5, 0.14)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    shapes = {"before": ("--", "none"), "after": ("-", stand_in(ONE))}
    for name, colour in (("before", OTHER), ("after", ONE)):
        line, face = shapes[name]
        points = row[name]["confidence"], row[name]["accuracy"]
        look = {"color": stand_in(colour), "linestyle": line, "markerfacecolor": face, "markersize": 4}
        axes.plot(*points, marker="o", linewidth=1.4, **look)
    for name, found, colour, y in (("before", row["ece"], OTHER, 0.97), ("after", row["ece_scaled"], ONE, 0.88)):
        look = {"color": stand_in(colour), "size": 8, "va": "top", "transform": axes.transAxes}
        axes.text(0.03, y, f"{name}: ECE {found['value']:.3f}", **look)
    low = min([*row["before"]["confidence"], *row["after"]["confidence"], *row["before"]["accuracy"], 0.95])
    axes.set_xlim(max(0.0, low - 0.08), 1.02)
    axes.set_ylim(min(axes.get_xlim()[0], min(row["after"]["accuracy"])) - 0.02, 1.05)
    axes.set_xlabel("mean confidence of a bin")
    axes.set_ylabel("accuracy")
    return svg_of(axes, "calibration-" + alt, alt)


def members(rows: list[dict[str, Any]], label: str, alt: str) -> str:
    """Members, their mean and the oracle with their intervals over test examples."""
    left = 0.3 + 0.068 * max(len(row["name"]) for row in rows)
    axes = axes_of(3.9, 0.6 + 0.28 * len(rows), left, 0.08)
    shown = [row for row in rows if row["primary"]["value"] is not None]
    for place, row in enumerate(shown):
        score = row["primary"]
        colour = {"mean": stand_in(ONE), "oracle": stand_in(OTHER)}.get(row["name"], INK)
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place] * 2, color=colour, linewidth=1.2)
        axes.plot([score["value"]], [place], MARKERS[{"mean": 2, "oracle": 3}.get(row["name"], 0)], color=colour)
    axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "ensemble-" + alt, alt)


PLACES = {
    "fetch": (0, 1), "corrupt": (1, 2), "pretrain": (1, 0), "train": (2, 2), "measure": (2, 0), "evaluate": (3, 2),
    "ensemble": (4, 2), "report": (4, 0),
}  # fmt: skip


def graph(stages: list[dict[str, Any]], alt: str) -> str:
    """Stages as boxes with how often each runs, an arrow from each to what reads it and no stage between them reads."""
    reads = {one["stage"]: one["reads"] for one in stages}

    def behind(name: str) -> set[str]:
        return {name}.union(*(behind(one) for one in reads[name]))

    axes = axes_of(6.6, 1.9, 0.1, 0.05, 0.05)
    axes.set_axis_off()
    axes.set_xlim(-0.5, 4.5)
    axes.set_ylim(-0.6, 2.6)
    for one in stages:
        x, y = PLACES[one["stage"]]
        between = set().union(*(behind(two) - {two} for two in one["reads"]))
        for before in (two for two in one["reads"] if two not in between):
            arrow = {"arrowstyle": "-|>", "color": FAINT, "linewidth": 0.8, "shrinkA": 26, "shrinkB": 27}
            axes.annotate("", (x, y), PLACES[before], arrowprops=arrow)
    for one in stages:
        x, y = PLACES[one["stage"]]
        frame = {"boxstyle": "round,pad=0.35", "facecolor": "none", "edgecolor": INK, "linewidth": 1}
        text = f"{one['stage']}\n{one['done']} of {one['asked']}" if one["done"] < one["asked"] else one["stage"]
        text = text if "\n" in text else f"{one['stage']}\n× {one['asked']}"
        axes.text(x, y, text, size=8, ha="center", va="center", color=INK, bbox=frame, linespacing=1.3)
    return svg_of(axes, "pipeline", alt)
