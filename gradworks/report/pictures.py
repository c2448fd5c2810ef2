"""The pictures of the page, each with its text alternative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.report import details, figures, forest, form, plots, read, waterfall, words

if TYPE_CHECKING:
    from markupsafe import Markup

    from gradworks.report.settings import Inputs

KINDS = {"noise": ("label changed", "label as it was"), "leak": ("leaked test example", "own training example")}


def pictures(results: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Name of a section -> its figures: title, condition, encoder, SVG. Also `legend` and `style`."""
    methods = method_names(results)
    made: dict[str, Any] = {"style": markup(_style())}
    made["legend"] = [(i, method, markup(figures.swatch(i, method))) for i, method in enumerate(methods)]
    made["gains"] = _gains(results, methods)
    made["dots"] = _dots(results, methods)
    made["costs"] = _costs(results, methods)
    made["waterfall"] = _waterfall(results)
    made["curves"] = _curves(results, inputs, methods, "selection")
    made["over"] = figures.OVER[inputs.task.paced]
    made["losses"] = _curves(results, inputs, methods, "loss")
    made["gradients"] = _gradients(results, methods, "gradients", "dot", "gradient dot product")
    made["agreement"] = _gradients(results, methods, "agreement", "cosine", "cosine of task gradients")
    made["detection"] = [_detection(row) for row in results["detection"]]
    made["calibration"] = _calibration(results)
    made["values"] = [_values(results, row) for row in results.get("values", [])]
    made["ensembles"] = {one["name"]: _members(results, one) for one in results["ensembles"] if one["rows"]}
    alt = "The stages and how often each runs: " + ", ".join(f"{s['stage']} {s['asked']}" for s in results["pipeline"])
    made["pipeline"] = markup(plots.graph(results["pipeline"], alt))
    return made


def method_names(results: dict[str, Any]) -> list[str]:
    """All methods in the order of the cells; the position identifies a method in all figures."""
    return list(dict.fromkeys(summary["method"] for summary in results["summaries"]))


def highlighted(results: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a row is of the baseline or of the highest method of its condition and encoder."""
    best = {(h["condition"], h["encoder"]): h["method"] for h in results["headline"] if h["highest"]}
    return row["method"] in (results["baseline"], best.get((row["condition"], row["encoder"])))


def markup(text: str) -> Markup:
    """Our own markup around escaped names, safe to insert unescaped."""
    from markupsafe import Markup

    return Markup(text)


def _figure(condition: str, encoder: str, svg: str, more: str = "", **about: Any) -> dict[str, Any]:
    title = " · ".join(filter(None, [condition, encoder, more]))
    return {"title": title, "condition": condition, "encoder": encoder, "svg": markup(svg), **about}


def _gains(results: dict[str, Any], methods: list[str]) -> list[dict[str, Any]]:
    """Differences to the baseline with their intervals; none if nothing can be compared."""
    primary, made = results["primary"], []
    every = [s["difference"]["primary"] for s in results["summaries"] if s["difference"]["primary"]]
    values = [v for one in every for v in (*one["values"], one["low"], one["high"]) if v is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    margin = 0.06 * (high - low) or 0.05
    way = "right" if primary["better"] > 0 else "left"
    for (condition, encoder), family in words.families(results).items():
        rows = [{"method": s["method"], **s["difference"]["primary"]} for s in family if s["difference"]["primary"]]
        if not any(row["mean"] is not None for row in rows):
            continue
        told = "; ".join(f"{row['method']} {form.gap(row)} {form.verdict(row)}".strip() for row in rows)
        to = rows[0]["to"]
        alt = f"{condition} · {encoder}: {primary['name']}, difference to {to} with its 95 % interval. {told}"
        label = f"{primary['metric'].replace('_', ' ')} over {to}, {way} is better"
        svg = forest.forest(rows, (low - margin, high + margin), methods, label, alt)
        made.append(_figure(condition, encoder, svg))
    return made


def _dots(results: dict[str, Any], methods: list[str]) -> list[dict[str, Any]]:
    limits, name, made = _limits(results), results["primary"]["name"], []
    for (condition, encoder), rows in words.families(results).items():
        if len(rows) < 2:
            continue
        references = [r for r in results["references"] if r["condition"] == condition]
        told = "; ".join(f"{row['method']} {form.over_seeds(row['primary'])}" for row in rows)
        alt = f"{condition} · {encoder}: {name} by method. {told}"
        made.append(_figure(condition, encoder, figures.dots(rows, references, limits, methods, name, alt)))
    return made


def _waterfall(results: dict[str, Any]) -> Markup | None:
    rows, primary = results.get("waterfall", []), results["primary"]
    if not any(row["value"] is not None for row in rows):
        return None
    return markup(waterfall.picture(rows, primary["name"], primary["better"]))


def _costs(results: dict[str, Any], methods: list[str]) -> list[dict[str, Any]]:
    """One picture per condition, encoder and machine; none if only plain training has a time."""
    made, name = [], results["primary"]["name"]
    for (condition, encoder), family in words.families(results).items():
        for hardware in results["cost"]["hardware"]:
            points = []
            for summary in family:
                row, mean = form.cost_of(results, encoder, summary["method"]), summary["primary"]
                if row is None or row["hardware"] != hardware or mean["value"] is None:
                    continue
                point = {"method": summary["method"], "x": row["total"]}
                point |= {"low": row["total_low"], "high": row["total_high"]}
                points.append(point | {"y": mean["value"], "se": mean["se"]})
            if len(points) > 1:
                told = "; ".join(f"{p['method']} {form.number(p['y'])} at {form.ratio(p['x'])}" for p in points)
                alt = f"{condition} · {encoder}: {name} against time. {told}. Measured on {hardware}"
                svg = plots.scatter(points, methods, name, alt)
                made.append(_figure(condition, encoder, svg, hardware=hardware))
    return made


def _curves(results: dict[str, Any], inputs: Inputs, methods: list[str], which: str) -> list[dict[str, Any]]:
    """`which`: the score on the selection split, or the loss of training batches."""
    found = {"selection": (read.history, "selection score", "score on the selection split")}
    found["loss"] = (details.losses, "training loss", "loss of training batches")
    history, label, said = found[which]
    made = []
    for condition, encoder in words.families(results):
        histories: dict[str, list[dict[str, list[float]]]] = {}
        for cell in results["cells"]:
            if (cell["condition"], cell["encoder"]) == (condition, encoder):
                one = history(inputs, cell["key"])
                if one and one["score"]:
                    histories.setdefault(cell["method"], []).append(one)
        if not histories:
            continue
        last = {m: [h["score"][-1] for h in runs] for m, runs in histories.items()}
        told = "; ".join(f"{m} {', '.join(map(form.number, ends))}" for m, ends in last.items())
        over = "meta-steps" if "step" in next(iter(histories.values()))[0] else "examples seen"
        alt = f"{condition} · {encoder}: {said} against {over}. At the end: {told}"
        made.append(_figure(condition, encoder, figures.curves(histories, methods, label, alt)))
    return made


def _gradients(results: dict[str, Any], methods: list[str], key: str, of: str, label: str) -> list[dict[str, Any]]:
    made = []
    for condition, encoder in words.families(results):
        rows = [r for r in results.get(key, ()) if (r["condition"], r["encoder"]) == (condition, encoder)]
        if rows:
            told = "; ".join(f"{row['method']} {row[of]['value']:.3g}" for row in rows)
            alt = f"{condition} · {encoder}: {label} over training. Mean over the run: {told}"
            made.append(_figure(condition, encoder, plots.products(rows, methods, of, label, alt)))
    return made


def _detection(row: dict[str, Any]) -> dict[str, Any]:
    names, found = KINDS[row["kind"]], row[f"auroc_{row['shown']}"]
    area = form.number(found["value"])
    about = f"{row['condition']} · {row['encoder']} · {row['method']}"
    alt = f"{about}: mean {row['shown']} of examples, {names[0]} against {names[1]}. AUROC {area}"
    label = "mean signed score over training" if row["shown"] == "score" else "mean weight over training"
    found = row["histogram"]
    svg = plots.densities(found["edges"], found["corrupted"], found["others"], names, label, alt)
    return _figure(row["condition"], row["encoder"], svg, f"{row['method']}, AUROC {area}", method=row["method"])


def _values(results: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    about = f"{row['condition']} · {row['encoder']} · {row['method']}"
    error = form.number(row["error"])
    alt = f"{about}: distribution of predictions and labels. Mean absolute difference {error}"
    svg = plots.densities(row["edges"], row["predicted"], row["label"], ("predicted", "label"), "value", alt)
    more = f"{row['method']}, mean difference {error}"
    return _figure(row["condition"], row["encoder"], svg, more, shown=highlighted(results, row), method=row["method"])


def _calibration(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The baseline and the highest method of each family, and ensembles."""
    families, made = words.families(results), []
    for row in results["calibration"]:
        if (row["condition"], row["encoder"]) in families and not highlighted(results, row):
            continue
        numbers = f"before {form.number(row['ece']['value'])}, after {form.number(row['ece_scaled']['value'])}"
        alt = f"{row['condition']} · {row['encoder']} · {row['method']}: accuracy against confidence. ECE {numbers}"
        points = zip(*(row["before"][name] for name in ("confidence", "accuracy", "n")), strict=True)
        alt += ". Bins before scaling: " + "; ".join(f"{c:.2f} sure, {a:.2f} right, n = {n:.0f}" for c, a, n in points)
        svg = plots.reliability(row, alt)
        made.append(_figure(row["condition"], row["encoder"], svg, row["method"], method=row["method"]))
    return made


def _members(results: dict[str, Any], one: dict[str, Any]) -> Markup:
    name = results["primary"]["name"]
    told = "; ".join(f"{row['name']} {form.number(row['primary']['value'])}" for row in one["rows"])
    alt = f"Ensemble {one['name']}: {name} of members, mean and oracle. {told}"
    return markup(plots.members(one["rows"], name, alt))


def _limits(results: dict[str, Any]) -> tuple[float, float]:
    """Limits that include every value and reference line, with a margin."""
    values = [v for summary in results["summaries"] for v in summary["primary"]["values"]]
    values += [one["primary"]["value"] for one in results["references"]]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _style() -> str:
    from importlib.resources import files

    return files("gradworks.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
