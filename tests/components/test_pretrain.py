"""The stage pretrain: encoder folders from the training split alone, kills, checkpoints of others, bad input."""

import hashlib
import lzma
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
import torch
import yaml

from components import pretrain
from gradworks import models
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import splits
from gradworks.models._shared import files
from gradworks.telemetry import live

pytestmark = pytest.mark.slow("trains language models")

NOUNS = ("pilot", "doctor", "lawyer", "judge", "artist")
TRAIN = [(f"the {a} met the {b} {i}", f"the {b} met the {a}") for i, a in enumerate(NOUNS) for b in NOUNS]
PARAMS = {
    "threads": 1, "device": "cpu", "task": "nli",
    "corrupt": {"splits": {
        "train": {"from": "toy/train"},
        "clean": {"from": "toy/validation", "size": 2, "where": {"heuristic": "none"}},
        "selection": {"from": "toy/validation", "size": 2},
        "test": {"from": "toy/test"},
    }},
    "pretrain": {
        "gru": {"model": "gru", "vocabulary": 90, "embedding": 8, "hidden": 8},
        "cased": {"model": "gru", "vocabulary": 90, "embedding": 8, "hidden": 8, "lowercase": False},
        "bow": {"model": "bow", "vectors": {"file": "vectors.txt"}},
        "bert": {
            "model": "transformer", "vocabulary": 90, "layers": 1, "width": 16, "heads": 2, "positions": 32,
            "pretrain": {"steps": 150, "batch": 4, "max_length": 24},
        },
        "random": {"model": "transformer", "vocabulary": 90, "layers": 1, "width": 16, "heads": 2},
    },
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a fetched source; `project(encoder, **changes)` runs the stage in this process."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/fetch/toy"
    for name, pairs in {
        "train": TRAIN,
        "validation": [(f"a zebra sleeps {i}", "a quokka") for i in range(6)],
        "test": [(f"a xylophone sings {i}", "a jazz quiz") for i in range(4)],
    }.items():
        columns = {
            "id": [f"{name}-{i}" for i in range(len(pairs))],
            "premise": [p for p, _ in pairs],
            "hypothesis": [h for _, h in pairs],
            "label": ["neutral"] * len(pairs),
            "heuristic": ["none"] * len(pairs),
        }
        artifacts.write_parquet(folder / f"{name}.parquet", pa.table(columns))
    artifacts.write_manifest(folder, "fetch", {})
    (tmp_path / "vectors.txt").write_text("".join(f"{word} {i} {i * i}\n" for i, word in enumerate([*NOUNS, "met"])))

    def run(encoder, **changes):
        values = yaml.safe_load(yaml.safe_dump(PARAMS))
        values["pretrain"][encoder] = {**values["pretrain"].get(encoder, {}), **changes}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        out = tmp_path / "runs/pretrain" / encoder
        arguments = ["pretrain", "--encoder", encoder, "--data", "runs/fetch", "--out", f"runs/pretrain/{encoder}"]
        monkeypatch.setattr(sys, "argv", arguments)
        pretrain.main()
        return out

    return run


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def tokens(folder):
    return set(models.read_tokenizer(folder).get_vocab())


@pytest.mark.parametrize("encoder", ["gru", "cased", "bow", "bert", "random"])
def test_the_folder_makes_a_model_and_the_same_one_again(project, encoder):
    short = {"pretrain": {"steps": 3, "batch": 4, "max_length": 24}} if encoder == "bert" else {}
    folder = project(encoder, **short)
    first = hashes(folder)
    assert artifacts.check(folder)["stage"] == "pretrain"
    project(encoder, **short)
    assert hashes(folder) == first
    model = models.create(folder, 3, seed=0)
    assert model(model.collate(model.encode(TRAIN[:2], 16))).shape == (2, 3)
    assert not list((folder.parent.parent.parent / ".gradworks").rglob("*.pt"))
    assert ("model.safetensors" in first) == (encoder == "bert")
    assert not any(str(folder.parent).encode() in file.read_bytes() for file in folder.iterdir())


def test_only_the_training_split_is_read(project):
    vocabulary = tokens(project("gru"))
    assert "pilot" in vocabulary
    assert not {t.removeprefix("##") for t in vocabulary} & set("zqx")  # letters of the other splits


def test_rows_that_others_take_from_the_same_source_split_are_not_read(project, tmp_path, monkeypatch):
    characters = [chr(0x4E00 + i) for i in range(12)]  # each is a token of its own
    rows = {"id": characters, "premise": ["a"] * 12, "hypothesis": characters, "label": ["neutral"] * 12}
    artifacts.write_parquet(tmp_path / "runs/fetch/toy/all.parquet", pa.table(rows))
    sizes = {"train": None, "clean": 2, "selection": 2, "test": 3}
    asked = {name: {"from": "toy/all", **({"size": size} if size else {})} for name, size in sizes.items()}
    monkeypatch.setitem(PARAMS["corrupt"], "splits", asked)
    vocabulary = tokens(project("gru"))
    drawn, _ = splits.draw(splits.Splits.model_validate(asked), {"toy/all": pa.table(rows)}, 0, "test")
    assert vocabulary & set(characters) == set(drawn["train"]["id"].to_pylist())
    assert len(drawn["train"]) == 12 - 2 - 2 - 3


def test_case_and_vectors(project):
    assert "N" not in tokens(project("gru"))
    model = models.create(project("bow"), 3, seed=0)
    assert model.embedding.weight.shape == (8, 2) and not model.embedding.weight.requires_grad
    manifest = artifacts.read_json(project("bow") / "manifest.json")
    assert list(manifest["given"]) == ["vectors.txt"]


def test_steps_are_told(project, monkeypatch):
    told = []
    silent = live.Silent()
    silent.step = lambda report, **figures: told.append(figures["loss"])
    monkeypatch.setattr(live, "begin", lambda *args, **labels: silent)
    folder = project("bert")
    assert told == artifacts.read_parquet(folder / "history.parquet", ["loss"])["loss"].to_pylist()[1:]


def test_the_loss_falls_and_is_written(project, capsys):
    folder = project("bert")
    history = artifacts.read_parquet(folder / "history.parquet", ["step", "loss", "learning_rate", "held_out_loss"])
    held = [v for v in history["held_out_loss"].to_pylist() if v is not None]
    assert history.num_rows == 151 and held[-1] < held[0] - 0.5
    said = capsys.readouterr()
    assert re.search(r"bert: held-out loss \d\.\d+ at the start\n", said.out)
    assert "\r" not in said.out + said.err


def test_killed_and_run_again_it_ends_the_same(project, tmp_path):
    unbroken = hashes(project("bert"))
    (tmp_path / "runs/pretrain/bert").rename(tmp_path / "unbroken")
    command = [sys.executable, "-m", "components.pretrain", "--encoder", "bert", "--data", "runs/fetch",
               "--out", "runs/pretrain/bert"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".gradworks/checkpoints/*/state.pt")):
        assert time.monotonic() < end and process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "runs/pretrain/bert").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    step = int(re.search(r"bert: resumed from step (\d+) of 150", done.stdout)[1])
    assert 0 < step < 150
    assert hashes(tmp_path / "runs/pretrain/bert") == unbroken
    assert not list(tmp_path.glob(".gradworks/checkpoints/*"))
    assert "\r" not in done.stdout + done.stderr


def test_sigterm_saves_and_leaves_no_output(project, tmp_path, monkeypatch, capsys):
    from gradworks import pretraining

    real = pretraining.losses
    calls = iter(range(1000))

    def losses(*args):
        if next(calls) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(pretraining, "losses", losses)
    with pytest.raises(SystemExit) as ended:
        project("bert")
    assert ended.value.code == 143
    assert not (tmp_path / "runs/pretrain/bert").exists() and not list((tmp_path / "runs/pretrain").iterdir())
    monkeypatch.setattr(pretraining, "losses", real)
    capsys.readouterr()
    project("bert", dropout=0.2)
    assert "at the start" in capsys.readouterr().out  # another run: not resumed
    project("bert")
    assert "bert: resumed from step" in capsys.readouterr().out


def test_next_sentences_of_a_corpus(project, tmp_path):
    lines = [f"sentence {i} of the {NOUNS[i % 5]} ." for i in range(41)]
    (tmp_path / "corpus.txt.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    training = {"steps": 4, "batch": 4, "max_length": 24, "corpus": "corpus.txt.xz", "next_sentence": True, "lines": 31}
    folder = project("bert", pretrain=training)
    manifest = artifacts.read_json(folder / "manifest.json")
    assert manifest["texts"] == 15 and list(manifest["given"]) == ["corpus.txt.xz"]
    history = artifacts.read_parquet(folder / "history.parquet", ["next_sentence_loss", "held_out_next_sentence_loss"])
    assert 0 < history["next_sentence_loss"].to_pylist()[-1] < 2
    assert "pooler.dense.weight" in files.read_tensors(folder / "model.safetensors")


def test_training_goes_on_from_a_checkpoint(project):
    first = project("bert")
    short = {"steps": 2, "batch": 4, "max_length": 24, "learning_rate": 1e-9}
    again = project("more", **{"model": "transformer", "from": "runs/pretrain/bert", "pretrain": short})
    a, b = (files.read_tensors(folder / "model.safetensors") for folder in (first, again))
    assert a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert tokens(first) == tokens(again)


def test_a_vocabulary_file(project, tmp_path):
    from gradworks.data.tokenizer import SPECIAL

    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *NOUNS, "the", "met"]))
    folder = project("given", model="gru", vocabulary_file="vocab.txt", embedding=8)
    assert tokens(folder) == {*SPECIAL, *NOUNS, "the", "met"}


@pytest.mark.parametrize(
    ("encoder", "changes", "said"),
    [
        ("gru", {"hiden": 3}, r"params.yaml: pretrain.gru.hiden: unknown key"),
        ("gru", {"model": "lstm"}, r"params.yaml: pretrain.gru.model: found 'lstm'"),
        ("gru", {"vocabulary": None}, r"params.yaml: pretrain.gru: no vocabulary"),
        ("gru", {"vocabulary": 20}, r"vocabulary: found 20"),
        ("gru", {"vocabulary_file": "none.txt"}, r"params.yaml: pretrain.gru.vocabulary_file: none.txt: no such file"),
        ("bow", {"vectors": {"file": "no.txt"}}, r"params.yaml: pretrain.bow.vectors.file: no.txt: no such file"),
        ("bert", {"pretrain": {"steps": 0}}, r"params.yaml: pretrain.bert.pretrain.steps: found 0"),
        (
            "bert",
            {"pretrain": {"steps": 1, "max_length": 24, "corpus": "no.xz"}},
            r"corpus: no.xz: no such file",
        ),
    ],
)
def test_bad_parameters_are_named_and_leave_nothing(project, tmp_path, encoder, changes, said):
    with pytest.raises(InputError, match=said):
        project(encoder, **changes)
    assert not (tmp_path / "runs/pretrain").exists() or not list((tmp_path / "runs/pretrain").iterdir())


def test_an_empty_corpus_and_a_missing_column_are_named(project, tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text("only one line\n")
    with pytest.raises(InputError, match="found 1 sequences of text, expected two or more"):
        project("bert", vocabulary=30, pretrain={"steps": 1, "max_length": 24, "corpus": "one.txt"})
    monkeypatch.setitem(PARAMS, "task", "cola")
    with pytest.raises(InputError, match="no column 'sentence'"):
        project("gru")


def test_real_corpus_and_published_vocabulary(project, data):
    training = {"steps": 2, "batch": 4, "max_length": 24, "lines": 300, "corpus": str(data / "corpus/wikipedia.txt.xz")}
    vocabulary = str(data / "vocab/bert-base-cased-vocab.txt")
    folder = project("bert", vocabulary_file=vocabulary, lowercase=False, pretrain=training)
    assert len(tokens(folder)) == 28_996
    assert artifacts.read_json(folder / "manifest.json")["texts"] == 300
