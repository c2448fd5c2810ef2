"""Figures as inline SVG: methods differ in marker and dashes, not only in colour, and colours follow the page's theme.

matplotlib draws with placeholder colours, which become CSS variables. A fixed salt and no metadata keep the bytes the
same for the same results.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
DASH_ARRAYS = ("", "5 3", "1 3", "6 3 1 3")  # DASHES as SVG, for the legend
INK, FAINT = "#010101", "#020202"
OVER = {"examples": "training examples seen", "step": "meta-steps"}  # what learning curves count
COLOURS = 8  # --m0 … --m7 of style.css; methods beyond share a colour and differ in marker and dashes


def style(index: int) -> dict[str, Any]:
    """Colour variable, marker and dashes of the method at this position of params.yaml, the same in every figure."""
    turn = index // COLOURS
    dash = (index + turn) % len(DASHES)
    return {"colour": f"var(--m{index % COLOURS})", "marker": MARKERS[(index + turn) % len(MARKERS)], "dash": dash}


def stand_in(index: int) -> str:
    """The placeholder for a method's colour, which `svg_of` replaces by the page's variable."""
    return f"#0a00{index % COLOURS:02x}"


def mark(index: int) -> str:
    """Id of a method's parts of a figure, which `svg_of` makes an attribute for the page's filters."""
    return f"method-{index}"


def curves(lines: dict[str, list[dict[str, list[float]]]], methods: Sequence[str], label: str, alt: str) -> str:
    """Selection score against examples or steps: the mean over seeds, a band from the lowest to the highest seed.

    Args:
        lines: method -> one history (`examples` or `step`, and `score`) per seed.
        methods: all of the report, in order: the place gives colour and marker.
        label: of the vertical axis.
        alt: text alternative of the figure.
    """
    axes = axes_of(3.9, 2.7, 0.5, 0.08)
    axes.locator_params(axis="x", nbins=6)
    over = next(name for name in next(iter(lines.values()))[0] if name != "score")
    for method, seeds in lines.items():
        index = methods.index(method)
        look = style(index)
        line = {"color": stand_in(index), "linestyle": DASHES[look["dash"]], "marker": look["marker"]}
        line |= {"linewidth": 1.5, "markersize": 3.5, "gid": mark(index)}
        if any(one[over] != seeds[0][over] for one in seeds):
            for one in seeds:  # a run that ended early has fewer points: no mean of unequal parts
                axes.plot(one[over], one["score"], **line)
            continue
        columns = list(zip(*(one["score"] for one in seeds), strict=True))
        axes.plot(seeds[0][over], [sum(c) / len(c) for c in columns], **line)
        if len(seeds) > 1:
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            band = {"color": stand_in(index), "alpha": 0.12, "linewidth": 0, "gid": mark(index)}
            axes.fill_between(seeds[0][over], low, high, **band)
    axes.set_xlabel(OVER[over])
    axes.set_ylabel(label)
    axes.grid(axis="y", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "curves-" + alt, alt)


def dots(
    rows: list[dict[str, Any]],
    references: list[dict[str, Any]],
    limits: tuple[float, float],
    methods: Sequence[str],
    label: str,
    alt: str,
) -> str:
    """A dot per seed, a bar for the mean, methods from top to bottom; chance and ceiling as lines.

    Args:
        rows: summaries of one condition and encoder.
        references: their rows of the results.
        limits: of the horizontal axis, the same in all panels.
        methods, label, alt: as in `curves`; the label is that of the horizontal axis.
    """
    axes = axes_of(3.9, 0.74 + 0.28 * len(rows), 0.25 + 0.068 * max(len(row["method"]) for row in rows), 0.32)
    for place, row in enumerate(rows):
        index = methods.index(row["method"])
        look, mean = style(index), row["primary"]
        colour = stand_in(index)
        own = {"color": colour, "gid": mark(index)}
        axes.plot(mean["values"], [place] * mean["n"], look["marker"], markersize=5, alpha=0.75, **own)
        if mean["value"] is None:
            axes.text(
                0.5,
                place,
                "no value",
                transform=axes.get_yaxis_transform(),
                color=FAINT,
                size=8,
                ha="center",
                va="center",
            )
            continue
        axes.plot([mean["value"]] * 2, [place - 0.32, place + 0.32], linewidth=2, **own)
        if mean["se"] is not None:
            axes.plot([mean["value"] - mean["se"], mean["value"] + mean["se"]], [place] * 2, linewidth=1, **own)
    axes.set_xlim(*limits)
    _lines(axes, {r["name"].removesuffix(" class"): r["primary"]["value"] for r in references})
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.35)
    return svg_of(axes, "dots-" + alt, alt)


def _lines(axes: Axes, values: dict[str, float]) -> None:
    """Dotted vertical lines labelled above; a label too near the previous one is raised."""
    for value in values.values():
        axes.axvline(value, color=FAINT, linewidth=1, linestyle=":")
    low, high = axes.get_xlim()
    before, height = low - (high - low), 0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        height = 9 if value - before < 0.16 * (high - low) and height == 0 else 0
        before = value
        axes.annotate(
            name, (value, 1.0), (0, 3 + height), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", size=7, color=FAINT,
        )  # fmt: skip


def swatch(index: int, name: str) -> str:
    """A method's line and marker for the legend, without its name."""
    look = style(index)
    dashes = f' stroke-dasharray="{DASH_ARRAYS[look["dash"]]}"' if look["dash"] else ""
    shape = {
        "o": '<circle cx="16" cy="6" r="3.5"/>',
        "s": '<rect x="12.5" y="2.5" width="7" height="7"/>',
        "D": '<path d="M16 1.5 20.5 6 16 10.5 11.5 6Z"/>',
        "^": '<path d="M16 2 20 10H12Z"/>',
        "v": '<path d="M16 10 20 2H12Z"/>',
        "P": '<path d="M14.5 2h3v2.5H20v3h-2.5V10h-3V7.5H12v-3h2.5Z"/>',
        "X": '<path d="m13 2 3 2.5L19 2l1 1-2.5 3L20 9l-1 1-3-2.5L13 10l-1-1 2.5-3L12 3Z"/>',
        "*": '<path d="m16 1 1.3 3.4h3.5L18 6.6l1 3.6-3-2.1-3 2.1 1-3.6-2.8-2.2h3.5Z"/>',
    }[look["marker"]]
    line = f'<path d="M0 6h32" stroke-width="1.8"{dashes}/>'
    colour = f"color:{look['colour']};stroke:currentColor;fill:currentColor"
    size = 'viewBox="0 0 32 12" width="32" height="12"'
    return f'<svg class="swatch" {size} aria-hidden="true" style="{colour}">{line}{shape}</svg>'


def axes_of(width: float, height: float, left: float, top: float, bottom: float = 0.42) -> Axes:
    """Figure size and margins in inches. Without pyplot: no window, no global state, half the import."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height)).add_axes(
        (left / width, bottom / height, (width - left - 0.18) / width, (height - bottom - top) / height)
    )  # a fixed frame takes half the time of a layout engine and aligns neighbouring panels
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=3)
    axes.xaxis.label.set(color=INK, size=8)
    axes.yaxis.label.set(color=INK, size=8)
    return axes


def svg_of(axes: Axes, salt: str, alt: str) -> str:
    """The figure as inline SVG with `alt` as its label; the same drawing gives the same bytes."""
    from html import escape

    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        axes.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # would apply to the whole page
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)  # the page's font
    svg = re.sub(r' id="method-(\d+)"', r' data-method="\1"', svg)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m.group(0) if m.group(1) in used else "", svg)  # ids are global
    svg = svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    svg = re.sub(r"#0a00([0-9a-f]{2})", lambda m: f"var(--m{int(m.group(1), 16)})", svg)
    head = f'<svg role="img" aria-label="{escape(alt, quote=True)}"'
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)  # as wide as its container
    return re.sub(r"<svg", head, svg, count=1).strip() + "\n"
