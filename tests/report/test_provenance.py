"""The drawn pipeline is that of dvc.yaml; the digest is of the parameters that the report stage depends on."""

from pathlib import Path

import pytest
import yaml

from gradworks import report
from gradworks.report import form, pipeline
from tests import runs_tree

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parents[2]


def stages():
    """Name -> the text of its dependencies and outputs."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: one.get("do", one) for name, one in found.items()}


def test_the_picture_is_that_of_dvc_yaml():
    made = {name: one for name, one in stages().items() if name != "cells"}
    assert set(made) == set(pipeline.STAGES)
    for name, one in made.items():
        deps = " ".join(dep for dep in one["deps"] if isinstance(dep, str))
        reads = {other for other in made if f"runs/{other}/" in f"{deps}/".replace(" ", "/ ")}
        reads |= {"train"} if "runs/models/" in deps else set()
        reads |= {"corrupt", "pretrain"} if "item.start" in deps else set()
        reads |= {"evaluate", "ensemble"} if "runs/metrics" in deps else set()
        assert reads == set(pipeline.STAGES[name]), name


def test_the_digest_is_of_what_the_stage_depends_on():
    given = stages()["report"]["params"][0]["${here}params.yaml"]
    assert set(pipeline.SECTIONS) == set(given)


def test_counts_of_what_is_asked_and_there(tmp_path):
    tree = runs_tree.write(tmp_path, (0, 1), skip=("noise/reweight/gru/0",))
    results = report.build(*tree, tmp_path / "report")
    found = {one["stage"]: (one["done"], one["asked"]) for one in results["pipeline"]}
    assert found["train"] == found["evaluate"] == (15, 16) and found["corrupt"] == (4, 4)
    assert found["measure"] == (0, 5) and found["ensemble"] == (0, 1) and found["pretrain"] == (2, 2)


def test_a_parameter_changes_the_digest(tmp_path):
    tree = runs_tree.write(tmp_path, (0,))
    first = report.build(*tree, tmp_path / "report")["provenance"]["parameters"]
    text = tree[0].read_text()
    own = "\ntasks: {mine: {kind: regression, texts: [text]}}\n"
    for changed in (text.replace("learning_rate: 0.001", "learning_rate: 0.002"), text + own):
        tree[0].write_text(changed)
        assert report.build(*tree, tmp_path / "report")["provenance"]["parameters"] != first


def test_what_was_done_to_the_data_in_words():
    done = {"imbalance": {"rows": 3600, "changed": 3600}, "noise": {"rows": 40, "changed": 27}}
    done["leak"] = {"rows": 5, "changed": 0}
    assert form.corruption(done) == (
        "3\u202f600 rows removed; 40 labels redrawn, 27 of them changed; 5 test examples added"
    )
