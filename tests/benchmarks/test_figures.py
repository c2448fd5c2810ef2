"""The table and the figure from rows made up here."""

from __future__ import annotations

import html
import re

import pytest

from benchmarks import figure, table


def made(**given):
    row = {
        "method": "reweight", "backend": "ghost", "model": "gru", "clean_fraction": 0.25, "time_ratio": 1.5,
        "low": 1.45, "high": 1.6, "n": 40, "memory_ratio": 1.1, "error": 1e-7, "sign_agreement": 1.0, "judged": 5,
        "passes": 4.75 / 3, "floor": 4.75 / 3, "at_floor": True, "operations": 1.58, "batch": 32,
        "target": {"time": 1.6, "memory": 1.2, "error": 1e-6, "sign": None},
        "hardware": "a processor, 1 thread, torch 2", "precision": "float32", "device": "cpu",
    }  # fmt: skip
    return row | given


NOTHING = {"time": None, "memory": None, "error": None, "sign": None}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "met"),
        ({"high": 1.67}, "met"),  # 1.6 + 5 % = 1.68
        ({"high": 1.69}, "**missed: time**"),
        ({"memory_ratio": 1.204}, "met"),
        ({"memory_ratio": 1.21}, "**missed: memory**"),
        ({"error": 2e-6}, "**missed: error**"),
        ({"error": float("nan")}, "**missed: error**"),
        ({"high": 3.0, "memory_ratio": 2.0}, "**missed: time, memory**"),
        ({"target": NOTHING | {"sign": 0.999}, "sign_agreement": 0.99}, "**missed: signs**"),
        ({"target": NOTHING}, ""),
        ({"target": NOTHING, "at_floor": False}, "**passes differ from the floor**"),
        ({"low": None, "high": None, "time_ratio": 1.7}, "**missed: time**"),
    ],
)
def test_verdict(given, words):
    assert table.verdict(made(**given)) == words


def test_the_page_has_a_profile_of_what_is_late():
    found = {"plain": {"passes": 0.95, "optimizer": 0.05}, "method": {"passes": 1.5, "optimizer": 0.05, "other": 0.2}}
    text = table.page([made(profile=found, high=1.8), made(backend="jvp")], "command").split("too much")[1]
    assert "| gru | reweight, ghost, clean 0.25 | 1.58 | 0.95 | 0.05 | 1.50 | 0.05 | 0.20 |" in text
    assert "jvp" not in text


def test_the_page():
    rows = [
        made(),
        made(model="bow", high=9.0),
        made(method="a|b <i>`c`</i>", backend="", target=NOTHING, at_floor=None, floor=None),
        made(method="sam", backend="", note="update: found 'sam', expected <one>", time_ratio=None),
    ]
    text = table.page(rows, "python -m benchmarks.methods")
    assert "Generated: `python -m benchmarks.methods`" in text
    assert "1 of 2 rows with a target meet it. Counted passes equal the floor in 2 of 2 rows" in text
    lines = text.splitlines()
    (line,) = [one for one in lines if one.startswith("| reweight, ghost") and "| met |" in one]
    assert "1.50 [1.45, 1.60] | 1.60 | 1.10 | 1.20 | 1e-07 | 1e-06 | 1 | 1.583 | 1.583 | 1.58 | 40 |" in line
    assert "a\\|b &lt;i&gt;\\`c\\`&lt;/i&gt;" in text and "<i>" not in text
    assert "- sam, clean 0.25 on gru: update: found 'sam', expected &lt;one&gt;" in lines
    heads = [one for one in lines if one.startswith("#")]
    assert heads[1:] == ["## a processor, 1 thread, torch 2, float32", "### gru", "### bow", "## Not measured"]
    for one in lines:
        if one.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", one)) == len(table.COLUMNS) + 1


def test_the_figure():
    rows = [made(), made(model="bow", high=9.0), made(method="a <b> & $c$", target=NOTHING), made(time_ratio=None)]
    text = figure.draw(rows)
    assert text == figure.draw(rows)
    words = {html.unescape(word) for word in re.findall(r"<text[^>]*>([^<]*)</text>", text)}
    assert {"reweight, ghost, clean 0.25", "a <b> & $c$, ghost, clean 0.25", "gru", "bow"} <= words
    assert "no target" in words and "floor of passes" in words


def test_the_figure_of_nothing():
    assert figure.draw([]).rstrip().endswith("</svg>")
