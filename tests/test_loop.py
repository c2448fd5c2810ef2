"""The loop: same data for every method, schedules of one's own steps, resume bit for bit, diverged and stopped runs."""

import dataclasses

import pytest
import torch
from torch import nn

from gradworks import loop
from gradworks.base.checkpoint import Checkpoint
from gradworks.data.batching import Examples
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from gradworks.predict import answers
from tests.kinds import kind

SETTINGS = loop.Settings(batches=24, batch=8, clean_batch=4, learning_rate=0.05, warmup=0.25, clip=1.0, every=0.25)


class Toy(nn.Module):
    """Embedding, dropout, mean, head: learns which of three token ranges a text is of."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.dropout, self.head = nn.Embedding(30, 8), nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, inputs, embedded=None):
        x = self.embedding(inputs["ids"]) if embedded is None else embedded
        return self.head(self.dropout(x).mean(1))


def collate(encodings):
    return {"ids": torch.tensor([e["ids"] for e in encodings])}


def examples(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    ids = (torch.randint(0, 10, (n, 5), generator=generator) + 10 * labels[:, None]).tolist()
    return Examples("nli", [f"{seed}-{i}" for i in range(n)], [{"ids": x} for x in ids], labels, collate, strata=labels)


TRAIN, CLEAN, SELECTION = examples(60, 1), examples(20, 2), examples(40, 3)


PLAIN = Mixture({"nli": Part(TRAIN, SELECTION, CLEAN)})


def score(model):
    found = answers(model, kind("nli"), SELECTION)
    return {"accuracy": float((found.argmax(1) == SELECTION.labels.numpy()).mean())}


def fit(update="erm", weighting="uniform", settings=SETTINGS, model=None, **options):
    model = model or Toy()
    method = Method("supervised", weighting, update, task=kind("nli"), seed=5)
    return model, loop.fit(model, method, PLAIN, settings, 5, score, **options)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_keeps_the_best_model():
    model, trace = fit()
    assert trace.best["score"] > 0.8  # chance is a third
    assert score(model)["accuracy"] == trace.best["score"]
    marks = {r["step"]: r["selection_accuracy"] for r in trace.history if "selection_accuracy" in r}
    assert list(marks) == [6, 12, 18, 24]
    assert trace.best["step"] == min(step for step, value in marks.items() if value == max(marks.values()))


@pytest.mark.parametrize(("better", "kept"), [(1, 1), (-1, 0)])
def test_the_best_model_is_kept_not_the_last(better, kept):
    values, seen = iter([0.5, 0.9, 0.7, 0.9]), []
    model = Toy()

    def score(_):
        seen.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
        return {"accuracy": next(values)}

    method = Method(task=kind("nli"), seed=5)
    trace = loop.fit(model, method, PLAIN, dataclasses.replace(SETTINGS, better=better), 5, score)
    assert trace.best == {"step": [6, 12][kept], "score": [0.5, 0.9][kept]}  # the first of equals
    assert all(torch.equal(seen[kept][key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(("update", "steps"), [("erm", 24), ({"erm": {"batches": 2}}, 12), ("dotprod", 12)])
def test_every_method_sees_the_same_number_of_examples(update, steps):
    _, trace = fit(update)
    assert trace.step == steps
    assert (
        trace.examples == 3 * 60
    )  # 24 batches of 8 at 60 examples an epoch: three epochs, the last batch of each short


def test_rate_rises_and_falls_over_the_runs_own_steps():
    for update in ("erm", "dotprod"):
        rates = [r["learning_rate"] for r in fit(update)[1].history]
        peak = rates.index(max(rates))
        assert peak / len(rates) == pytest.approx(0.25, abs=0.1)
        assert max(rates) == pytest.approx(0.05)
        assert rates[:peak] == sorted(rates[:peak])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize("weighting", ["uniform", "reweight"])
@pytest.mark.parametrize("update", ["erm", "dotprod"])
def test_stopped_and_resumed_is_never_stopped(tmp_path, update, weighting):
    whole, trace = fit(update, weighting)
    saved, asked = Checkpoint("key", tmp_path), iter([False] * 5 + [True])
    with pytest.raises(loop.Stopped, match="stopped after step 6"):
        fit(update, weighting, checkpoint=saved, stop=lambda: next(asked))
    torch.manual_seed(99)  # a resumed run must not read the global random state
    resumed, again = fit(update, weighting, model=Toy(seed=9), checkpoint=Checkpoint("key", tmp_path))
    assert same(whole, resumed)
    assert again.history == trace.history
    assert again.statistics == trace.statistics
    joined = [torch.cat(c) for c in zip(*trace.weights, strict=True)]
    assert all(
        torch.equal(a, b) for a, b in zip(joined, [torch.cat(c) for c in zip(*again.weights, strict=True)], strict=True)
    )


def test_micro_batches_change_no_data(tmp_path):
    _, whole = fit()
    _, split = fit(settings=dataclasses.replace(SETTINGS, micro=3))
    assert [r["examples"] for r in split.history] == [r["examples"] for r in whole.history]


def test_divergence_is_a_state_and_keeps_the_best_before():
    class Bad(Toy):
        calls = 0

        def forward(self, inputs, embedded=None):
            Bad.calls += self.training
            return super().forward(inputs, embedded) * (float("nan") if Bad.calls > 10 else 1.0)

    model, trace = fit(model=Bad())
    assert trace.diverged.startswith("step 11: loss nan")
    assert trace.step == 10
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_term_out_of_all_bounds_is_divergence_and_no_step_is_made():
    """Its gradient is finite: only the figure says that the step is not."""
    model, trace = fit({"dotprod": {"weight": 1e7}})
    assert trace.diverged.startswith("step 1: loss ") and trace.diverged.endswith("times the gradient")
    assert trace.step == 0 and same(model, Toy())


def test_weights_are_relative_and_named_by_row():
    _, trace = fit(weighting="random")
    step, index, weight, _ = (torch.cat(c) for c in zip(*trace.weights, strict=True))
    for number in range(1, 25):
        assert weight[step == number].mean() == pytest.approx(1.0)
    assert set(index.tolist()) == set(range(60))
    assert not fit()[1].weights  # plain training has nothing to tell
