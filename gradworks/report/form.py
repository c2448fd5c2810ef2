"""Formatting of numbers, the same in HTML, Markdown and the terminal."""

from __future__ import annotations

from typing import Any

MARKS = {"OOM": "†", "diverged": "‡", "not converged": "*", "not run": "…", "inactive": "°"}
MEANINGS = {
    "OOM": "ran out of memory",
    "diverged": "loss or gradient was not finite",
    "not converged": "no better on the selection split than a constant prediction; its score counts",
    "not run": "no result",
    "inactive": "its smoothness term has below 0.1 % of the loss's gradient: in effect plain training",
}
RULE = (
    "Differences are paired by seed. Their 95 % intervals and p-values, from two seeds on, hold simultaneously for all "
    "methods of a table (Dunnett). The spread over seeds is pooled over the methods, without cells that did not "
    "converge and methods that clearly spread more; a method that spreads more than the pool (with three seeds: whose "
    "variance is twice the pool's) counts with its own spread (Welch), and “spreads differ” marks where that is clear. "
    "An interval that names test examples covers seeds and test examples, any other seeds only. A gain is claimed only "
    "if the interval excludes zero; at most 5 % of tables without any true difference make such a claim. “Detectable” "
    "is the smallest true difference that this rule finds with 80 % power, given the observed spread."
)


def number(value: float | None) -> str:
    """Three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """With its sign, a true minus."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def count(value: int | None) -> str:
    """Thousands separated by a narrow space."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def over_seeds(mean: dict[str, Any]) -> str:
    """`0.642 ± 0.004`; below three seeds the values themselves."""
    if mean["se"] is not None:
        return f"{number(mean['value'])} ± {number(mean['se'])}"
    return ", ".join(map(number, mean["values"])) or "–"


def interval(one: dict[str, Any]) -> str:
    """`[+0.010, +0.054]`; empty without an interval."""
    return "" if one["low"] is None else f"[{signed(one['low'])}, {signed(one['high'])}]"


def gap(one: dict[str, Any] | None) -> str:
    """`+0.032 [+0.010, +0.054]`; without an interval the difference of each seed."""
    if one is None or one["mean"] is None:
        return "–"
    if one["low"] is not None:
        return f"{signed(one['mean'])} {interval(one)}"
    return f"{signed(one['mean'])} ({', '.join(map(signed, one['values']))})"


def share(value: float | None) -> str:
    """`12.5 %`; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def measured(one: dict[str, Any] | None) -> str:
    """`0.812 [0.700, 0.890], 48 votes`; a dash for None."""
    if one is None:
        return "–"
    return f"{number(one['accuracy'])} [{number(one['low'])}, {number(one['high'])}], {count(one['votes'])} votes"


def states(found: dict[str, int], inactive: bool = False) -> str:
    """`2 of 3, 1 OOM†`: how many cells have a score, and the states of the others; `3, inactive°`."""
    total = sum(found.values())
    good = found.get("ok", 0) + found.get("not converged", 0)
    others = [f"{n} {state}{MARKS[state].strip('…')}" for state, n in found.items() if state != "ok"]
    others += [f"inactive{MARKS['inactive']}"] * inactive
    return ", ".join([f"{good} of {total}" if good < total else str(total), *others])


def marked(rows: list[dict[str, Any]]) -> list[str]:
    """States and labels of summaries that need an explanation, each once."""
    seen = [state for row in rows for state in [*row["states"], *["inactive"] * row["inactive"]] if state != "ok"]
    return list(dict.fromkeys(seen))


def ratio(value: float | None) -> str:
    """`× 1.61`; a dash for None."""
    return "–" if value is None else f"× {value:.2f}"


def ratio_interval(part: dict[str, Any] | None) -> str:
    """`× 1.61 [1.58, 1.65]` of a part of the cost; a dash if it was not measured."""
    if not part or part.get("ratio") is None:
        return "–"
    low, high = part.get("low"), part.get("high")
    return ratio(part["ratio"]) + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def time(row: dict[str, Any] | None) -> str:
    """Time of a whole run in runs of the baseline: `× 1.61`; with the run it starts from `× 1.30, erm included`."""
    if row is None or row["total"] is None:
        return "–"
    if row["as_long_as"]:
        return f"{ratio(row['total'])}, as long as {row['as_long_as']}"
    return ratio(row["total"]) + (f", {row['after']} included" if row["after"] else "")


def time_interval(row: dict[str, Any]) -> str:
    """`time` with its interval, if any: `× 1.61 [1.55, 1.68]`."""
    return time(row) if row["total_low"] is None else time(row).replace(ratio(row["total"]), run(row), 1)


def run(row: dict[str, Any]) -> str:
    """`× 1.61 [1.55, 1.68]` of a whole run."""
    return ratio_interval({"ratio": row["total"], "low": row["total_low"], "high": row["total_high"]})


def size(count: float | None) -> str:
    """Bytes: `3.2 MiB`."""
    return scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def amount(value: float | None, unit: str = "") -> str:
    """`3.2 M`; three digits and a decimal prefix."""
    return scaled(value, 1000, ("", "k", "M", "G", "T", "P", "E")).strip() + unit


def money(value: float) -> str:
    """`12.34`; three digits if it is less than one."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def scaled(value: float | None, base: int, names: tuple[str, ...]) -> str:
    """`value` with the prefix that leaves one to three digits before the point."""
    if value is None:
        return "–"
    place = 0
    while abs(value) >= base and place < len(names) - 1:
        value, place = value / base, place + 1
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {names[place]}"


def seeds(n: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} seed" + "s" * (n != 1)


def over(one: dict[str, Any]) -> str:
    """What an interval covers: `3 seeds, 1 500 test examples`; `3 seeds` without the examples."""
    examples = f", {count(one['examples'])} test examples" if one["examples"] else ""
    return seeds(one["n"]) + examples + (", spreads differ" if one["spreads"] == "differ" else "")


def methods(n: int) -> str:
    """`1 method`, `3 methods`."""
    return f"{n} method" + "s" * (n != 1)


def verdict(one: dict[str, Any]) -> str:
    """`gain, p = 0.01`, `undecided, p = 0.2, spreads differ`, `no interval: 1 seed`."""
    if one["verdict"] == "no interval":
        return one["note"].partition(", ")[0]
    return f"{one['verdict']}, p = {one['corrected_p']:.2g}" + (", spreads differ" * (one["spreads"] == "differ"))


def plain_interval(score: dict[str, Any]) -> str:
    """`[0.61, 0.67]` of a score over examples, or why there is none."""
    if score["low"] is None:
        return f"({score['note']})" if score.get("note") else ""
    return f"[{number(score['low'])}, {number(score['high'])}]"


def plain_intervals(scores: list[dict[str, Any]]) -> str:
    """`[0.61, 0.67], [0.60, 0.66]`: those of several seeds; a dash without any."""
    return ", ".join(filter(None, map(plain_interval, scores))) or "–"


def corruption(done: dict[str, dict[str, Any]]) -> str:
    """`3 000 labels redrawn, 2 010 of them changed`; `none`."""
    said = {"noise": "{} labels redrawn", "imbalance": "{} rows removed", "leak": "{} test examples added"}
    parts = []
    for kind, found in done.items():
        rows = said.get(kind, kind + ": {} rows").format(count(found["rows"]))
        parts.append(rows + (f", {count(found['changed'])} of them changed" if kind == "noise" else ""))
    return "; ".join(parts) or "none"


def point(method: dict[str, Any]) -> str:
    """A method as params.yaml gives it, on one line; `plain training` for an empty one."""
    import json

    return json.dumps(method)[1:-1].replace('"', "") or "plain training"


def cost_of(results: dict[str, Any], encoder: str, method: str) -> dict[str, Any] | None:
    """The row of an encoder and method that has a time."""
    for row in results["cost"]["rows"]:
        if (row["encoder"], row["method"]) == (encoder, method) and row["total"] is not None:
            return row
    return None
