"""pipelines/questions: its params files are those of the list, valid, and the table's marks by hand."""

import math
from pathlib import Path

import pytest
import yaml

from benchmarks import questions
from gradworks import parameters

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", questions.TASKS)
def test_the_params_file_is_the_one_of_the_list_and_is_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = questions.FOLDER / name / "params.yaml"
    assert yaml.safe_load(path.read_text()) == questions.params(name), "python -m benchmarks.questions write"
    parameters.check(path)


def test_a_mark_needs_the_interval_of_seeds_and_test_examples_to_exclude_the_majority_answer():
    scores = [{"value": v, "low": v - 0.03, "high": v + 0.03} for v in (0.60, 0.62, 0.64)]
    half = math.hypot(4.302653 * 0.02 / math.sqrt(3), 0.03)  # t with 2 degrees of freedom
    assert questions._half(scores) == pytest.approx(half)
    assert questions._side(0.62, half, 0.62 - half - 1e-6) == questions.UP
    assert questions._side(0.62, half, 0.62 + half + 1e-6) == questions.DOWN
    assert questions._side(0.62, half, 0.62 - half + 1e-6) == ""


def test_a_tag_is_that_of_the_word():
    lexicon = {"the": "DT", "is": "VBZ", "can": "MD", ",": ",", "it": "PRP"}
    words = {
        "The": "determiner",
        "is": "verb",
        "can": "verb",
        ",": "mark",
        "``": "mark",
        "it": "pronoun",
        "blorp": "noun",
    }
    assert {word: questions.tag(word, lexicon) for word in words} == words
    assert set(words.values()) <= set(questions.tags())


def test_rows_are_named_by_task():
    rows = [("RTE", "erm"), ("RTE", "smart"), *(("CB", m) for m in questions.METHODS)]
    assert questions._grouped(rows) == "RTE (erm, smart); CB (all)" and questions._grouped([]) == "none"
