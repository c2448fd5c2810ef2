"""The cost table: every entry has a row, floors as closed forms, one row on a small model from start to file."""

from __future__ import annotations

import argparse
import dataclasses
import json

import pytest

from benchmarks import counts, memory, methods, models, peers, plain
from benchmarks.profile import profile
from benchmarks.rows import ROWS, Work
from gradworks.cost import pairs
from gradworks.methods._shared.entries import names
from gradworks.methods._shared.passes import MicroBatch

SMALL = models.MODELS["bow"].small


@pytest.fixture
def small(monkeypatch):
    """All models small, and texts of eight tokens."""
    for name, sizes in models.MODELS.items():
        monkeypatch.setitem(models.MODELS, name, sizes.small)


def row(method, backend):
    return next(r for r in ROWS if (r.method, r.backend) == (method, backend))


def test_every_entry_of_every_slot_has_a_row():
    """A new file in a slot is a new line here; `supervised`, `uniform` are in every other row."""
    there = {("objective", "supervised"), ("weighting", "uniform")}
    for one in ROWS:
        for slot, entry in one.slots.items():
            there.add((slot, entry if isinstance(entry, str) else next(iter(entry))))
    missing = [f"{slot} {name}" for slot in ("objective", "weighting", "update") for name in names(slot)
               if (slot, name) not in there]  # fmt: skip
    assert not missing, f"no row in benchmarks/rows.py: {', '.join(missing)}"


def test_rows_have_names_of_their_own():
    assert len({(r.method, r.backend) for r in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("method", "backend", "fraction", "passes"),
    [
        ("erm", "Method", None, 1),
        ("reweight", "ghost", 0.25, 4.75 / 3),  # (4 + 3r) / 3
        ("reweight", "ghost", 1.0, 7 / 3),
        ("reweight", "logit_fd", 0.25, 4.75 / 3),
        ("reweight", "jvp", 0.25, 6.75 / 3),  # (6 + 3r) / 3
        ("reweight", "per_example", 0.25, 23.75 / 3),  # (3 + 3r + 2n) / 3 with n = 10
        ("reweight, every: 5", "ghost", 0.25, 1.0 + (1 / 3 + 0.25) / 5),
        ("smart-paper", "", None, 3),
        ("reweight", "higher", 0.25, 8.75 / 3),  # (8 + 3r) / 3
        ("dotprod", "central", None, 1.5),
        ("dotprod, every: 5", "central", None, 1.1),  # 1 + 0.5 / 5
        ("reptile", "", None, 1),
        ("smart", "vjp", None, 8 / 3),
        ("smart", "noise", None, 3),
    ],
)
def test_floors(method, backend, fraction, passes):
    assert row(method, backend).floor.at(fraction, 10).passes == pytest.approx(passes, rel=1e-12)


def test_the_clean_batch_costs_plain_passes():
    assert Work(1, 1, 1, 1, clean=1).at(0.5) == Work(1.5, 1.5, 1.5, 1)


@pytest.mark.parametrize(
    ("method", "backend", "fraction"),
    [("erm", "Method", None), ("reweight", "logit_fd", 0.25), ("dotprod", "central", None)],
)
@pytest.mark.parametrize("model", ["bert-2x128", "gru", "bow"])
def test_counted_passes_are_the_floor(small, method, backend, fraction, model):
    one = row(method, backend)
    found = counts.counts(plain.Case(one, model, fraction))
    floor = one.floor.at(fraction, 32)
    assert counts.agrees(found, floor) is True
    # of a small model most operations are matrix products too, so both counts agree
    assert found["operations"] == pytest.approx(floor.passes, rel=0.02)


def test_a_pass_too_many_is_seen(small):
    case = plain.Case(row("reweight", "logit_fd"), "bow", 0.25)
    found = counts.counts(case)
    assert counts.agrees(found, Work(1, 1, 1, 1, clean=1).at(0.25)) is False  # one forward pass more than that
    assert counts.agrees(found | {"passes": None}, Work(1, 1, 1)) is None


def test_both_sides_start_alike_and_plain_training_is_erm(small):
    """One step of each side leaves the same parameters, dropout off."""
    case = plain.Case(row("erm", "Method, 2 batches"), "bow", None)
    data = plain.Data(case, SMALL, 2)
    sides = [plain.side(case, name, SMALL)[0] for name in ("plain", "method")]
    before = [p.detach().clone() for p in sides[0].model.parameters()]
    for one in sides:
        one.model.eval()
        one.step(*data(0))
    for a, b, old in zip(sides[0].model.parameters(), sides[1].model.parameters(), before, strict=True):
        assert (a - b).abs().max() < 1e-6
        assert (a - old).abs().max() > 1e-5


@pytest.mark.slow("memory of processes")
def test_memory_of_a_fresh_process():
    """A plain side holds parameters, gradients and two moments: four times the parameters, and little more."""
    case = plain.Case(row("erm", "Method"), "bow", None)
    parameters = sum(p.nbytes for p in models.MODELS["bow"].build().parameters())
    assert 3.9 < memory.peak(case, "plain") / parameters < 6


def test_what_a_child_says_is_raised():
    case = plain.Case(dataclasses.replace(ROWS[0], slots={"update": "none_such"}), "bow", None)
    with pytest.raises(RuntimeError, match="none_such"):
        memory.peak(case, "method")


def arguments(**given):
    made = {"models": ["bow"], "rows": None, "device": "cpu", "precision": "float32", "quick": False}
    return argparse.Namespace(**(made | given))


def test_cases_by_word_and_model():
    found = methods.cases(arguments(rows=["logit_fd"], models=["bow", "gru"]))
    assert [(c.model, c.fraction) for c in found] == [("bow", 0.25), ("bow", 1.0), ("gru", 0.25), ("gru", 1.0)]
    assert all(c.row.backend == "logit_fd" for c in found)


def test_models_with_kinks_have_the_rows_that_are_judged_there():
    assert {c.row.method for c in methods.cases(arguments(models=["bow-relu"]))} == {"dotprod"}


def test_bert_base_has_every_row():
    found = {(c.row.method, c.row.backend) for c in methods.cases(arguments(models=["bert-base"]))}
    assert found == {(r.method, r.backend) for r in ROWS}


def test_a_row_from_start_to_file(small, monkeypatch, tmp_path):
    monkeypatch.setattr(methods, "compare", lambda *args: pairs.compare(*args[:4], rounds=(2, 2)))
    monkeypatch.setattr(methods, "peak", lambda case, name: {"plain": 100, "method": 110}[name])
    wanted = methods.cases(arguments(rows=["logit_fd"]))[:1]
    methods.run(wanted, tmp_path, True, False)
    (found,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert (found["method"], found["backend"], found["model"]) == ("reweight", "logit_fd", "bow")
    assert found["n"] == 2 and found["time_ratio"] > 0 and found["low"] is None
    assert found["memory_ratio"] == 1.1 and found["at_floor"] is True
    assert found["passes"] == pytest.approx(found["floor"])
    assert found["error"] < 1e-2 and found["sign_agreement"] > 0.9
    assert {"hardware", "target", "clean_fraction"} <= set(found)
    assert "reweight, logit_fd" in (tmp_path / "RESULTS.md").read_text()
    assert (tmp_path / "results.svg").read_text().startswith("<?xml")

    # a second run with --only-missing measures nothing, and what is there stays
    monkeypatch.setattr(methods, "measure", lambda *_: pytest.fail("measured again"))
    assert methods.run(wanted, tmp_path, True, True) == [found]


def test_what_cannot_be_measured_says_why(small, monkeypatch, tmp_path, capsys):
    cases = [
        plain.Case(dataclasses.replace(row("sam", ""), slots={"update": "none_such"}), "bow", None),
        plain.Case(dataclasses.replace(row("reweight", "higher"), peer="Absent"), "bow", 0.25),
    ]

    class Absent(peers.Peer):
        @classmethod
        def check(cls):
            peers._import("no_such_package")

    monkeypatch.setattr(peers, "Absent", Absent, raising=False)
    found = methods.run(cases, tmp_path, True, False)
    notes = [r["note"] for r in found]
    assert any("none_such" in note for note in notes)
    assert "no_such_package is not installed: pip install 'gradworks[benchmarks]'" in notes
    assert capsys.readouterr().out.count("not measured") == 2
    assert "## Not measured" in (tmp_path / "RESULTS.md").read_text()


def test_targets_by_model_and_clean_batch():
    def of(method, backend, model, fraction=None):
        return row(method, backend).targets.of(model, fraction)

    ghost = [of("reweight", "ghost", model, 0.25)["time"] for model in ("bert-2x128", "bert-4x256", "gru", "bow")]
    assert ghost == [1.70, 1.85, 1.6, None]
    assert of("reweight", "ghost", "gru", 1.0) == {"time": None, "memory": None, "error": 1e-6, "sign": None}
    assert [of("smart", "noise", model)["time"] for model in ("gru", "bow")] == [3.5, 3.1]
    assert [of("dotprod", "central", model)["error"] for model in ("bow", "bow-relu")] == [1e-4, 1e-2]
    assert not any(of("sam", "", "bow").values())


def test_a_profile_has_the_parts_of_a_step_and_leaves_no_trace(small):
    own = {name: getattr(MicroBatch, name) for name in ("outputs", "moved", "loss", "backward")}
    found = profile(plain.Case(row("dotprod", "central"), "gru", None))
    assert own == {name: getattr(MicroBatch, name) for name in own}
    assert found["plain"]["other"] == 0 and all(value > 0 for value in found["method"].values())
    assert 0.5 < sum(found["plain"].values()) < 1.5  # medians of parts over the median of the whole
