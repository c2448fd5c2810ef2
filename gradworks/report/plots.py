"""Pictures of cost, gradients, scores of examples, calibration, ensembles and the pipeline, drawn as in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.report.figures import DASHES, FAINT, INK, MARKERS, axes_of, mark, stand_in, style, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ONE, OTHER = 1, 2  # colours for two series that are not methods: --m1 and --m2


def scatter(points: list[dict[str, Any]], methods: Sequence[str], label: str, alt: str) -> str:
    """Quality against cost: a marker with its name, bars for the interval of the time and the standard error.

    Args:
        points: method, x, low, high (None: no interval), y, se (None below three seeds).
        methods: all of the report, in order: the place gives colour and marker.
        label: of the vertical axis.
        alt: text alternative of the figure.
    """
    axes = axes_of(5.2, 3.3, 0.64, 0.12)
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=":")
    for point in points:
        index = methods.index(point["method"])
        look = {"color": stand_in(index), "gid": mark(index)}
        along, up = _bars(point)
        axes.plot(along, [point["y"]] * 2, linewidth=1, **look)
        axes.plot([point["x"]] * 2, up, linewidth=1, **look)
        axes.plot([point["x"]], [point["y"]], style(index)["marker"], markersize=6.5, **look)
    bars = [_bars(point) for point in points]
    left, right = min([1.0, *(x[0] for x, _ in bars)]), max([1.0, *(x[1] for x, _ in bars)])
    low, high = min(y[0] for _, y in bars), max(y[1] for _, y in bars)
    wide, tall = right - left or 1.0, high - low or 0.1
    axes.set_xlim(left - 0.12 * wide, right + 0.3 * wide)
    axes.set_ylim(low - 0.1 * tall, high + 0.1 * tall)
    _names(axes, points, methods)
    axes.set_xlabel("time of the run, × that of the baseline (left is cheaper)")
    axes.set_ylabel(label)
    axes.grid(color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "cost-" + alt, alt)


def _bars(point: dict[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of a point's horizontal and vertical bars; times are cut at 0."""
    se = point["se"] or 0.0
    along = (point["x"], point["x"]) if point["low"] is None else (max(0.0, point["low"]), point["high"])
    return along, (point["y"] - se, point["y"] + se)


def _names(axes: Axes, points: list[dict[str, Any]], methods: Sequence[str]) -> None:
    """Each name beside its marker, at the nearest place that covers no other name, marker or bar."""
    place = axes.transData.transform
    markers = [tuple(place((p["x"], p["y"]))) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in markers]
    for point, (x, y) in zip(points, markers, strict=True):
        (left, right), (low, high) = _bars(point)
        ends = place([(left, low), (right, high)])
        taken += [(ends[0][0], y - 2, ends[1][0], y + 2), (x - 2, ends[0][1], x + 2, ends[1][1])]
    frame = axes.bbox
    for point, (x, y) in sorted(zip(points, markers, strict=True), key=lambda one: (-one[1][1], one[1][0])):
        length = 4.6 * len(point["method"]) * axes.figure.dpi / 72
        ups = sorted((step * 6.5 for step in range(-12, 13)), key=abs)
        beside = [(dx, dy) for dy in ups for dx in (9, -9 - length)]
        boxes = [(x + dx, y + dy - 6, x + dx + length, y + dy + 6) for dx, dy in beside]
        inside = [b for b in boxes if b[0] > frame.x0 and b[2] < frame.x1 and b[1] > frame.y0 and b[3] < frame.y1]
        free = [b for b in inside if not any(_meet(b, t) for t in taken)]
        box = (free or inside or boxes)[0]
        taken.append(box)
        index = methods.index(point["method"])
        middle = (box[1] + box[3]) / 2
        at = axes.transData.inverted().transform((box[0], middle))
        if abs(middle - y) > 13:  # too far away to be read without a line
            edge = box[0] - 2 if box[0] > x else box[2] + 2
            ends = axes.transData.inverted().transform([(x, y), (edge, middle)])
            axes.plot(*zip(*ends, strict=True), color=stand_in(index), linewidth=0.5, gid=mark(index))
        axes.text(*at, point["method"], size=8, va="center", color=INK, gid=mark(index))


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def products(rows: list[dict[str, Any]], methods: Sequence[str], of: str, label: str, alt: str) -> str:
    """`of` two gradients, their `dot` or `cosine`, against examples, one line a seed."""
    axes = axes_of(3.9, 2.7, 0.66, 0.14)
    axes.locator_params(axis="x", nbins=6)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for row in rows:
        index = methods.index(row["method"])
        for one in row["lines"]:
            look = {"color": stand_in(index), "linestyle": DASHES[style(index)["dash"]], "gid": mark(index)}
            axes.plot(one["examples"], one[of], linewidth=1.2, alpha=0.85, **look)
    axes.set_xlabel("training examples seen")
    axes.set_ylabel(label)
    axes.grid(axis="y", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, f"{of}-{alt}", alt)


def densities(
    edges: Sequence[float], dashed: Sequence[float], filled: Sequence[float], names: tuple[str, str], label: str,
    alt: str,
) -> str:  # fmt: skip
    """Two overlaid histograms; `names`: of the dashed one, of the filled one."""
    axes = axes_of(3.9, 2.5, 0.5, 0.22)
    axes.stairs(filled, edges, color=stand_in(ONE), fill=True, alpha=0.3)
    axes.stairs(filled, edges, color=stand_in(ONE), linewidth=1.3)
    axes.stairs(dashed, edges, color=stand_in(OTHER), linewidth=1.5, linestyle="--")
    if edges[0] < 0 < edges[-1]:
        axes.axvline(0, color=FAINT, linewidth=0.8)
    for name, colour, y in ((names[0], OTHER, 0.97), (names[1], ONE, 0.88)):
        axes.text(0.02, y, name, transform=axes.transAxes, color=stand_in(colour), size=8, va="top")
    axes.set_xlabel(label)
    axes.set_ylabel("share of its examples")
    return svg_of(axes, "score-" + alt, alt)


def reliability(row: dict[str, Any], alt: str) -> str:
    """Accuracy against confidence, before (dashed, hollow) and after scaling; the diagonal is perfect. Below it
    the number of examples in each bin, before scaling.
    """
    axes = axes_of(3.9, 3.2, 0.5, 0.14, 1.05)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    shapes = {"before": ("--", "none"), "after": ("-", stand_in(ONE))}
    drawn = [(name, found) for name, found in (("before", row["ece"]), ("after", row["ece_scaled"])) if found["n"]]
    for name, found in drawn:
        colour, y = (OTHER, 0.97) if name == "before" else (ONE, 0.89)
        line, face = shapes[name]
        points = row[name]["confidence"], row[name]["accuracy"]
        look = {"color": stand_in(colour), "linestyle": line, "markerfacecolor": face, "markersize": 4}
        axes.plot(*points, marker="o", linewidth=1.4, **look)
        look = {"color": stand_in(colour), "size": 8, "va": "top", "transform": axes.transAxes}
        axes.text(0.03, y, f"{name}: ECE {found['value']:.3f}", **look)
    xs = [x for name, _ in drawn for x in row[name]["confidence"]]
    ys = [y for name, _ in drawn for y in row[name]["accuracy"]]
    low = min([*xs, *ys, 0.95])
    axes.set_xlim(max(0.0, min([*xs, 0.95]) - 0.08), 1.02)
    axes.set_ylim(max(-0.03, low - 0.08), 1.05)
    axes.set_ylabel("accuracy")
    axes.tick_params(labelbottom=False)
    _counts(axes, row["before"])
    return svg_of(axes, "calibration-" + alt, alt)


def _counts(above: Axes, found: dict[str, list[float]]) -> None:
    """A bar per bin under the axes `above`, labelled with its number of examples."""
    frame = above.get_position()
    axes = above.figure.add_axes((frame.x0, 0.4 / 3.2, frame.width, 0.45 / 3.2), sharex=above)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=3, labelleft=False, left=False)
    most = max(found["n"])
    axes.vlines(found["confidence"], 0, found["n"], color=stand_in(OTHER), linewidth=5)
    for x, n in zip(found["confidence"], found["n"], strict=True):
        axes.text(x, n + 0.06 * most, f"{n:.0f}", size=6, ha="center", color=INK)
    axes.set_ylim(0, 1.35 * most)
    axes.set_ylabel("n", color=INK, size=8)
    axes.set_xlabel("mean confidence of a bin", color=INK, size=8)


RULES = {
    "mean": 2,
    "scaled": 4,
    "greedy": 5,
    "weighted": 6,
    "uniform soup": 7,
    "greedy soup": 7,
    "oracle": 3,
}  # places in MARKERS


def members(rows: list[dict[str, Any]], label: str, alt: str) -> str:
    """Members, their mean, further rules and the oracle with their intervals over test examples."""
    left = 0.3 + 0.068 * max(len(row["name"]) for row in rows)
    axes = axes_of(3.9, 0.6 + 0.28 * len(rows), left, 0.08)
    shown = [row for row in rows if row["primary"]["value"] is not None]
    for place, row in enumerate(shown):
        score = row["primary"]
        rule = row["name"] if row["name"] in RULES else None  # no member
        colour = stand_in(OTHER if rule == "oracle" else ONE) if rule else INK
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place] * 2, color=colour, linewidth=1.2)
        axes.plot([score["value"]], [place], MARKERS[RULES.get(rule, 0)], color=colour)
    axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "ensemble-" + alt, alt)


PLACES = {
    "fetch": (0, 1), "corrupt": (1, 2), "pretrain": (1, 0), "train": (2, 2), "measure": (2, 0), "evaluate": (3, 2),
    "ensemble": (4, 2), "report": (4, 0), "label": (0.4, 2.35), "slice": (1.5, 1.15),
}  # fmt: skip


def graph(stages: list[dict[str, Any]], alt: str) -> str:
    """Stages as boxes with their number of runs; arrows to the stages that read them, transitive ones left out."""
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
