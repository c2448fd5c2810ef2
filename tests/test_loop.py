"""The loop: same data for every method, schedules of one's own steps, resume bit for bit, diverged and stopped runs."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from gradworks import loop
from gradworks.base.checkpoint import Checkpoint
from gradworks.base.errors import InputError
from gradworks.base.size import Budget
from gradworks.data.batching import Examples
from gradworks.data.mixture import Mixture, Part
from gradworks.distributed import World
from gradworks.methods import Method
from gradworks.models import parameter_groups
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


def fit(update="erm", weighting="uniform", settings=SETTINGS, model=None, mixture=PLAIN, **options):
    model = model or Toy()
    method = Method("supervised", weighting, update, task=kind("nli"), seed=5)
    return model, loop.fit(model, method, mixture, settings, 5, score, **options)


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


def ragged(n, seed):
    """Texts of one to nine tokens, each padded with its own first."""
    made = examples(n, seed)
    encodings = [{"ids": (one["ids"] * 2)[: 1 + 7 * i % 9]} for i, one in enumerate(made.encodings)]

    def pad(some):
        longest = max(len(one["ids"]) for one in some)
        return {"ids": torch.tensor([one["ids"] + one["ids"][:1] * (longest - len(one["ids"])) for one in some])}

    return dataclasses.replace(made, encodings=encodings, collate=pad)


BUDGET = dataclasses.replace(SETTINGS, batch=Budget(tokens=36))
RAGGED = Mixture({"nli": Part(ragged(60, 1), SELECTION, ragged(20, 2))})


@pytest.mark.parametrize("weighting", ["uniform", "reweight"])
@pytest.mark.parametrize(("update", "k"), [("erm", 1), ({"erm": {"batches": 2}}, 2), ("dotprod", 2), ("reptile", 4)])
def test_batches_of_a_budget_are_the_same_for_every_method(update, k, weighting):
    seen = []

    def watch(report, **_):
        seen.append([len(part.losses) for batch in report.sums for part in batch])

    _, trace = fit(update, weighting, BUDGET, mixture=RAGGED, watch=watch)
    batches = RAGGED.draws(Method(task=kind("nli")).needs, BUDGET.batch, None, 5)
    expected = [len(batches.step(i)[0][0].ids) for i in range(24)]
    assert list(itertools.chain(*seen)) == expected and len(set(expected)) > 2
    assert (trace.step, trace.batches, trace.examples) == (24 // k, 24, sum(expected))


def test_the_gradient_of_a_budget_is_the_mean_over_each_batch():
    """Two batches of unequal size, in parts: the mean of both means, whatever the sizes."""
    first, second = [0, 1], [2, 3, 4, 5, 6]
    train, model = RAGGED.parts["nli"].train, Toy().eval()
    settings = dataclasses.replace(BUDGET, micro=Budget(tokens=12))
    drawn = loop.cut([train.batch(first), train.batch(second)], settings)
    assert [[len(part.ids) for part in parts] for parts in drawn] == [[1, 1], [2, 2, 1]]
    Method(update={"erm": {"batches": 2}}, task=kind("nli"), seed=5).backward(model, drawn)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for rows in (first, second):
        batch = train.batch(rows)
        (torch.nn.functional.cross_entropy(model(batch.inputs), batch.labels) / 2).backward()
    for p, one in zip(model.parameters(), found, strict=True):
        assert torch.allclose(p.grad, one, atol=1e-6)


@pytest.mark.parametrize(("update", "weighting"), [("erm", "uniform"), ("dotprod", "reweight")])
def test_a_budget_goes_on_anywhere_to_the_same_bits(tmp_path, update, weighting):
    settings = dataclasses.replace(BUDGET, micro=Budget(tokens=18))
    whole, expected = fit(update, weighting, settings, mixture=RAGGED)
    for stop_after in (3, 7):
        checkpoint, calls = Checkpoint("a" * 16, tmp_path / str(stop_after)), []
        with pytest.raises(loop.Stopped):
            fit(update, weighting, settings, mixture=RAGGED, checkpoint=checkpoint,
                stop=lambda calls=calls, n=stop_after: calls.append(1) or len(calls) >= n)  # fmt: skip
        model, trace = fit(update, weighting, settings, mixture=RAGGED, checkpoint=checkpoint)
        assert same(model, whole) and trace.history == expected.history and trace.batches == expected.batches


@pytest.mark.parametrize(
    ("batch", "micro", "size", "parts"),
    [
        (8, None, 1, [8]), (8, 3, 1, [3, 3, 2]), (8, None, 2, [4, 4]), (8, None, 3, [3, 3, 2]), (8, 2, 2, [2] * 4),
        (Budget(tokens=64), None, 1, [8]), (Budget(tokens=64), None, 2, [4, 4]),
        (Budget(tokens=64), None, 3, [3, 3, 2]),
        (Budget(tokens=64), Budget(tokens=16), 2, [2] * 4), (Budget(tokens=64), Budget(tokens=100), 1, [8]),
        (Budget(tokens=64), Budget(tokens=7), 2, [1] * 8),
    ],
)  # fmt: skip
def test_a_batch_is_cut_into_as_many_parts_as_the_ranks_need(batch, micro, size, parts):
    settings = loop.shared(dataclasses.replace(SETTINGS, batch=batch, micro=micro), World(size - 1, size))
    (found,) = loop.cut([TRAIN.batch(list(range(8)))], settings)
    assert [len(part.ids) for part in found] == parts
    assert [i for part in found for i in part.ids] == TRAIN.ids[:8]


def test_parts_that_the_ranks_cannot_share_evenly_are_refused():
    tokens = Budget(tokens=64), Budget(tokens=30), "30 tokens, which makes 3 of a batch of 64 tokens\n.* as 32 would"
    for batch, micro, said in ((8, 3, "found 3, which makes 3 of a batch of 8\n.* as 4 would"), tokens):
        with pytest.raises(InputError, match=said):
            loop.shared(dataclasses.replace(SETTINGS, batch=batch, micro=micro), World(0, 2))


def test_the_norm_that_the_report_has_is_not_computed_again():
    for norm, largest in ((2.0, 1.0), (0.5, 1.0), (0.5, None)):
        grads = []
        for known in (None, torch.tensor(norm)):
            model = nn.Linear(2, 1, bias=False)
            model.weight.grad = torch.tensor([[0.6, 0.8]]) * norm
            assert loop.clip(model.parameters(), largest, known) == pytest.approx(norm)
            grads.append(model.weight.grad)
        assert torch.allclose(*grads) and grads[0].norm() == pytest.approx(min(norm, largest or norm))
    model.weight.grad = torch.tensor([[float("nan"), 1.0]])
    assert loop.clip(model.parameters(), 1.0) != loop.clip(model.parameters(), 1.0)  # not a number


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_an_optimizer_makes_the_step_of_its_class(name):
    """Fused or not, to rounding."""
    settings = dataclasses.replace(SETTINGS, optimizer=name, weight_decay=0.1)
    models = [Toy(), Toy()]
    ours = loop.make_optimizer(models[0], settings)
    plain = getattr(torch.optim, name)(parameter_groups(models[1], 0.1), lr=settings.learning_rate, foreach=False)
    assert ours.defaults.get("fused") is (True if name.startswith("Adam") else ours.defaults.get("fused"))
    for step in range(5):
        for model, optimizer in zip(models, (ours, plain), strict=True):
            torch.manual_seed(step)
            optimizer.zero_grad()
            batch = TRAIN.batch(list(range(8 * step, 8 * step + 8)))
            torch.nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
            optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


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
        own = weight[step == number]
        assert own.mean() == pytest.approx(float(own.any()))  # 0: the step was skipped
    assert set(index.tolist()) == set(range(60))
    assert not fit()[1].weights  # plain training has nothing to tell


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", [0.5, 0.989, 0.9999995, 1.0, 1.0000005, 1.5, float("inf"), float("nan")])
def test_clipping_is_that_of_torch(size, known):
    """Also where the norm is so near the bound that torch, which adds 1e-6, may or may not scale."""
    models = [nn.Linear(6, 5), nn.Linear(6, 5)]
    for model in models:
        drawn = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=drawn)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()], foreach=True)
        for p in model.parameters():
            p.grad.mul_(size / norm)
    norm = torch.nn.utils.get_total_norm([p.grad for p in models[0].parameters()], foreach=True)
    expected = float(torch.nn.utils.clip_grad_norm_(models[1].parameters(), 1.0))
    found = loop.clip(models[0].parameters(), 1.0, norm if known else None)
    assert found == expected or (found != found and expected != expected)
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=0, equal_nan=True)


def test_a_step_with_a_known_norm_clips_as_by_hand_and_one_without_weight_has_none():
    models = [Toy().eval(), Toy().eval()]
    ours, hand = (torch.optim.SGD(parameter_groups(model, 0.0), lr=1.0) for model in models)
    batch, method = TRAIN.batch(list(range(8))), Method(task=kind("nli"))
    made = loop.step(models[0], method.backward, ours, [[batch]], rate=1.0, largest=0.01)
    task = kind("nli")
    task.loss(task.outputs(models[1], batch), batch).mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(models[1].parameters(), 0.01)
    hand.step()
    assert made.norm == pytest.approx(float(norm)) and made.norm > 0.01
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    before = [p.clone() for p in models[0].parameters()]
    batch = dataclasses.replace(batch, mass=torch.zeros(8))
    made = loop.step(models[0], method.backward, ours, [[batch]], rate=1.0, largest=0.01)
    assert made.report.skipped and made.norm == 0 and all(map(torch.equal, before, models[0].parameters()))
