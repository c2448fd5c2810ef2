"""Answers in the order of the examples, without dropout, leaving the model as it was."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gradworks.data.batching import Examples
from gradworks.predict import answers
from tests.kinds import kind, values


class Mean(nn.Module):
    """The mean token of each text, with a dropout that would show."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs):
        ids = inputs["ids"]
        mean = ids.sum(1) / (ids > 0).sum(1)
        return self.dropout(torch.stack([mean, -mean], 1))


def collate(encodings):
    longest = max(len(e["ids"]) for e in encodings)
    return {"ids": torch.tensor([e["ids"] + [0] * (longest - len(e["ids"])) for e in encodings])}


def examples(count):
    texts = [[i + 1] * (1 + i * 7 % 5) for i in range(count)]  # lengths in no order
    return Examples("nli", [str(i) for i in range(count)], [{"ids": t} for t in texts], torch.zeros(count), collate)


@pytest.mark.parametrize("training", [True, False])
def test_order_mode_and_random_state(training):
    model, state = Mean().train(training), torch.get_rng_state()
    found = answers(model, values(), examples(23), batch_size=4)
    assert found.tolist() == list(range(1, 24))
    nli = answers(model, kind("nli"), examples(23), batch_size=4)
    assert np.array_equal(nli, answers(model, kind("nli"), examples(23)))  # whatever the batches are
    assert model.training is training
    assert torch.equal(state, torch.get_rng_state())


def test_a_name_shows_rate_and_time_left(capfd, monkeypatch):
    monkeypatch.setattr("gradworks.base.progress._QUIET", 0.0)
    answers(Mean(), values(), examples(23), batch_size=4, name="evaluate")
    assert "evaluate: 4 of 23 example, " in capfd.readouterr().err
    answers(Mean(), values(), examples(23), batch_size=4)
    assert capfd.readouterr().err == ""


def test_no_examples():
    assert len(answers(Mean(), values(), examples(0))) == 0


def test_on_a_cpu_a_pass_has_no_more_tokens_than_its_caches_hold(monkeypatch):
    monkeypatch.setattr("gradworks.predict._TOKENS", 12)
    some, seen = examples(23), []
    collated = some.collate
    object.__setattr__(some, "collate", lambda rows: seen.append([len(one["ids"]) for one in rows]) or collated(rows))
    found = answers(Mean(), values(), some, batch_size=5)
    assert found.tolist() == list(range(1, 24))
    assert sum(map(len, seen)) == 23 and max(map(len, seen)) == 5
    assert max(len(lengths) * max(lengths) for lengths in seen) <= 12
    assert list(itertools.chain(*seen)) == sorted(some.lengths)
    monkeypatch.setattr("gradworks.predict._TOKENS", 1)  # fewer than one example has: one by one
    assert answers(Mean(), values(), some).tolist() == found.tolist()
