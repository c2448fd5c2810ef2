"""Masked-language-model training: it learns, and stopped and resumed it ends bit-identical."""

import math

import pytest
import torch

from gradworks import loop, pretraining
from gradworks.base import validate
from gradworks.base.checkpoint import Checkpoint
from gradworks.base.errors import InputError
from gradworks.data import tokenizer
from gradworks.data.masking import IGNORED, encode
from gradworks.models import transformer

TEXTS = [
    (f"the {noun} {verb} the {other}", f"the {other} was {verb} by the {noun}")
    for noun in ("pilot", "doctor", "lawyer", "judge")
    for verb in ("saw", "met", "thanked", "helped", "called")
    for other in ("artist", "banker", "actor", "author", "tourist")
]


@pytest.fixture(scope="module")
def made():
    return tokenizer.train([text for pair in TEXTS for text in pair], 120, True)


class Run:
    """One small run in a folder."""

    def __init__(self, folder, made, **more):
        self.folder, self.tokenizer = folder, made
        folder.mkdir()
        values = {"steps": 24, "batch": 8, "max_length": 24, "learning_rate": 3e-3, **more}
        sizes = {"layers": 1, "width": 16, "heads": 2, "positions": 32, "vocabulary": 120}
        self.options = validate(
            {"model": "transformer", **sizes, "pretrain": values}, transformer.Options, "params.yaml"
        )
        self.settings = self.options.pretrain
        self.sequences = encode(TEXTS, made, self.settings.max_length, self.settings.next_sentence, 0)
        self.checkpoint = Checkpoint("k", folder)
        transformer.prepare(self.options, made, folder)

    def __call__(self, stop=lambda: False, watch=None):
        self.model = transformer.language_model(self.options, self.folder, "params.yaml: pretrain.bert")
        return pretraining.train(
            self.model,
            self.sequences,
            self.tokenizer,
            self.settings,
            torch.device("cpu"),
            self.checkpoint,
            stop,
            "bert",
            watch,
        )


def test_it_learns(tmp_path, made, capsys):
    run = Run(tmp_path / "a", made, steps=120)
    history = run()
    assert [row["step"] for row in history] == list(range(121))
    assert history[-1]["held_out_loss"] < history[0]["held_out_loss"] - 1.0
    assert history[-1]["sequences"] == 120 * 8 - 9 * 6  # 98 sequences to train on: the last batch of an epoch has 2
    assert max(row["learning_rate"] for row in history) == pytest.approx(3e-3, rel=0.02)
    assert sum("held_out_loss" in row for row in history) == 1 + pretraining.LOOKS
    said = capsys.readouterr().out
    assert f"held-out loss {history[0]['held_out_loss']:.3f} at the start" in said
    assert f"held-out loss {history[-1]['held_out_loss']:.3f} after step 120" in said


@pytest.mark.parametrize("next_sentence", [False, True])
def test_stopped_and_resumed_it_ends_the_same(tmp_path, made, capsys, next_sentence):
    whole, broken = (Run(tmp_path / name, made, next_sentence=next_sentence) for name in ("whole", "broken"))
    expected = whole()
    for count in (7, 9):
        calls = iter(range(1000))
        torch.manual_seed(count)  # the global random state is no part of it
        with pytest.raises(loop.Stopped, match="stopped after step"):
            broken(lambda calls=calls, count=count: next(calls) == count)
    capsys.readouterr()
    assert broken() == expected
    assert "bert: resumed from step 18 of 24" in capsys.readouterr().out
    for (name, a), b in zip(whole.model.state_dict().items(), broken.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    if next_sentence:
        assert "held_out_next_sentence_loss" in expected[-1] and "next_sentence_loss" in expected[-1]


def test_scoring_the_predicted_tokens_alone_is_scoring_all(tmp_path, made):
    run = Run(tmp_path / "a", made)
    model = transformer.language_model(run.options, run.folder, "params.yaml").eval()
    batch = run.sequences.batch(range(8), 0)
    batch["targets"] = torch.where(torch.arange(batch["input_ids"].shape[1]) % 3 == 1, batch["input_ids"], IGNORED)
    names = ("input_ids", "token_type_ids", "attention_mask")
    whole = model(**{name: batch[name] for name in names}, labels=batch["targets"]).loss
    assert torch.allclose(pretraining.losses(model, batch, False)[0], whole, atol=1e-6)


def test_the_seed_decides_the_weights_at_the_start(tmp_path, made):
    a, b, c = (Run(tmp_path / name, made, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    models = []
    for run in (a, b, c):
        torch.manual_seed(len(models))
        models.append(transformer.language_model(run.options, run.folder, "params.yaml").state_dict())
    first = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(models[0][first], models[1][first]) and not torch.equal(models[0][first], models[2][first])


def test_divergence_is_said_and_told(tmp_path, made):
    told = []
    with pytest.raises(InputError, match=r"pretrain\.bert\.pretrain: diverged in step"):
        Run(tmp_path / "a", made, learning_rate=1e30, warmup=0.0)(watch=lambda report, **figures: told.append(figures))
    assert not math.isfinite(told[-1]["loss"] + told[-1]["gradient_norm"])


def test_every_step_is_told_and_none_is_changed(tmp_path, made):
    told = []
    watched, plain = Run(tmp_path / "a", made), Run(tmp_path / "b", made)
    history = watched(watch=lambda report, **figures: told.append((report, figures)))
    assert history == plain()
    assert all(torch.equal(a, b) for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True))
    assert {report for report, _ in told} == {None}
    for name in ("loss", "learning_rate"):
        assert [figures[name] for _, figures in told] == [row[name] for row in history[1:]]
    assert sum(figures["examples"] for _, figures in told) == history[-1]["sequences"]
    assert all(figures["seconds"] > 0 and figures["gradient_norm"] > 0 for _, figures in told)
