"""report.html asks nothing of the network, is escaped and can be read without eyes or colours; report.md is whole."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from gradworks import report
from gradworks.report import figures, page
from tests import runs_tree

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Tags with their attributes; complains about what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def of(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    states = {"noise/reweight/gru/0": "OOM", "noise/random/gru/1": "not converged"}
    params, cells, runs = runs_tree.write(folder, states=states, skip=("noise/erm+clean/gru/0",))
    results = report.build(params, cells, runs, folder / "report")
    return folder / "report", results


@pytest.fixture(scope="module")
def html(built):
    return (built[0] / "report.html").read_text()


def test_no_request_leaves_the_page(html):
    found = Page(html)
    for _, attrs in found.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:,")), attrs
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/)", html)
    assert found.of("script") == [{}] and not found.of("iframe")
    policy = next(m["content"] for m in found.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    text = re.search(r"<script>(.*?)</script>", html, re.S).group(1)
    seal = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{seal}'" in policy


def test_names_are_escaped(built, html):
    assert "Which &lt;method&gt; helps?" in html and "<method>" not in html
    assert "Which \\<method\\> helps?" in (built[0] / "report.md").read_text()


def test_tables_and_figures_can_be_heard(html):
    found = Page(html)
    assert len(found.of("caption")) == len(found.of("table")) > 3
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in found.of("th"))
    pictures = [svg for svg in found.of("svg") if "aria-hidden" not in svg]
    assert len(pictures) == 16 and all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in pictures)
    assert "reweight" in pictures[0]["aria-label"] and "0." in pictures[0]["aria-label"]
    regions = [div for div in found.of("div") if div.get("role") == "region"]
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in regions)
    assert found.of("html")[0]["lang"] == "en"


def test_no_best_method_where_none_is_above_the_baseline(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        for method in ("erm+clean", "reweight", "random"):
            runs_tree.evaluated(runs, f"noise/{method}/gru/{seed}", 0.1, seed)
    report.build(params, cells, runs, tmp_path / "report")
    html = (tmp_path / "report/report.html").read_text()
    row = re.search(r'<tr role="row" data-condition="noise".*?</tr>', html, re.S).group(0)
    assert "<b>erm</b>" in row and re.search("none is above it; nearest: (random|reweight|erm.clean)", row)
    assert not re.search("<b>(random|reweight|erm.clean)</b>", row)


def test_ids_are_unique(html):
    ids = [attrs["id"] for _, attrs in Page(html).tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_rows_have_as_many_cells_as_heads(html):
    for table in re.findall(r"<table>.*?</table>", html, re.S):
        heads = len(re.findall(r"<th scope=\"col\"", table))
        for row in re.findall(r"<tr>(.*?)</tr>", table.partition("</thead>")[2], re.S):
            span = re.search(r'colspan="(\d+)"', row)
            assert (int(span.group(1)) if span else len(re.findall(r"<t[hd]", row))) == heads, row


def test_states_answer_and_controls_stand_in_the_page(built, html):
    for words in ("1 OOM†", "1 not converged*", "1 not run", "ran out of memory", "true rule", "nothing to gain"):
        assert words in html
    from markupsafe import escape

    assert all(str(escape(line)) in html for line in built[1]["answer"])


def test_markdown_tables_are_whole(built):
    text = (built[0] / "report.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(blocks) >= 6
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1 and re.match(r"\|[-:|]+\|$", block.splitlines()[1]), block


def test_tables_alone(built):
    text = page.tables(built[1])
    assert text.startswith("**clean**") and "| reweight | 2 of 3, 1 OOM† |" in text


def test_the_ensemble_table(tmp_path):
    import json
    import sys

    from components import ensemble

    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    name = "clean-erm-gru+cased"
    argv = ["e", "--params", params, "--encoders", "gru", "cased", "--members", runs / "evaluate/clean/erm"]
    argv += ["--out", runs / "ensemble" / name, "--metrics", runs / "metrics/ensemble" / f"{name}.json"]
    before, sys.argv = sys.argv, [str(a) for a in argv]
    try:
        ensemble.main()
    finally:
        sys.argv = before
    results = report.build(params, cells, runs, tmp_path / "report")
    found = json.loads((runs / "metrics/ensemble" / f"{name}.json").read_text())
    rows = {row["name"]: row["primary"] for row in results["ensembles"][0]["rows"]}
    assert list(rows) == ["cased/0", "gru/0", "mean", "greedy", "scaled", "weighted", "oracle"]
    assert rows["oracle"] == found["oracle"]["by"]["set"]["challenge"]["accuracy"]
    said, against = results["ensembles"][0]["said"], found["against"]
    assert f"The mean of 2 members has on all test examples accuracy {against['value']:+.3f} [" in said.replace(
        "−", "-"
    )
    counts = found["pairs"][0]["counts"]
    assert f"gru and cased: both right {counts['both right']}, only gru {counts['only the first']}, " in said
    text, html = ((tmp_path / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "oracle" in text and "What each member adds" in text and "Times chosen (greedy)" in html


HISTORY = {"examples": [0, 10, 20], "score": [0.3, 0.5, 0.6]}


def test_figures_are_repeatable_well_formed_and_coloured_by_the_page():
    many = [f"m{i}" for i in range(11)]
    once = figures.curves({m: [HISTORY] for m in many}, many, "score", 'a < "b" & c')
    assert once == figures.curves({m: [HISTORY] for m in many}, many, "score", 'a < "b" & c')
    root = ElementTree.fromstring(once)  # noqa: S314  our own text
    assert root.get("aria-label") == 'a < "b" & c'
    assert {f"var(--m{i})" for i in range(8)} <= set(re.findall(r"var\(--m\d\)", once))
    assert not re.findall(r"#[0-9a-f]{6}\b", once), "a colour that does not follow the page"


def test_curves_name_what_they_count():
    for name, said in (("examples", "training examples seen"), ("step", "meta-steps")):
        assert said in figures.curves({"erm": [{name: [1, 2], "score": [0.1, 0.2]}]}, ["erm"], "score", "x")


def test_no_two_methods_look_alike():
    looks = [tuple(figures.style(i).values()) for i in range(24)]
    assert len(set(looks)) == 24
    without_colour = [look[1:] for look in looks[:8]]
    assert len(set(without_colour)) == 8


def test_runs_of_unequal_length_are_not_averaged():
    short = {"examples": [0, 10], "score": [0.3, 0.9]}
    both = figures.curves({"erm": [HISTORY, short]}, ["erm"], "score", "x")
    assert both.count("clip-path") >= 2 and "fill-opacity: 0.12" not in both
    assert "fill-opacity: 0.12" in figures.curves({"erm": [HISTORY, HISTORY]}, ["erm"], "score", "x")
