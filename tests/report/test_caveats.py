"""What is said of the data: texts that two splits share, labels that were read from numbers."""

import pytest
import yaml

from gradworks import report
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.report import caveats
from tests import runs_tree

pytestmark = pytest.mark.usefixtures("undrawn")


def count(alike):
    return {"same": 0, "alike": alike}


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert caveats.said({}) == caveats.said({"clean": {}}) == ""
    assert caveats.said({"clean": {"duplicates": {"test": {"train": count(0)}}}}) == ""


def test_shared_texts_and_labels_read_from_numbers_are_named():
    duplicates = {"clean": {"train": count(1)}, "selection": {"train": count(0)}, "test": {"train": count(1200)}}
    first = {"duplicates": duplicates, "label_values": {"mine/train": {"1": "entailment", "0": "not_entailment"}}}
    second = {"duplicates": {"test": {"train": count(900), "clean": count(2)}}, "duplicates_dropped": {"train": 7}}
    assert caveats.said({"clean": first, "noise": second}) == (
        " Case and blanks aside, 1 clean example has the texts of a training example, 1\u202f200 test examples have the"
        " texts of a training example, 2 test examples have the texts of a clean example."
        " Left out because another split has their texts: 7 of train."
        " Labels of mine/train were read: 0 as not_entailment, 1 as entailment."
    )


def test_pictures_are_no_texts():
    said = caveats.said({"plain": {"duplicates": {"selection": {"train": count(1)}}}}, "pictures")
    assert said == " 1 selection example has the pictures of a training example."


def test_a_source_whose_labels_have_other_keys_than_text_has_a_report(tmp_path):
    """YAML gives 0, true and null, which JSON cannot sort."""
    params, cells, runs = runs_tree.write(tmp_path, (0,))
    labels = '{0: neutral, yes: entailment, null: contradiction, "-": neutral}'
    params.write_text(
        params.read_text().replace('{from: "synthetic:nli",', f'{{from: "synthetic:nli", labels: {labels},')
    )
    results = report.build(params, cells, runs, tmp_path / "report")
    assert set(results["data"]["sources"]["synthetic"]["labels"]) == {"0", "true", "null", "-"}
    manifest = runs / "corrupt/clean/0/manifest.json"
    written = artifacts.read_json(manifest) | {"duplicates": {"test": {"train": count(3)}}}
    artifacts.write_json(manifest, written)
    results = report.build(params, cells, runs, tmp_path / "report")
    assert "3 test examples have the texts of a training example." in results["data"]["said"]
    assert "3 test examples have the texts" in (tmp_path / "report/report.html").read_text()


def test_notes_follow_the_data_in_the_report_and_in_a_readme(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, (0,))
    note = "The encoder has seen <b>MNLI</b>."
    values = yaml.safe_load(params.read_text())
    values["report"]["notes"] = [note]
    params.write_text(yaml.safe_dump(values))
    results = report.build(params, cells, runs, tmp_path / "report")
    assert results["data"]["said"].endswith(f" {note}")
    page, text = ((tmp_path / f"report/report.{kind}").read_text() for kind in ("html", "md"))
    assert "seen &lt;b&gt;MNLI&lt;/b&gt;." in page and "The encoder has seen" in text
    values["report"]["notes"] = ["no sentence"]
    params.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"report\.notes\.0"):
        report.build(params, cells, runs, tmp_path / "report")


@pytest.mark.slow("whole pipelines")
def test_the_report_says_in_how_many_steps_a_term_was_inaccurate(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, (0, 1))
    files = [runs / f"train/noise/reweight/gru/{seed}/status.json" for seed in (0, 1)]
    artifacts.write_json(files[1], {"figures": {"skipped_share": 0.0}})
    said = []
    for figures in ({}, {"dotprod_inaccurate_share": 0.12}, {"dotprod_inaccurate_share": 0.001}):
        artifacts.write_json(files[0], {"figures": figures})
        said.append(report.build(params, cells, runs, tmp_path / "report")["data"]["said"])
    assert "inaccurate" not in said[0]
    cells_of_it = 4 if (runs / "train/clean/reweight/gru/0/status.json").exists() else 2
    line = f"dotprod's term was inaccurate (> 10 %) in {12 / cells_of_it:.0f} % of steps (reweight on gru)."
    assert said[1].endswith(line)
    assert "in less than 0.1 % of steps" in said[2]
    artifacts.write_json(files[0], {"figures": {"dotprod_inaccurate_share": 0.12}})
    report.build(params, cells, runs, tmp_path / "report")
    assert "inaccurate (&gt; 10 %)" in (tmp_path / "report/report.html").read_text()
    assert "term was inaccurate" in (tmp_path / "report/report.md").read_text()
