"""The answer in words. No gain is claimed without an interval that excludes zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.base.points import entry_name
from gradworks.report import form

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

_LINES = 4  # comparisons in the answer; the tables have the others


def answer(results: dict[str, Any]) -> list[str]:
    """At most six lines: the best method under each condition, then what this number of seeds can show."""
    baseline, primary = results["baseline"], results["primary"]
    lines, shown = [], []
    for (condition, encoder), family in families(results).items():
        others = [s for s in family if s["difference"]["primary"] is not None]
        if not others:
            continue
        known = [s for s in others if s["difference"]["primary"]["mean"] is not None]
        place = condition if _one_encoder(results, condition) else f"{condition}, {encoder}"
        if not known:
            lines.append(f"{place}: {_no_pair(baseline, family)}")
            continue
        best = max(known, key=lambda s: s["difference"]["primary"]["mean"] * primary["better"])
        shown.append((place, best["difference"]["primary"]))
        lines.append(f"{place}: {_verdict(results, best, family, len(others) - len(known))}")
    added = _steps(results)
    if not lines:
        return [f"Figures: {primary['name']}.", *added] if added else _alone(results)
    room = _LINES - len(added)
    if len(lines) > room:
        lines[room - 1 :] = [f"{form.count(len(lines) - room + 1)} more comparisons are in the tables."]
    return [f"Figures: {primary['name']}.", *added, *lines, *_power(shown[:room])]


def _steps(results: dict[str, Any]) -> list[str]:
    """What the steps of the waterfall add: their scores, and which of them is beyond chance; empty without two."""
    rows = [row for row in results.get("waterfall", []) if row["value"] is not None]
    if len(rows) < 2:
        return []
    scores = ", ".join(f"{row['name']} {form.number(row['value'])}" for row in rows)
    sure = [row for row in rows if row["gain"] and row["gain"]["verdict"] in ("gain", "loss")]
    found = [
        f"{row['name']} {'gains' if row['gain']['verdict'] == 'gain' else 'loses'} {form.gap(row['gain'])} "
        f"over {row['to']} ({row['gain']['covers']})"
        for row in sure
    ]
    tested = sum(row["gain"] is not None and row["gain"]["low"] is not None for row in rows)
    if tested > len(sure):
        found.append(f"{'no other' if sure else 'No'} step is beyond chance, of {tested} tested" if tested > 1
                     else "The one step tested is not beyond chance")  # fmt: skip
    elif not tested:
        found.append("No step has an interval")
    return [f"Steps, each against the one before: {scores}.", "; ".join(found) + "."]


def families(results: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(condition, encoder) -> the summaries to compare with each other."""
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for summary in results["summaries"]:
        made.setdefault((summary["condition"], summary["encoder"]), []).append(summary)
    return made


def _one_encoder(results: dict[str, Any], condition: str) -> bool:
    """Whether only one encoder of a condition has methods to compare."""
    return sum(c == condition and len(family) > 1 for (c, _), family in families(results).items()) == 1


def _alone(results: dict[str, Any]) -> list[str]:
    """The scores, if no two methods can be compared."""
    lines = []
    for (condition, encoder), family in families(results).items():
        lines += [f"{condition}, {encoder}: {said}" for said in (_found(s) for s in family) if said]
    if not lines:
        return [f"No cell has run yet; nothing to compare with {results['baseline']}."]
    if len(lines) > _LINES:
        lines[_LINES - 1 :] = [f"{form.count(len(lines) - _LINES + 1)} more results are in the tables."]
    return [f"Figures: {results['primary']['name']}.", *lines, "Only one method has a score, so nothing is compared."]


def _found(summary: dict[str, Any]) -> str:
    """`erm 0.512 ± 0.004 (3 seeds)`, `smart has no score: 2 OOM`; empty if none of its cells has run."""
    mean, states = summary["primary"], dict(summary.get("states") or {})
    ended = {state: n for state, n in states.items() if state not in ("ok", "not converged", "not run")}
    failed = ", ".join(f"{n} {state}" for state, n in ended.items())
    if mean["value"] is not None:
        said = f"{summary['method']} {form.over_seeds(mean)} ({form.seeds(mean['n'])})"
        return said + (f", {failed}" if failed else "")
    return f"{summary['method']} has no score: {failed}" if failed else ""


def _no_pair(baseline: str, family: list[dict[str, Any]]) -> str:
    """Why nothing is compared, and the scores so far."""
    own = next((s for s in family if s["method"] == baseline), None)
    there = [said for said in map(_found, family) if said]
    if not there:
        return f"nothing to compare with {baseline} yet"
    if own is None or own["primary"]["value"] is None:
        reason = "nothing to compare with"
    elif any(s["primary"]["value"] is not None for s in family if s is not own):
        reason = f"nothing to compare with {baseline}: no seed that both have"
    else:
        reason = f"nothing to compare with {baseline} yet: no other method has a score"
    return f"{reason}; {', '.join(there[:_LINES])}" + ("" if len(there) <= _LINES else f", {len(there) - _LINES} more")


def _verdict(results: dict[str, Any], best: dict[str, Any], family: list[dict[str, Any]], waiting: int) -> str:
    one, better = best["difference"]["primary"], results["primary"]["better"]
    # of the seeds that both have
    base, value, over = form.number(one["base"]), form.number(one["value"]), form.over(one)
    if one["verdict"] == "gain":
        more = f"p = {one['corrected_p']:.2g}, corrected over {form.methods(one['methods'])}"
        said = f"{best['method']} gains {form.gap(one)} over {one['to']}, from {base} to {value} ({over}; {more})"
    elif one["mean"] * better <= 0:
        said = f"no method is above {one['to']} ({base}); nearest is {best['method']}, {form.gap(one)}"
    else:
        reason = f"the interval holds 0 ({over})" if one["verdict"] == "undecided" else one["note"]
        reason = reason.replace("no interval: ", "no interval with ").replace("with all ", "as all ")
        reason += f"; {one['note']}" if one["verdict"] == "undecided" and one["note"] else ""
        said = f"{best['method']} is highest, {value} against {base} of {one['to']}: {form.gap(one)}"
        said += f"; no claim, {reason}"
    control = best["control"]["primary"]
    if control and control["mean"] is not None and control["to"] != one["to"]:
        said += f"; against its control {control['to']} {form.gap(control)}"
    said += f"; it takes {time}" if (time := _time(results, best)) else ""
    sure = _surest(results, family)
    if sure and one["verdict"] != "gain":
        gain = sure["difference"]["primary"]
        said += f"; {sure['method']} gains {form.gap(gain)} (p = {gain['corrected_p']:.2g}, corrected)"
    failed = ", ".join(said_ for s in family if s["primary"]["value"] is None and (said_ := _found(s)))
    said += f"; {failed}" if failed else ""
    waiting -= sum(s["primary"]["value"] is None and bool(_found(s)) for s in family if s["method"] != one["to"])
    return said + (f"; {form.methods(waiting)} without a value" if waiting > 0 else "")


def _time(results: dict[str, Any], best: dict[str, Any]) -> str:
    """`× 1.61 the time of erm on a CPU, 1 thread`, of whole runs; empty if it was not measured."""
    row = form.cost_of(results, best["encoder"], best["method"])
    if row is None:
        return ""
    before = f", including the {row['after']} run that it starts from," if row["after"] else ""
    return f"{form.run(row)} the time of {results['baseline']}{before} on {row['hardware']}"


def headline(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer as a table: for each condition and encoder the highest method, its lead, whether that is significant,
    and its time; then the highest significant gain, if that is another method's.
    """
    made, better = [], results["primary"]["better"]
    for (condition, encoder), family in families(results).items():
        known = [s for s in family if s["difference"]["primary"] and s["difference"]["primary"]["mean"] is not None]
        best = max(known, key=lambda s: s["difference"]["primary"]["mean"] * better, default=None)
        sure = _surest(results, family)
        for one in filter(None, [best, sure if sure is not best else None]):
            gap, spent = one["difference"]["primary"], form.cost_of(results, encoder, one["method"])
            row = {"condition": condition, "encoder": encoder, "method": one["method"], "highest": one is best}
            row["baseline"] = next(s["primary"]["value"] for s in family if s["method"] == gap["to"])
            row |= {"value": one["primary"]["value"], "gap": gap, "significant": significant(gap, better)}
            made.append(row | {"time": form.time(spent), "hardware": spent["hardware"] if spent else ""})
    return made


def _surest(results: dict[str, Any], family: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The highest gain that is significant after correction."""
    gains = [s for s in family if (s["difference"]["primary"] or {}).get("verdict") == "gain"]
    return max(gains, key=lambda s: s["difference"]["primary"]["mean"] * results["primary"]["better"], default=None)


def significant(one: dict[str, Any], better: int) -> str:
    """`yes: p = 0.01, corrected over 9 methods`, `no: p = 0.3, …`, `not tested: 1 seed, 2 are needed`."""
    if one["verdict"] == "no interval":
        return "not tested: " + one["note"].removeprefix("no interval: ")
    p = f"p = {one['corrected_p']:.2g}, corrected over {form.methods(one['methods'])}"
    if one["verdict"] == "undecided":
        return f"no: {p}"
    return f"yes, it loses: {p}" if one["mean"] * better < 0 else f"yes: {p}"


def _power(shown: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The smallest gain that the same rule would find, from the observed spread."""
    known = [
        f"{place} {form.number(one['detectable']) if one['detectable'] else 'none'} ({form.seeds(one['n'])})"
        for place, one in shown
        if one["se"] is not None
    ]
    if not known:
        return []
    return [f"Smallest true gain that this rule finds 4 times in 5: {', '.join(known)}."]


def checks(results: dict[str, Any], inputs: Inputs) -> list[dict[str, str]]:
    """The controls: rows that should not gain, and the ceiling. Each has a name, a verdict and a text."""
    return [*_nothing_to_gain(results, inputs), *_random(results, inputs), *_ceiling(results)]


def _nothing_to_gain(results: dict[str, Any], inputs: Inputs) -> list[dict[str, str]]:
    """Without corruption and on in-distribution test examples, there should be nothing to gain over plain training.

    It is a control beside a condition that is corrupted, or on a part of the test examples that is named for it: where
    all data are as they came, a gain is what the benchmark looks for.
    """
    which = "secondary" if results["secondary"] else "primary"
    conditions = (inputs.values.get("corrupt") or {}).get("conditions") or {}
    made: list[dict[str, str]] = []
    if not any(conditions.values()) and not results[which]["where"]:
        return made
    for (condition, encoder), family in families(results).items():
        if conditions.get(condition) or (which == "primary" and results["primary"]["where"]):
            continue
        found = [s for s in family if s["difference"][which] and s["difference"][which]["mean"] is not None]
        if found:
            best = max(found, key=lambda s: s["difference"][which]["mean"] * results[which]["better"])
            where = f"Condition {condition}, {encoder}, {results[which]['name']}: nothing to gain here"
            made.append(_check("nothing to gain", where, found, best, which))
    return made


def _random(results: dict[str, Any], inputs: Inputs) -> list[dict[str, str]]:
    """Weights drawn at random carry no information (Ren et al. 2018, section 4)."""
    points = {name: point or {} for name, point in inputs.values["methods"].items()}
    drawn = {name for name, point in points.items() if entry_name(point.get("weighting", "uniform")) == "random"}
    made = []
    for (condition, encoder), family in families(results).items():
        for one in family:
            pair = one["difference"]["primary"]
            if one["method"] in drawn and pair and pair["mean"] is not None:
                where = f"Condition {condition}, {encoder}: random weights carry no information"
                made.append(_check("random weights", where, [one], one, "primary"))
    return made


def _check(name: str, where: str, found: list[dict[str, Any]], best: dict[str, Any], which: str) -> dict[str, str]:
    one = best["difference"][which]
    gains = [s["method"] for s in found if s["difference"][which]["verdict"] == "gain"]
    if gains:
        verdict = "not as expected"
    elif any(s["difference"][which]["low"] is None for s in found):
        verdict = "values only"
    else:
        verdict = "as expected"
    seen = f"; a true one of {form.number(one['detectable'])} is found 4 times in 5" if one["detectable"] else ""
    note = f"; {one['note']}" if one["low"] is None else seen
    text = f"{where}. Highest against {one['to']}: {best['method']} {form.gap(one)}{note}."
    return {"name": name, "verdict": verdict, "text": text}


def _ceiling(results: dict[str, Any]) -> list[dict[str, str]]:
    rows = [r for r in results["references"] if r["name"] == "true rule"]
    low = [r for r in rows if r["primary"]["value"] < 1]
    if not rows:
        return []
    reached = ", ".join(f"{r['condition']} {form.number(r['primary']['value'])}" for r in rows)
    text = f"The rule that generated the labels reaches {reached} ({results['primary']['name']})."
    return [{"name": "true rule", "verdict": "not as expected" if low else "as expected", "text": text}]


def ensemble(one: dict[str, Any], better: int = 1) -> str:
    """Gain of the mean over the best member, disagreement of members, members left out."""
    left = [f"{name} ({state})" for name, state in one["left_out"].items()]
    out = [f"Left out: {', '.join(left)}."] if left else []
    if one["state"] != "ok":
        return " ".join([f"Nothing was averaged: {one['reason'] or one['state']}.", *out])
    scores = {row["name"]: row["primary"]["value"] for row in one["rows"]}
    members = {name: scores[name] for name in one["members"] if scores[name] is not None}
    said = []
    if len(members) == 1:
        said.append(
            f"{next(iter(members))} is the only member with predictions, so the mean and the oracle are its own."
        )
    elif members and None not in (scores["mean"], scores["oracle"]):
        best = max(members, key=lambda name: members[name] * better)
        over = form.signed(scores["mean"] - members[best])
        if one["against"].get("low") is not None:
            gap = {"mean": one["against"]["value"], **one["against"]}
            text = f"{one['against']['metric'].replace('_', ' ')} {form.gap(gap)} over {one['against']['member']}"
            said.append(f"The mean of {len(members)} members has on all test examples {text}, the best on selection.")
        else:
            text = f"is {over} against the best one ({best}), without an interval"
            said.append(f"The mean of {len(members)} members {text}.")
        oracle = form.signed(scores["oracle"] - members[best])
        said.append(f"A perfect choice among them, the oracle, would be {oracle}.")
    pairs = one["disagreement"].values()
    if pairs:
        span = f"{min(pairs):.1%} to {max(pairs):.1%}" if len(pairs) > 1 else f"{max(pairs):.1%}"
        said.append(f"Pairs of members disagree on {span} of the test examples.")
    said += [_bucket(pair) for pair in one["pairs"]]
    said += [f"{name.capitalize()}: {rule['note']}." for name, rule in one["rules"].items() if "note" in rule]
    return " ".join(said + out)


def _bucket(pair: dict[str, Any]) -> str:
    """`uncased and cased: both right 210, only uncased 20, only cased 12, both wrong 35 (McNemar p = 0.22)...`."""
    names = {
        "both right": "both right",
        "only the first": f"only {pair['first']}",
        "only the second": f"only {pair['second']}",
        "both wrong": "both wrong",
    }
    counts = ", ".join(f"{said} {form.count(pair['counts'][name])}" for name, said in names.items())
    right = 1 - pair["counts"]["both wrong"] / pair["n"]
    about = f"(McNemar's exact p = {pair['p']:.2g}); either is right on {right:.1%}"
    return f"{pair['first']} and {pair['second']}: {counts} {about}."


def _where(rows: list[dict[str, Any]]) -> str:
    """`; label: 4, 9`: the values that rows have which are used."""
    said = {
        f"{column}: {', '.join(map(str, v if isinstance(v, list) else [v]))}"
        for one in rows
        for column, v in one.items()
    }
    return "".join(f"; {one}" for one in sorted(said))


def data(made: dict[str, Any], splits: dict[str, Any], parts: dict[str, dict[str, Any]] | None = None) -> str:
    """The data behind the figures: generated, a sample, or whole sets.

    Args:
        made: what `fetch` and `corrupt` wrote.
        splits: of the project's task. parts: those of other tasks, by name.
    """
    used = [split or {} for name, split in splits.items() if name in ("train", "test")]
    sampled = any(split.get("size") for split in used)
    others = [one[name] or {} for one in (parts or {}).values() for name in ("train", "test") if name in one]
    cut = {split.get("from", "").partition("/")[0] for split in others if split.get("size")}
    said = []
    for name, source in made["sources"].items():
        kind = source.get("from", "").partition(":")[0]
        if kind == "synthetic":
            said.append(f"synthetic data ({source['from']}, generated with seed {source.get('seed', 0)})")
        else:
            rows = [
                split["where"] for split in used if split.get("where") and split.get("from", "").startswith(f"{name}/")
            ]
            drawn = sampled or source.get("rows") or name in cut
            part = "a sample" if drawn else "a part" if rows else "the whole"
            said.append(f"{part} of {name} ({source.get('from')}{_where(rows)})")
    rows = [one["splits"] for one in made["conditions"].values()]
    numbers = ""
    if rows and {"train", "test"} <= rows[0].keys():
        train = sorted({one["train"]["rows"] for one in rows})
        span = form.count(train[0]) if len(train) == 1 else f"{form.count(train[0])} to {form.count(train[-1])}"
        numbers = f": {span} training and {form.count(rows[0]['test']['rows'])} test examples"
    return f"On {' and '.join(said) or 'data of unknown source'}{numbers}."
