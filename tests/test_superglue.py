"""Official SuperGLUE test files are answered row by row, in the forms that its leaderboard takes."""

import dataclasses
import json
import zipfile

import pytest

from gradworks import cli, models, submission, superglue
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import tokenizer
from gradworks.models import gru
from tests.kinds import kind

TEXT = "The cat sat on the mat and the dog ran to the cat"
QUESTIONS = [{"idx": 4, "question": "who sat", "answers": [{"idx": 9, "text": "cat"}, {"idx": 8, "text": "dog"}]},
             {"idx": 3, "question": "who ran", "answers": [{"idx": 1, "text": "dog"}]}]  # fmt: skip
FILES = {  # what the official files hold, and the names of columns as they are there
    "BoolQ": [{"question": "did it sit", "passage": TEXT, "idx": 0}, {"question": "ran", "passage": TEXT, "idx": 1}],
    "COPA": [{"premise": "it sat", "choice1": "cat", "choice2": "dog", "question": "effect", "idx": 5}],
    "MultiRC": [{"idx": 7, "version": 1.1, "passage": {"text": TEXT, "questions": QUESTIONS}}],
    "ReCoRD": [{"source": "x", "idx": 2, "qas": [{"query": "the @placeholder ran", "idx": 6}],
                "passage": {"text": TEXT, "entities": [{"start": 4, "end": 6}, {"start": 31, "end": 33}]}}],
    "WiC": [{"word": "cat", "sentence1": "a cat sat", "sentence2": "the cat ran", "idx": 0, "start1": 2, "end1": 5,
             "start2": 4, "end2": 7, "version": 1.1}],
    "WSC": [{"text": TEXT, "idx": 0, "target": {"span1_text": "cat", "span1_index": 1, "span2_text": "dog",
             "span2_index": 8}}],
    "AX-b": [{"sentence1": "it sat", "sentence2": "it ran", "idx": 0, "label": "entailment", "logic": "x"}],
    "AX-g": [{"premise": "it sat", "hypothesis": "it ran", "idx": 3, "pair_id": 1, "label": "not_entailment"}],
}  # fmt: skip
IDX = {"BoolQ": [0, 1], "COPA": [5], "MultiRC": [7], "ReCoRD": [6], "WiC": [0], "WSC": [0], "AX-b": [0], "AX-g": [3]}


def written(tmp_path, name, rows):
    path = tmp_path / f"{name}-test.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    gru.prepare(gru.Options(model="gru", lowercase=True, vocabulary=60, embedding=8, hidden=8, mlp=8),
                tokenizer.train([TEXT, "who did it a"], 60, True), folder, texts=2, vectors=None)  # fmt: skip
    return folder


def predicted(tmp_path, encoder, name):
    """The file of a submission, by the mean of two models."""
    task = superglue.TESTS[name].task
    folders = []
    for seed in (0, 1):
        with artifacts.atomic_folder(tmp_path / f"{task}-{seed}") as new:
            models.save(models.create(encoder, kind(task).size, seed), new)
            artifacts.write_manifest(new, "train", {"task": task, "train": {"max_length": 48}})
        folders.append(tmp_path / f"{task}-{seed}")
    (tmp_path / "params.yaml").write_text("{task: rte, threads: 1, device: cpu}\n")
    argv = ["superglue", "predict", name, "--test", written(tmp_path, name, FILES[name]), "--model", *folders]
    argv += ["--params", tmp_path / "params.yaml", "--out", tmp_path / "files"]
    submission.run(cli._parser().parse_args([str(one) for one in argv]))
    return [json.loads(line) for line in (tmp_path / "files" / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", FILES)
def test_each_row_has_an_answer_in_the_form_of_its_file(tmp_path, encoder, monkeypatch, name):
    found = predicted(tmp_path, encoder, name)
    assert [one["idx"] for one in found] == IDX[name]
    if name == "MultiRC":
        questions = found[0]["passage"]["questions"]
        assert [(q["idx"], [a["idx"] for a in q["answers"]]) for q in questions] == [(4, [9, 8]), (3, [1])]
        labels = [a["label"] for q in questions for a in q["answers"]]
        assert all(type(one) is int and one in (0, 1) for one in labels)
        assert set(found[0]) == {"idx", "passage"}
    else:
        labels = [one["label"] for one in found]
        forms = {"COPA": (0, 1), "ReCoRD": ("cat", "dog"), "WSC": ("True", "False"),
                 "AX-b": ("entailment", "not_entailment"), "AX-g": ("entailment", "not_entailment")}  # fmt: skip
        assert all(one in forms.get(name, ("true", "false")) for one in labels)
        assert all(set(one) == {"idx", "label"} for one in found)
    rows = dataclasses.replace(superglue.TESTS[name], rows=len(labels))
    monkeypatch.setitem(superglue.TESTS, name, rows)
    assert submission.zipped(superglue, tmp_path / "files", tmp_path / "a.zip", partial=True) == [
        x for x in superglue.TESTS if x != name
    ]
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        assert made.namelist() == [f"{name}.jsonl"]


@pytest.mark.parametrize(("name", "change", "said"), [
    ("BoolQ", {"idx": 1}, "found 2 rows with the idx 1"),
    ("BoolQ", {"passage": ""}, "row 1: no text in the column 'passage'"),
    ("WiC", {"end1": 2}, "row 0: no word in 'sentence1'"),
])  # fmt: skip
def test_a_row_that_would_have_no_answer_of_its_own_is_refused(tmp_path, name, change, said):
    rows = [FILES[name][0] | change, *FILES[name][1:]]
    with pytest.raises(InputError, match=said):
        submission.read_objects(written(tmp_path, name, rows), kind(superglue.TESTS[name].task))


def test_answers_follow_the_classes():
    """By name: the row of a task may order its classes in another way than the file."""
    wanted = {"COPA": ("choice2", 1), "WSC": ("true", "True"), "CB": ("neutral", "neutral"), "ReCoRD": ("a", "a")}
    for name, (one, label) in wanted.items():
        assert superglue.lines(superglue.TESTS[name], ["5"], [one], "here") == [json.dumps({"idx": 5, "label": label})]
    with pytest.raises(InputError, match="here: row 5: found 'maybe'\nexpected one of: false, true"):
        superglue.lines(superglue.TESTS["BoolQ"], ["5"], ["maybe"], "here")


@pytest.mark.parametrize(("text", "said"), [
    ('{"idx": 0, "label": "yes"}\n{"idx": 1, "label": "true"}\n', "idx 0: found 'yes', expected one of"),
    ('{"idx": 0, "label": "true"}\n{"idx": 0, "label": "true"}\n', "found 1 rows twice"),
    ('{"idx": 0, "label": "true"}\n', "found 1 answers, expected 2"),
    ('{"idx": 0}\n', "no rows of BoolQ: KeyError 'label'"),
    ("index\tprediction\n", "no rows of BoolQ"),
])  # fmt: skip
def test_what_the_leaderboard_would_refuse_is_not_put_into_a_zip(tmp_path, monkeypatch, text, said):
    monkeypatch.setitem(superglue.TESTS, "BoolQ", dataclasses.replace(superglue.TESTS["BoolQ"], rows=2))
    (tmp_path / "BoolQ.jsonl").write_text(text)
    with pytest.raises(InputError, match=said):
        submission.zipped(superglue, tmp_path, tmp_path / "out.zip", partial=True)
    with pytest.raises(InputError, match=r"no CB\.jsonl, COPA\.jsonl"):
        submission.zipped(superglue, tmp_path, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
