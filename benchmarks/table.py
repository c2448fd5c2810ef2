"""Results as Markdown: every row with its target and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SLACK = 1.05  # a time is met when the upper end of its interval is at most the target and five percent

HEAD = """\
# Cost and error of the gradient methods

Generated: `{command}`

`time ×` is the median over rounds, with its 95 % interval, of the time of an optimizer step over that of plain training
on the same batches (by hand: `.backward()` for each batch, fused AdamW), both sides interleaved in one process. `memory
×` is the ratio of the peaks of memory in use, model, gradients and optimizer state included, each side in a process of
its own. `passes` are counted in plain passes over the same batches, with the least that the method can do; `operations`
are floating-point operations over those of plain training. `clean` is the size of the clean batch as a share of the
batch; plain training has none. `error` is the median relative error against float64, dropout on: of the scores (and the
share of signs that agree), of the dot product's term, of the gradient of `smart` for a given perturbation. A time is
met when the upper end of its interval is at most the target plus 5 %, memory to two decimals. Rows that have to be
differentiated twice or forward have eager attention on both sides, all others scaled dot product attention. Rows of
other people's code: `higher`, `torch.func`, `opacus`, and SMART in the order of its published code.

![Time of every method over plain training](results.svg)
"""


PROFILE = """\
### Where the time goes that is too much

In plain steps. Passes: forward and backward, with the gradients that come out; optimizer: fused AdamW; other:
arithmetic on lists of gradients, figures for the log, Python.

"""


def misses(row: dict[str, Any]) -> list[str] | None:
    """Which targets a row does not reach; None where it has none or was not measured."""
    target = row["target"]
    if row.get("note") or not any(bound is not None for bound in target.values()):
        return None
    found = ["time"] if late(row) else []
    memory = None if row["memory_ratio"] is None else round(row["memory_ratio"], 2)  # repeats differ by a hundredth
    for name, value in (("memory", memory), ("error", row["error"])):
        if target.get(name) is not None and value is not None and not value <= target[name]:
            found.append(name)
    if target.get("sign") is not None and row["sign_agreement"] is not None and row["sign_agreement"] < target["sign"]:
        found.append("signs")
    return found


def late(row: dict[str, Any]) -> bool:
    """Whether a row misses its target of time."""
    bound, ratio = row["target"].get("time"), row.get("time_ratio")
    if bound is None or ratio is None:
        return False
    upper = ratio if row["high"] is None else row["high"]
    return upper > bound * SLACK


def verdict(row: dict[str, Any]) -> str:
    """ "met", what is missed, "" without a target; and whether the passes counted are more than the floor."""
    missed = misses(row)
    words = [] if missed is None else [f"**missed: {', '.join(missed)}**"] if missed else ["met"]
    if row.get("at_floor") is False:
        words.append("**passes differ from the floor**")
    return "; ".join(words)


def label(row: dict[str, Any]) -> str:
    clean = "" if row["clean_fraction"] is None else f", clean {row['clean_fraction']:g}"
    return f"{row['method']}{', ' + row['backend'] if row['backend'] else ''}{clean}"


def page(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The whole of RESULTS.md."""
    parts = [HEAD.format(command=command)]
    measured = [row for row in rows if not row.get("note")]
    for hardware in dict.fromkeys((row["hardware"], row["precision"]) for row in measured):
        some = [row for row in measured if (row["hardware"], row["precision"]) == hardware]
        parts.append(f"## {_cell(hardware[0])}, {hardware[1]}\n\n{_summary(some)}\n")
        for model in dict.fromkeys(row["model"] for row in some):
            parts.append(f"### {model}\n\n" + _table([row for row in some if row["model"] == model]))
        profiled = [row for row in some if row.get("profile")]
        if profiled:
            parts.append(PROFILE + _profiles(profiled))
    absent = [row for row in rows if row.get("note")]
    if absent:
        lines = [f"- {_cell(label(row))} on {row['model']}: {_cell(row['note'])}" for row in absent]
        parts.append("## Not measured\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    judged = [(row, misses(row)) for row in rows]
    judged = [(row, missed) for row, missed in judged if missed is not None]
    met = sum(not missed for _, missed in judged)
    floors = [row["at_floor"] for row in rows if row.get("at_floor") is not None]
    return (
        f"{met} of {len(judged)} rows with a target meet it. Counted passes equal the floor in {sum(floors)} of "
        f"{len(floors)} rows that have one."
    )


COLUMNS = ("method", "clean", "n", "time ×", "target", "memory ×", "target", "error", "target", "signs", "passes",
           "floor", "operations", "rounds", "verdict")  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 2) + "---|"]
    for row in rows:
        target = row["target"]
        name = row["method"] + (f", {row['backend']}" if row["backend"] else "")
        cells = (
            name, _number(row["clean_fraction"], "g"), row["batch"], _ratio(row), _number(target.get("time"), ".2f"),
            _number(row["memory_ratio"], ".2f"), _number(target.get("memory"), ".2f"), _number(row["error"], ".0e"),
            _number(target.get("error"), ".0e"), _number(row["sign_agreement"], ".4g"), _number(row["passes"], ".3f"),
            _number(row["floor"], ".3f"), _number(row["operations"], ".2f"), row["n"] or "", verdict(row),
        )  # fmt: skip
        lines.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _profiles(rows: Sequence[dict[str, Any]]) -> str:
    names = ("passes", "optimizer", "other")
    head = ["model", "method", "passes counted", *(f"plain: {name}" for name in names[:2]), *names]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        plain, own = row["profile"]["plain"], row["profile"]["method"]
        numbers = [row["passes"], *(plain[name] for name in names[:2]), *(own[name] for name in names)]
        cells = [row["model"], label(row), *(f"{number:.2f}" for number in numbers)]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _ratio(row: dict[str, Any]) -> str:
    if row["time_ratio"] is None:
        return ""
    interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['time_ratio']:.2f}{interval}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: str) -> str:
    """One line of a table cell, with nothing that Markdown or HTML would read."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "\\`")
