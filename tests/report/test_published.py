"""Published numbers beside the measured ones."""

from pathlib import Path

import pytest

from gradworks import report
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.report import form, page, published, readme
from tests import runs_tree

ROOT = Path(__file__).parent.parent.parent
FILE = """
source: "A <paper>, Table 2"
differs: ["Other data."]
rows:
  - {method: erm, condition: noise, value: 0.79}
  - {method: reweight, condition: noise, value: 0.95, se: 0.01, note: "one seed"}
"""


def difference(low, mean, high, detectable=None, n=4):
    return {"low": low, "mean": mean, "high": high, "detectable": detectable, "n": n}


@pytest.mark.parametrize(
    ("gain", "measured", "said"),
    [
        (0.16, difference(0.01, 0.05, 0.09), "reproduced"),
        (0.16, difference(-0.09, -0.05, -0.01), "contradicted"),
        (-0.16, difference(-0.09, -0.05, -0.01), "reproduced"),
        (0.16, difference(-0.01, 0.05, 0.11), "not reproduced"),
        (-0.16, difference(-0.11, -0.05, 0.01), "not reproduced"),
        (0.16, difference(-0.01, 0.05, 0.17), "undecided"),
        (0.16, difference(-0.01, 0.05, 0.17, detectable=0.32), "undecided; 16 seeds would decide"),
        (0.16, difference(-0.01, 0.05, 0.17, detectable=0.08), "undecided; 5 seeds would decide"),
        (0.0, difference(0.01, 0.05, 0.09), "no gain was published"),
        (0.16, difference(None, 0.05, None), "no interval"),
        (0.16, None, "no interval"),
    ],
)
def test_the_verdict_is_on_sign_and_size_of_the_gain(gain, measured, said):
    assert published.verdict(gain, measured) == said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    params, cells, runs = runs_tree.write(folder)
    report.build(params, cells, runs, folder / "report")
    return folder


def test_a_readme_has_what_differs_first_and_a_row_for_each_published_score(made):
    (made / "README.md").write_text("# T\n<!-- results:begin -->\n<!-- results:end -->\nlast\n")
    (made / "published.yaml").write_text(FILE)
    readme.write_benchmark(made)
    text = (made / "README.md").read_text()
    assert text.endswith("\nlast\n")
    assert text.index("A \\<paper\\>, Table 2:\n\n- Other data.") < text.index("Published and measured")
    results = artifacts.read_json(made / "report/results.json")
    own = {s["method"]: s for s in results["summaries"] if s["condition"] == "noise"}
    gain = own["reweight"]["difference"]["primary"]
    for method, start in (("erm", "0.790"), ("reweight", "0.950 ± 0.010")):
        score = f"{own[method]['primary']['value']:.3f} ± "
        head = f"| {method} | accuracy, set = challenge | {start} | {score}"
        row = next(line for line in text.splitlines() if line.startswith(head)).split(" | ")
        assert row[4] == "3"
    assert row[5:] == ["+0.160 over erm", page.escaped(form.gap(gain)), f"{published.verdict(0.16, gain)}: one seed |"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("method: reweight", "method: smart", "smart.*found 0 rows.*\n.*erm, "),
        ("erm, condition: noise", "erm", "found 3 rows"),
        ("{method: erm, ", "{method: random, ", "random: found 0 rows of erm"),
        ("value: 0.95", "value: many", "value"),
        ('differs: ["Other data."]', "", "differs"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(made, old, new, said):
    (made / "README.md").write_text("<!-- results:begin -->\nold\n<!-- results:end -->")
    (made / "published.yaml").write_text(FILE.replace(old, new))
    with pytest.raises(InputError, match=said):
        readme.write_benchmark(made)
    assert "old" in (made / "README.md").read_text()


@pytest.mark.parametrize("file", sorted(ROOT.glob("pipelines/**/published.yaml")), ids=lambda f: f.parent.name)
def test_published_files_are_read(file):
    assert published.read(file.parent).rows
