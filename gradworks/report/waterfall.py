"""The waterfall: what each of a row of steps adds to the one before it, each gain with its interval.

A step is a group of cells or an ensemble, as `report.waterfall` lists them: one signal more each time, as in Hancock et
al. (Massive Multi-Task Learning with Snorkel MeTaL, 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks import ensembles, metrics
from gradworks.report import examples, form
from gradworks.report.differences import bounds, differences
from gradworks.report.figures import FAINT, INK, axes_of, stand_in, svg_of
from gradworks.report.forest import PAGE
from gradworks.report.read import figure

if TYPE_CHECKING:
    import numpy as np

    from gradworks.report.settings import Inputs, Step

_GAIN, _LOSS = 1, 2  # places of colours


def waterfall(inputs: Inputs) -> list[dict[str, Any]]:
    """A row for each step of `report.waterfall`.

    `value`: the primary score, the mean over `seeds` seeds (1 and no spread of an ensemble); None without a result.
    `gain`: the difference to the last step with a result, `to`, as results.json has differences: over seeds and test
    examples where both steps have two seeds in common, corrected over all steps, else over test examples only, as
    `covers` says. `published`, `published_gain`: of params.yaml.
    """
    steps = inputs.settings.waterfall
    found = [_step(inputs, one) for one in steps]
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[int, int]] = []
    before: int | None = None
    published: float | None = None
    for place, (one, made) in enumerate(zip(steps, found, strict=True)):
        row = {"name": one.name, "of": one.of, "value": made["value"], "seeds": len(made["values"]), "n": made["n"]}
        row |= {"published": one.published, "published_gain": None, "gain": None, "to": None}
        if one.published is not None and published is not None:
            row["published_gain"] = one.published - published
        published = one.published if one.published is not None else published
        if made["value"] is not None:
            if before is not None:
                pairs.append((place, before))
                row["to"] = steps[before].name
            before = place
        rows.append(row)
    for (place, _), gain in _gains(inputs, found, pairs).items():
        rows[place]["gain"] = gain
    return rows


def _step(inputs: Inputs, step: Step) -> dict[str, Any]:
    """Scores by seed, what each test example adds by seed, and the mean score."""
    target, made = inputs.settings.primary, {"values": {}, "shares": {}, "weak": set(), "n": None}
    if step.ensemble:
        found = inputs.ensembles[step.ensemble]["metrics"]
        rule = inputs.ensembles[step.ensemble].get("rule", "").removeprefix(" --rule ") or "mean"
        scores = found if rule == "mean" else found.get("rules", {})
        files = {None: (scores.get(rule), inputs.runs / "ensemble" / step.ensemble)}
    else:
        files = {cell["seed"]: (inputs.metrics[key], inputs.runs / "evaluate" / cell["path"])
                 for key, cell in inputs.cells.items() if step.holds(cell)}  # fmt: skip
        made["weak"] = {cell["seed"] for key, cell in inputs.cells.items()
                        if step.holds(cell) and inputs.metrics[key]["state"] != "ok"}  # fmt: skip
    for seed, (scores, folder) in files.items():
        if not scores or scores.get("state", "ok") not in examples.SCORED:
            continue
        score = figure(scores, target, f"report.waterfall: {step.name}")
        if score is not None and score["value"] is not None:
            made["values"][seed], made["n"] = score["value"], score["n"]
            made["shares"][seed] = examples.shares(inputs, folder / "predictions.parquet", target)
    values = list(made["values"].values())
    return made | {"value": sum(values) / len(values) if values else None}


def _gains(
    inputs: Inputs, found: list[dict[str, Any]], pairs: list[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, Any]]:
    """The difference of each pair of steps."""
    target = inputs.settings.primary
    better, limits = metrics.better(target.metric), bounds(target.metric)
    several = [(a, b) for a, b in pairs if len(_common(found[a], found[b])) > 1]
    named = {str(i): one for i, one in enumerate(found)}
    spread = {}
    for a, b in several:
        both = [(found[a]["shares"][s], found[b]["shares"][s]) for s in _common(found[a], found[b])]
        if (error := examples.error(both)) is not None:
            spread[str(a), str(b)] = error
    made = differences({name: one["values"] for name, one in named.items()},
                       {name: one["weak"] for name, one in named.items()},
                       [(str(a), str(b)) for a, b in several], better, spread, False, limits)  # fmt: skip
    gains = {}
    for a, b in pairs:
        one = made.get((str(a), str(b))) if (a, b) in several else None
        if one is None or one["low"] is None:
            one = _over_examples(found[a], found[b], better, len(pairs))
        else:
            one |= {"covers": form.over(one)}
        gains[a, b] = {k: one[k] for k in ("mean", "low", "high", "verdict", "covers")}
    return gains


def _common(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    return [seed for seed in one["values"] if seed is not None and seed in other["values"]]


def _over_examples(one: dict[str, Any], other: dict[str, Any], better: int, comparisons: int) -> dict[str, Any]:
    """The difference of the mean scores, with an interval over test examples only: seeds may not vary."""
    sides = [_mean_shares(side) for side in (one, other)]
    made = {"mean": one["value"] - other["value"], "low": None, "high": None, "verdict": "no interval"}
    if any(side is None for side in sides) or list(sides[0][0]) != list(sides[1][0]):
        return made | {"covers": "no interval: not the same test examples"}
    span = ensembles.gap(sides[0][1], sides[1][1], comparisons)
    if span is None:
        return made | {"covers": "no interval: too few test examples"}
    verdict = "undecided" if span[0] <= 0 <= span[1] else "gain" if made["mean"] * better > 0 else "loss"
    n = f"{form.count(len(sides[0][0]))} test examples, not seeds"
    return made | {"low": span[0], "high": span[1], "verdict": verdict, "covers": n}


def _mean_shares(one: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Sorted ids, and what each example adds, the mean over seeds."""
    shares = list(one["shares"].values())
    if not shares or any(each is None or list(each[0]) != list(shares[0][0]) for each in shares):
        return None
    return shares[0][0], sum(each[1] for each in shares) / len(shares)


def said(row: dict[str, Any]) -> str:
    """`+0.059 [+0.011, +0.107], gain`; words where there is no gain to speak of."""
    if row["value"] is None:
        return "no result yet"
    gain = row["gain"]
    if gain is None:
        return "the first step"
    if gain["low"] is None:
        return f"{form.signed(gain['mean'])}, no interval"
    return f"{form.signed(gain['mean'])} {form.interval(gain)}, {gain['verdict']}"


def picture(rows: list[dict[str, Any]], label: str, better: int = 1) -> str:
    """Steps from top to bottom: a bar from the score before to the step's own, its interval, and both as numbers.

    Args:
        rows: of `waterfall`, at least one with a value.
        label: of the axis. better: 1 if a higher score is better, -1 if a lower one is.
    """
    left, right = 0.35 + 0.068 * max(len(row["name"]) for row in rows), 2.75
    width, height = 8.4, 0.85 + 0.42 * len(rows)
    axes = axes_of(width, height, left, 0.28)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, (width - left - right) / width, box.height))
    text = {"size": 8, "va": "center", "color": INK}
    beside = {"transform": axes.get_yaxis_transform(), **text}
    told, xs, before = [], [], None
    for place, row in enumerate(rows):
        axes.text(1.02, place, "–" if row["value"] is None else form.number(row["value"]), weight="bold", **beside)
        axes.text(1.14, place, said(row), **beside)
        told.append(f"{row['name']} {form.number(row['value'])} ({said(row)})")
        if row["published"] is not None:
            axes.plot([row["published"]], [place + 0.3], "D", markersize=3.5, color=FAINT, markerfacecolor=PAGE)
            xs.append(row["published"])
        if row["value"] is None:
            continue
        xs.append(row["value"])
        if before is not None:
            gain, last = row["gain"], before[1]
            way = (row["value"] - last) * better
            colour = stand_in(_GAIN if way >= 0 else _LOSS)
            sure = gain["verdict"] in ("gain", "loss")
            axes.barh(place, row["value"] - last, left=last, height=0.46, color=colour if sure else PAGE,
                      edgecolor=colour, linewidth=1.2)  # fmt: skip
            axes.plot([last] * 2, [before[0], place], color=FAINT, linewidth=0.8, linestyle=":")
            if gain["low"] is not None:
                ends = [last + gain["low"], last + gain["high"]]
                axes.plot(ends, [place] * 2, color=PAGE, linewidth=3.4)  # seen on a filled bar, too
                axes.plot(ends, [place] * 2, color=INK, linewidth=1.1)
                axes.plot(ends, [place] * 2, "|", color=INK, markersize=7)
                xs += ends
        axes.plot([row["value"]] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=2)
        before = place, row["value"]
    margin = 0.05 * (max(xs) - min(xs)) or 0.05
    axes.set_xlim(min(xs) - margin, max(xs) + margin)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    head = {"transform": axes.transAxes, "size": 7, "color": FAINT, "va": "bottom"}
    axes.text(1.02, 1.0, "score", **head)
    axes.text(1.14, 1.0, "against the step above, 95 % interval", **head)
    axes.locator_params(axis="x", nbins=6)
    way = "higher" if better > 0 else "lower"
    shown = "; ◇ published" if any(row["published"] is not None for row in rows) else ""
    axes.set_xlabel(f"{label} ({way} is better; filled: beyond chance, hollow: undecided{shown})")
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.35)
    alt = f"What each step adds, {label}: " + "; ".join(told)
    return svg_of(axes, "waterfall-" + alt, alt).replace(PAGE, "var(--page)")
