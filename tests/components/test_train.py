"""The stage that trains a cell: what it writes, what it refuses, and that all methods of a seed get the same."""

import copy
import itertools
import math
import os
import re

import pytest
import torch
import yaml

from gradworks import loop
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data.batching import stream
from tests.small import SMALL, run


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    before = os.getcwd()
    os.chdir(folder)
    values = copy.deepcopy(SMALL)
    values["train"] |= {"epochs": 1}
    values["methods"] |= {"reweight": {"weighting": "reweight"}, "both": {"train_on": ["train", "clean"]}}
    values["methods"]["last_layer"] = {
        "from": "erm", "trainable": "head", "reinitialise": True, "weighting": "reweight",
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    run("fetch", "--source", "synthetic", "--out", "runs/fetch/synthetic")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    yield folder
    os.chdir(before)


def train(method, params="params.yaml", out="out", data="runs/corrupt/noise/0", start="runs/pretrain/gru"):
    run("train", "--params", params, "--method", method, "--seed", 0, "--data", data, "--start", start,
        "--out", f"{out}/{method}", "--model", f"{out}/model-{method}")  # fmt: skip


def changed(project, change):
    values = yaml.safe_load((project / "params.yaml").read_text())
    change(values)
    (project / "changed.yaml").write_text(yaml.safe_dump(values))
    return "changed.yaml"


@pytest.mark.parametrize(("method", "steps"), [("erm", 60), ("dotprod", 30), ("reweight", 60)])
def test_outputs(project, method, steps):
    train(method)
    folder = project / "out" / method
    manifest = artifacts.check(folder)
    assert artifacts.check(project / "out" / f"model-{method}")["stage"] == "train"
    assert manifest["parameters"]["seed"] == 0
    status = artifacts.read_json(folder / "status.json")
    assert (status["steps"], status["examples"]) == (steps, 480)
    assert status["state"] in ("ok", "not converged")
    assert (status["state"] == "ok") == (status["best"]["score"] > status["constant"])
    history = artifacts.read_parquet(folder / "history.parquet").to_pylist()
    assert [r["step"] for r in history] == list(range(1, steps + 1))
    best = max(r["selection_accuracy"] for r in history if r["selection_accuracy"] is not None)
    assert best == status["best"]["score"]
    weights = artifacts.read_parquet(folder / "weights.parquet")
    ids = set(artifacts.read_parquet(project / "runs/corrupt/noise/0/train.parquet")["id"].to_pylist())
    assert set(weights["id"].to_pylist()) == (ids if method == "reweight" else set())
    if method == "reweight":
        scores, shares = weights["score"].to_numpy(), weights["weight"].to_numpy()
        assert ((shares > 0) <= (scores > 0)).all()
    assert not list((project / ".gradworks/checkpoints").glob("*"))


def test_the_best_model_may_be_chosen_by_log_loss(project):
    def change(values):
        values["train"]["select"] = {"metric": "log_loss", "every": 0.25}

    train("erm", changed(project, change), out="loss")
    status = artifacts.read_json(project / "loss/erm/status.json")
    history = artifacts.read_parquet(project / "loss/erm/history.parquet")["selection_log_loss"].to_pylist()
    assert status["best"]["score"] == min(v for v in history if v is not None)
    rows = artifacts.read_parquet(project / "runs/corrupt/noise/0/selection.parquet")["label"].to_pylist()
    shares = [rows.count(label) / len(rows) for label in set(rows)]
    assert status["constant"] == pytest.approx(-sum(p * math.log(p) for p in shares), rel=1e-6)
    assert (status["state"] == "ok") == (status["best"]["score"] < status["constant"])


def budget(tokens, window=8):
    return lambda values: values["train"].update(batch={"tokens": tokens}, window=window)


@pytest.mark.parametrize(("method", "k"), [("erm", 1), ("dotprod", 2), ("both", 1)])
def test_batches_of_a_token_budget(project, method, k):
    """Every method sees as many examples; one that trains on further splits as many in the mean."""
    train(method, changed(project, budget(160)), out="tokens")
    status = artifacts.read_json(project / f"tokens/{method}/status.json")
    plain = artifacts.read_json(project / "tokens/erm/status.json")
    assert plain["examples"] == 480 and plain["batches"] == plain["steps"] > 60
    assert status["batches"] == k * status["steps"] and abs(status["batches"] - plain["batches"]) <= 3
    assert abs(status["examples"] - 480) <= (16 if method != "erm" else 0)
    history = artifacts.read_parquet(project / f"tokens/{method}/history.parquet")["examples"].to_pylist()
    assert len({b - a for a, b in itertools.pairwise(history)}) > 2


def test_a_budget_that_does_not_hold_an_example_is_refused_before_a_step(project):
    said = (
        r"changed\.yaml: train\.batch\.tokens: found \d+\nexpected at least (\d+), the tokens of the longest .* of nli"
    )
    with pytest.raises(InputError, match=said) as found:
        train("erm", changed(project, budget(7)), out="refused")
    longest = int(re.search(said, str(found.value))[1])
    train("erm", changed(project, budget(longest)), out="least")
    with pytest.raises(InputError, match=said):
        train("erm", changed(project, budget(longest - 1)), out="refused")
    assert not (project / "refused").exists()


def test_killed_and_resumed_a_budget_ends_with_the_same_bytes(project, monkeypatch, capsys):
    params, step, calls = changed(project, budget(160)), loop.step, []
    train("dotprod", params, out="whole")

    def killed(*args, **more):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return step(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "step", killed)
        train("dotprod", params, out="killed")
    capsys.readouterr()
    train("dotprod", params, out="killed")
    assert "resumed from step" in capsys.readouterr().out
    for name in ("dotprod", "model-dotprod"):
        one, other = (project / side / name for side in ("whole", "killed"))
        assert artifacts.check(one)["files"] == artifacts.check(other)["files"]


def test_the_window_decides_the_order(project):
    def seen(window):
        train("erm", changed(project, budget(160, window)), out=f"window-{window}")
        return artifacts.read_parquet(project / f"window-{window}/erm/history.parquet")["examples"].to_pylist()

    assert seen(1) != seen(50)


def test_twice_gives_the_same_bytes(project):
    def digests():
        train("dotprod", out="twice")
        return artifacts.check(project / "twice/dotprod")["files"], artifacts.check(project / "twice/model-dotprod")[
            "files"
        ]

    assert digests() == digests()


def test_methods_of_a_seed_share_initialisation_order_and_masks(project, monkeypatch):
    """The losses of the first batch, under dropout, are the same whatever a method does with them: up to rounding, as
    `reweight` computes a recurrent layer in its own way.
    """
    seen = []

    def fit(model, method, mixture, settings, seed, **_):
        batches = stream(mixture.parts["nli"].train, settings.batch, seed)
        first, second = next(batches), next(batches)
        start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        k = method.needs.batches
        report = method.backward(model.train(), [[first], [second]][:k], [[second]] * k if method.clean else ())
        seen.append((start, first.ids, second.ids, report.sums[0][0].losses))
        raise loop.Stopped("enough")

    monkeypatch.setattr(loop, "fit", fit)
    for method in ("erm", "dotprod", "reweight"):
        with pytest.raises(SystemExit):
            train(method, out="pairs")
    start, first, second, losses = seen[0]
    assert losses.unique().numel() > 1
    for other in seen[1:]:
        assert all(torch.equal(start[key], other[0][key]) for key in start)
        assert other[1:3] == (first, second)
        assert torch.allclose(other[3], losses, rtol=0, atol=1e-6)


def test_every_split_is_used_for_what_it_is(project):
    """Clean examples are trained on only when asked; the best epoch is chosen on `selection`; `test` is not read."""
    splits = {
        name: artifacts.read_parquet(project / f"runs/corrupt/noise/0/{name}.parquet")["id"].to_pylist()
        for name in ("train", "clean", "selection")
    }
    for method, names in (("erm", ["train"]), ("both", ["train", "clean"]), ("reweight", ["train"])):
        seen = {}

        def answers(model, task, examples, seen=seen):
            seen["selection"] = examples.ids
            raise loop.Stopped("enough")

        def fit(model, method, mixture, *_, score, seen=seen, **__):
            part = mixture.parts["nli"]
            seen |= {"train": part.train.ids, "clean": part.clean and part.clean.ids}
            score(model)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(loop, "fit", fit)
            patch.setattr("gradworks.predict.answers", answers)
            train(method)
        assert sorted(seen["train"]) == sorted(i for name in names for i in splits[name])
        assert sorted(seen["selection"]) == sorted(splits["selection"])
        assert seen["clean"] == (splits["clean"] if method == "reweight" else None)


@pytest.mark.parametrize(
    ("change", "method", "said"),
    [
        (lambda v: v["train"].update(epoch=3), "erm", "changed.yaml: train.epoch: unknown key"),
        (lambda v: v["train"].update(learning_rate={"bow": 1.0}), "erm", "train.learning_rate: found bow"),
        (lambda v: v["train"].update(epochs=1e-4), "erm", "train.epochs: found 0.0001"),
        (lambda v: v["methods"].update(erm={"update": "sgd"}), "erm", "methods.erm: "),
        (lambda v: v["methods"].update(erm={"update": {"dotprod": {"wait": 1}}}), "erm", "methods.erm: "),
        (lambda v: v["train"]["select"].update(metric="acuracy"), "erm", "acuracy"),
        (lambda v: None, "none", "no key 'methods.none'"),
    ],
)
def test_what_is_wrong_is_said(project, change, method, said):
    def with_select(values):
        values["train"]["select"] = {"metric": "accuracy", "every": 0.5}
        change(values)

    with pytest.raises(InputError) as error:
        train(method, changed(project, with_select), out="wrong")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    assert not (project / "wrong").exists()


def test_last_layer_trains_a_fresh_head_on_the_model_of_another_method(project):
    from gradworks import models

    train("erm", out="phase")
    train("last_layer", out="phase", start="phase/model-erm")
    before, after = (models.load(project / "phase" / name).state_dict() for name in ("model-erm", "model-last_layer"))
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"head.weight", "head.bias"}
    # at a rate of almost nothing the head stays where it began: drawn anew from the seed, not where `erm` left its own
    still = changed(project, lambda values: values["train"].update(learning_rate=1e-12))
    train("last_layer", still, out="still", start="phase/model-erm")
    fresh = models.load(project / "phase/model-erm")
    models.fresh_head(fresh, 0)
    head = models.load(project / "still/model-last_layer").head.weight
    torch.testing.assert_close(head, fresh.head.weight, rtol=0, atol=1e-6)
    assert (head - before["head.weight"]).abs().max() > 0.01
    assert artifacts.read_json(project / "phase/last_layer/status.json")["steps"] == 60
    manifest = artifacts.check(project / "phase/last_layer")
    assert manifest["parameters"]["method"]["from"] == "erm"


def test_a_phase_after_a_cell_without_a_model_is_not_run(project, monkeypatch):
    def fit(*_, **__):
        raise RuntimeError("not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(loop, "fit", fit)
    train("erm", out="none")
    monkeypatch.undo()
    os.chdir(project)
    train("last_layer", out="none", start="none/model-erm")
    status = artifacts.read_json(project / "none/last_layer/status.json")
    assert (status["state"], status["reason"]) == ("not run", "erm, which it starts from, ended without a model")
    run("evaluate", "--run", "none/last_layer", "--model", "none/model-last_layer", "--data", "runs/corrupt/noise/0",
        "--out", "none/evaluated", "--metrics", "none/metrics.json")  # fmt: skip
    assert artifacts.read_json(project / "none/metrics.json")["state"] == "not run"
    with pytest.raises(InputError, match=r"gradworks\.json"):
        train("erm", out="none", start="none/model-erm")


def test_damaged_data_stops_the_stage(project):
    import shutil

    shutil.copytree(project / "runs/corrupt/noise/0", project / "damaged")
    file = project / "damaged/clean.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"clean\.parquet: damaged"):
        train("erm", data="damaged", out="wrong")
    assert not (project / "wrong").exists()


def test_out_of_memory_and_divergence_write_every_output(project, monkeypatch):
    def fit(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(loop, "fit", fit)
    train("erm", out="oom")
    assert artifacts.read_json(project / "oom/erm/status.json")["state"] == "OOM"
    assert {"history.parquet", "weights.parquet", "status.json"} <= set(artifacts.check(project / "oom/erm")["files"])
    artifacts.check(project / "oom/model-erm")
    monkeypatch.undo()
    os.chdir(project)
    train("erm", changed(project, lambda v: v["train"].update(learning_rate=1e30, clip=None)), out="diverged")
    status = artifacts.read_json(project / "diverged/erm/status.json")
    assert status["state"] == "diverged"
    assert "step" in status["reason"]

    def other(*_, **__):
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(loop, "fit", other)
    with pytest.raises(RuntimeError, match="a defect of ours"):
        train("erm", out="wrong")
