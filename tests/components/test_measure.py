"""The stage that measures costs: what it writes and counts, what both sides do, what cannot be measured."""

import argparse
import copy
import os
from pathlib import Path

import pytest
import torch
import yaml

from components import measure
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.cost import hardware
from tests.small import SMALL, run

pytestmark = pytest.mark.slow("trains for minutes to measure it")

DATA, START = "runs/corrupt/noise/0", "runs/pretrain/gru"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    before = os.getcwd()
    os.chdir(folder)
    values = copy.deepcopy(SMALL)
    values["train"] |= {"epochs": 1}
    values["methods"] |= {
        "reweight": {"weighting": "reweight"},
        "seldom": {"weighting": {"reweight": {"every": 5}}},
        "last_layer": {"from": "erm", "trainable": "head", "reinitialise": True, "weighting": "reweight"},
        "forward": {"weighting": {"reweight": {"backend": "jvp"}}},
        "long": {"as_long_as": "dotprod"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    run("fetch", "--source", "synthetic", "--out", "runs/fetch/synthetic")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", DATA)
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", START)
    run("train", "--method", "erm", "--seed", 0, "--data", DATA, "--start", START, "--out", "out/erm", "--model",
        "out/model-erm")  # fmt: skip
    hardware.write(folder / "params.yaml")
    yield folder
    os.chdir(before)


@pytest.fixture(autouse=True)
def fresh():
    measure._benches.clear()


def measured(method, params="params.yaml", start=START):
    """What the stage wrote: the costs, and the schedule."""
    out = Path("costs")
    run("measure", "--params", params, "--method", method, "--encoder", "gru", "--seed", 0, "--data", DATA,
        "--start", start, "--out", out / "gru" / f"{method}.json",
        "--schedule", f"runs/schedule/gru/{method}.json")  # fmt: skip
    found = artifacts.read_json(out / "gru" / f"{method}.json")
    return found, artifacts.read_json(Path("runs/schedule/gru") / f"{method}.json")


def bench(method, params="params.yaml", **more):
    given = {"params": Path(params), "method": method, "seed": 0, "data": Path(DATA), "start": Path(START)}
    return measure.Bench(argparse.Namespace(**given | more))


def changed(change):
    values = yaml.safe_load(Path("params.yaml").read_text())
    change(values)
    Path("changed.yaml").write_text(yaml.safe_dump(values))
    return "changed.yaml"


# clean batches of 4 beside batches of 8: reweighting costs (4 + 3 / 2) / 3 plain passes
@pytest.mark.parametrize(
    ("method", "batches", "passes"),
    [("erm", 1, 1.0), ("dotprod", 2, 1.5), ("reweight", 1, 5.5 / 3), ("seldom", 1, 1 + (1 / 3 + 1 / 2) / 5)],
)
def test_what_it_writes(project, method, batches, passes):
    found, schedule = measured(method)
    assert (found["state"], found["reason"], found["method"], found["encoder"]) == ("ok", "", method, "gru")
    assert (found["pairs"], found["batches"]) == (9, batches)
    times = found["time"]
    assert times["low"] <= times["ratio"] <= times["high"]
    assert found["run"]["low"] <= found["run"]["ratio"] <= found["run"]["high"]
    assert (found["run"] == {name: times[name] for name in ("ratio", "low", "high")}) == (batches == 1)
    assert schedule == {"ratio": round(times["ratio"], 1)}
    assert found["passes"] == pytest.approx(passes)
    operations = found["operations"]
    assert operations["ratio"] == pytest.approx(operations["method"] / operations["plain"])
    if batches * passes == 1:
        assert operations["ratio"] == 1
    assert operations["not_counted"] == []
    assert found["memory"]["ratio"] == found["memory"]["method_bytes"] / found["memory"]["plain_bytes"] > 0
    assert found["throughput"]["plain_examples"] == pytest.approx(8 / times["plain_seconds"])
    tokens = found["throughput"]["plain_tokens"] / found["throughput"]["plain_examples"]
    assert 10 < tokens < 40  # two sentences of the synthetic grammar
    assert found["hardware"] == {**hardware.facts(), "threads": 1, "device": hardware.processor()}
    assert "note" not in found


def test_energy_is_absent_where_no_counter_is(project, monkeypatch):
    from gradworks.cost import energy

    monkeypatch.setattr(energy, "counter", lambda device: None)
    assert measured("erm")[0]["energy"] is None
    joules = iter([10.0, 14.0, 20.0, 26.0])
    monkeypatch.setattr(energy, "counter", lambda device: energy.Counter("RAPL", lambda: next(joules)))
    monkeypatch.setattr(measure, "_SECONDS", 0.0)

    def joule(side, counter):  # one period a side
        before = counter.read()
        side.examples = 0
        side()
        return (counter.read() - before) / side.examples

    monkeypatch.setattr(measure, "_joules", joule)
    found = measured("erm")[0]["energy"]
    assert found == {"ratio": 1.5, "plain_joules": 4 / 8, "method_joules": 6 / 8, "source": "RAPL"}


def test_a_phase_is_measured_as_it_is(project):
    found, _ = measured("last_layer", start="out/model-erm")
    assert (
        found["note"]
        == "the second phase alone, from the model of erm; both sides train the last layer of a frozen encoder"
    )
    side = measure.Side(bench("last_layer", start=Path("out/model-erm")), "plain")
    before = {key: value.clone() for key, value in side.model.state_dict().items()}
    side()
    moved = {key for key, value in side.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", ["dotprod", "last_layer", "erm"])
def test_a_run_is_timed_beside_plain_training_of_single_batches(project, method, monkeypatch):
    """As many examples in steps of one batch, all weights, whatever the method's step and trained part are."""
    from gradworks.cost import pairs

    one, compared = bench(method, start=Path("out/model-erm" if method == "last_layer" else START)), []

    class Done:
        repeat = pairs.Ratio(1.25, 1.2, 1.3, 9)

    monkeypatch.setattr(pairs, "compare", lambda *sides: compared.append(sides) or Done)
    settings, ours = measure.Measure(pairs=[9, 9]), measure.Side(one, "method")
    found = measure._run(one, ours, settings)
    if method == "erm":  # the plain side is that already
        assert found is None and not compared
        return
    single, theirs, device, *limits = compared[0]
    assert found == Done.repeat and theirs is ours
    assert (device, limits) == ("cpu", [settings.seconds, (9, 9), settings.half_width])
    before = [p.detach().clone() for p in single.model.parameters()]
    single.examples = ours.examples = single._steps = 0
    single()
    ours()
    assert single.examples == ours.examples == 8 * one.period * one.consumed
    assert single._steps == one.period * one.consumed
    assert all(not torch.equal(a, b) for a, b in zip(single.model.parameters(), before, strict=True))


@pytest.mark.parametrize("micro", [None, 3])
def test_both_sides_do_the_same_steps(project, micro):
    """The plain side is `erm` of as many batches: without dropout both models end alike."""

    def change(values):
        values["pretrain"]["gru"]["dropout"] = 0.0
        values["train"] |= {"micro_batch": micro, "clip": 0.01}
        values["methods"]["erm"] = {"update": {"erm": {"batches": 3}}}

    one = bench("erm", changed(change))
    sides = [measure.Side(one, name) for name in ("plain", "method")]
    start = [p.detach().clone() for p in sides[0].model.parameters()]
    for side in sides:
        side.model.eval()
        for _ in range(4):
            side()
        assert side.examples == 4 * 3 * 8
    for a, b, old in zip(sides[0].model.parameters(), sides[1].model.parameters(), start, strict=True):
        assert (a - b).abs().max() < 1e-5
        assert (a - old).abs().max() > 1e-4


def test_a_period_is_all_that_repeats(project):
    assert bench("seldom").period == 5
    point = {"weighting": {"reweight": {"every": 4}}, "update": {"dotprod": {"weight": 0.1, "every": 6}}}
    one = bench("both", changed(lambda values: values["methods"].update(both=point)))
    assert (one.period, one.consumed) == (12, 2)
    point = {"weighting": {"reweight": {"every": 2, "clean_every": 4}}}
    assert bench("kept", changed(lambda values: values["methods"].update(kept=point))).period == 8


def test_what_cannot_be_counted_has_no_ratio(project):
    found, _ = measured("forward")
    assert found["operations"]["ratio"] is None
    assert found["operations"]["not_counted"] == ["forward-mode derivatives"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "OOM"),
        (ValueError("smart: the task offers no embed"), "not run"),
    ],
)
def test_a_method_that_fails_says_why(project, monkeypatch, error, state):
    from gradworks.methods import Method

    def backward(*_, **__):
        raise error

    monkeypatch.setattr(Method, "backward", backward)
    found, schedule = measured("dotprod")
    assert found["state"] == state
    assert found["reason"].endswith(str(error))
    assert {"hardware", "method", "encoder"} <= set(found) and "time" not in found
    assert schedule == {"ratio": None}
    longer("not measured")
    status = artifacts.read_json(Path("not measured/status.json"))
    said = "the time of dotprod, which it would take, was not measured"
    assert (status["state"], status["reason"], status["steps"]) == ("not run", said, 0)


def test_a_phase_without_a_model_to_start_from_is_not_measured(project):
    with artifacts.atomic_folder(Path("empty")) as folder:
        artifacts.write_manifest(folder, "train", {})
    found, _ = measured("last_layer", start="empty")
    assert (found["state"], found["reason"]) == ("not run", "erm, which it starts from, ended without a model")


def longer(out):
    run("train", "--method", "long", "--seed", 0, "--data", DATA, "--start", START, "--out", out, "--model", f"{out}-m",
        "--schedule", "runs/schedule/gru/dotprod.json")  # fmt: skip


def test_a_run_for_as_long_has_so_many_times_the_steps(project):
    artifacts.write_json(Path("runs/schedule/gru/dotprod.json"), {"ratio": 1.5})
    longer("longer")
    assert artifacts.read_json(Path("longer/status.json"))["steps"] == 90
    assert artifacts.check(Path("longer"))["parameters"]["longer"] == 1.5


def test_training_is_the_same_to_the_bit_whether_it_was_measured_or_not(project):
    def digests():
        run("train", "--method", "dotprod", "--seed", 0, "--data", DATA, "--start", START, "--out", "twice",
            "--model", "twice-m")  # fmt: skip
        return artifacts.check(Path("twice"))["files"], artifacts.check(Path("twice-m"))["files"]

    before = digests()
    measured("dotprod")
    assert digests() == before


def test_other_hardware_stops_it(project):
    file = Path("hardware.yaml")
    file.write_text(file.read_text().replace(hardware.processor(), "Another processor"))
    Path("costs/gru/erm.json").unlink(missing_ok=True)
    try:
        with pytest.raises(InputError, match=r"hardware\.yaml: processor: 'Another processor'"):
            measured("erm")
    finally:
        hardware.write(Path("params.yaml"))
    assert not Path("costs/gru/erm.json").exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"pairs": [40]}, "measure.pairs: found"),
        ({"half_width": 0.0}, "measure.half_width: found"),
        ({"pair": 1}, "measure.pair: unknown key"),
        ({"pairs": [6, 9]}, "measure.pairs: found"),
    ],
)
def test_what_is_wrong_is_said(project, section, said):
    with pytest.raises(InputError) as error:
        measured("erm", changed(lambda values: values.update(measure=section)))
    assert said in str(error.value)
