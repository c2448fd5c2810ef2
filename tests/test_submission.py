"""Official test files without labels are answered by a model, row by row."""

import numpy as np
import pytest
import torch
import yaml

from gradworks import cli, models, submission
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import tokenizer
from gradworks.models import gru
from tests.kinds import kind

HEAD = "index\tsentence1\tsentence2\n"
ROWS = [('The show is "on" TV.', "It is on."), ('"Quoted, never closed', "A."), ("One.", "Two.")]


def official(tmp_path, rows=ROWS, head=HEAD, first=0):
    path = tmp_path / "test.tsv"
    path.write_text(head + "".join(f"{i + first}\t{a}\t{b}\n" for i, (a, b) in enumerate(rows)))
    return path


def test_rows_without_labels_are_read_in_order(tmp_path):
    table = submission.read(official(tmp_path), kind("rte"))
    assert table["id"].to_pylist() == ["0", "1", "2"] and table["hypothesis"].to_pylist() == ["It is on.", "A.", "Two."]
    assert "on" in table["premise"].to_pylist()[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [("a", "b"), ("", "c")]}, r"line 3: no text in the column 'sentence1'"),
        ({"first": 1}, r"line 2: found index '1'\nexpected 0"),
        ({"head": "index\tfirst\tsecond\n"}, "no column for premise: expected premise or sentence1"),
    ],
)
def test_a_row_that_would_have_no_answer_is_refused(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        submission.read(official(tmp_path, **change), kind("rte"))


def trained(tmp_path, task, seed):
    """A small model of a task, as the stage `train` leaves it."""
    folder, encoder = tmp_path / f"{task}-{seed}", tmp_path / "encoder"
    if not encoder.is_dir():
        encoder.mkdir()
        words = tokenizer.train([text for row in ROWS for text in row], 60, True)
        gru.prepare(gru.Options(model="gru", lowercase=True, vocabulary=60, embedding=8, hidden=8, mlp=8), words,
                    encoder, texts=2, vectors=None)  # fmt: skip
    with artifacts.atomic_folder(folder) as new:
        models.save(models.create(encoder, kind(task).size, seed), new)
        artifacts.write_manifest(new, "train", {"task": task, "train": {"max_length": 32}})
    return folder


def predict(tmp_path, monkeypatch, name, *folders):
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"task": "rte", "threads": 1, "device": "cpu"}))
    argv = ["glue", "predict", name, "--test", official(tmp_path), "--model", *folders, "--params", params]
    monkeypatch.setattr("sys.argv", [str(one) for one in ("gradworks", *argv, "--out", tmp_path / "files")])
    args = cli._parser().parse_args()
    submission.run(args)
    return (tmp_path / "files" / f"{name}.tsv").read_text().splitlines()


@pytest.mark.parametrize(("name", "task"), [("RTE", "rte"), ("STS-B", "stsb"), ("MRPC", "mrpc")])
def test_the_file_holds_the_mean_answer_of_the_models(tmp_path, monkeypatch, name, task):
    folders = [trained(tmp_path, task, seed) for seed in range(3)]
    said = predict(tmp_path, monkeypatch, name, *folders)
    texts, one = [(a.replace('""', '"'), b) for a, b in ROWS], kind(task)
    made = []
    for folder in folders:
        model = models.load(folder).eval()
        with torch.no_grad():
            made.append(one.answers((model(model.collate(model.encode(texts, 32))),)))
    mean = np.mean(made, axis=0)
    if task == "stsb":
        expected = [f"{min(5, max(0, value)):.3f}" for value in mean]
    else:
        names = one.classes if task == "rte" else ("0", "1")
        expected = [names[i] for i in mean.argmax(1)]
    assert said == ["index\tprediction", *(f"{i}\t{value}" for i, value in enumerate(expected))]


def test_a_model_of_another_task_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"mrpc-0: a model of mrpc\nexpected one of rte"):
        predict(tmp_path, monkeypatch, "RTE", trained(tmp_path, "rte", 0), trained(tmp_path, "mrpc", 0))
    assert not (tmp_path / "files").exists()
    with pytest.raises(InputError, match="NAME: found 'rte'"):
        predict(tmp_path, monkeypatch, "rte", trained(tmp_path, "mrpc", 0))


def test_a_model_with_heads_of_slices_is_refused(tmp_path, monkeypatch):
    folder = trained(tmp_path, "rte", 0)
    about = artifacts.read_json(folder / artifacts.MANIFEST)
    about["parameters"]["slices"] = {"names": ["short"]}
    artifacts.write_json(folder / artifacts.MANIFEST, about)
    with pytest.raises(InputError, match="a model with heads of slices\nexpected one without"):
        predict(tmp_path, monkeypatch, "RTE", folder)


def test_scores_from_files(tmp_path, capsys):
    def written(name, **more):
        artifacts.write_json(tmp_path / name, more)
        return str(tmp_path / name)

    def scores(**values):
        return {"overall": {name: {"value": value} for name, value in values.items()}}

    both = written("a.json", **scores(accuracy=0.7), parts={"stsb": scores(pearson=0.9, spearman=0.7)})
    mean = written("b.json", mean=scores(matthews=0.6), members={})
    args = cli._parser().parse_args(["glue", "score", f"rte={both}", f"stsb={both}", f"cola={mean}"])
    submission.run(args)
    assert capsys.readouterr().out.splitlines() == [
        "CoLA    0.600", "STS-B   0.800", "RTE     0.700",
        "0.700   mean of 3, not the GLUE score; missing: SST-2, MRPC, QQP, MNLI, QNLI, WNLI",
    ]  # fmt: skip
