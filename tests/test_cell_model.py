"""The model of a cell: which heads read what, by the tasks of its mixture and the encoder."""

import pytest
import yaml

from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.models.test_transformer import new
from tests.test_cell import run

VALUES = {
    "task": "sst5",
    "train": {"epochs": 1, "batch": 8, "learning_rate": 0.01},
    "methods": {"erm": {}, "frozen": {"trainable": "head"}},
    "tasks": {
        "near": {"kind": "regression", "texts": ["a", "b"], "metrics": ["pearson"], "bounded": True, "spread": 5}
    },
    "mixtures": {
        "plain": {"parts": ["sst5", "qqp", "near"]},
        "layer": {"parts": ["sst5", "qqp", "near"], "layer": {"relational": ["qqp", "near"]}},
        "cosine": {"parts": ["sst5", "sts"]},
        "choices": {"parts": ["sst5", "copa"]},
        "one": {"parts": ["qqp"]},
    },
}


@pytest.fixture
def params(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(VALUES))
    return file


def model(params, mixture, method="erm", **options):
    folder = new(params.parent / "start", **options)
    artifacts.write_manifest(folder, "pretrain", {})
    return run(params, method, mixture=mixture).model()


def widths(made):
    return {task: head.in_features // 16 for task, head in made.heads.named_children()}


def test_heads_of_pairs_read_both_texts_of_a_bi_encoder_or_the_layer_that_they_share(params):
    assert widths(model(params, "plain", pair="bi")) == {"sst5": 1, "qqp": 3, "near": 3}
    assert widths(model(params, "layer", pair="bi")) == {"sst5": 1, "qqp": 1, "near": 1}
    assert model(params, "one", pair="bi").head.in_features == 48
    assert widths(model(params, "plain")) == {"sst5": 1, "qqp": 1, "near": 1}  # in one sequence
    assert model(params, "cosine", pair="bi").head.out_features == 5  # of the one task that has a head


def test_what_reads_no_vector_of_each_text_is_refused(params):
    with pytest.raises(InputError, match=r"pair: bi, and copa of kind choice\nexpected pair: cross, or tasks of kind"):
        model(params, "choices", pair="bi")
    with pytest.raises(InputError, match=r"found a layer of qqp, near\nexpected an encoder with pair: bi"):
        model(params, "layer")


def test_a_frozen_encoder_trains_its_heads_alone(params):
    made = model(params, "plain", method="frozen", pair="bi")
    trained = {name for name, p in made.named_parameters() if p.requires_grad}
    assert trained == {f"heads.{task}.{part}" for task in ("sst5", "qqp", "near") for part in ("weight", "bias")}
