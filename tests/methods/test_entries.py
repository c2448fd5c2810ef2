"""Entries by file name; what is unknown or impossible is refused with the names that would do."""

import pytest

from gradworks.methods import Method
from gradworks.methods._shared import entries
from gradworks.methods.objectives.smart import Smart
from gradworks.methods.updates.erm import Erm
from tests.methods.toys import TASKS, Kind

OBJECTIVES = "label_smoothing, r3f, rdrop, smart, supervised"
WEIGHTINGS = "class_ratio, hard_mining, random, reweight, uniform"
UPDATES = "asam, cagrad, dotprod, erm, famo, fomaml, grad_norm_penalty, joint, maml, pcgrad, reptile, sam, uncertainty"
UPDATES += ", upgrad"


def test_names_are_the_files():
    assert ", ".join(entries.names("objective")) == OBJECTIVES
    assert ", ".join(entries.names("weighting")) == WEIGHTINGS
    assert ", ".join(entries.names("update")) == UPDATES


def test_every_entry_exports_one_class_that_its_options_make():
    for slot in ("objective", "weighting", "update"):
        for name in entries.names(slot):
            entry = entries.load(slot, name)
            assert type(entry) is entries.entry_class(slot, name)
            assert type(entry).__module__.endswith(f".{slot}s.{name}")
            assert type(entry).__doc__


def test_name_options_and_objects():
    assert entries.load("update", {"erm": {"batches": 3}}).needs.batches == 3
    assert entries.load("update", {"erm": None}).needs.batches == 1
    own = Erm(2)
    assert entries.load("update", own) is own


@pytest.mark.parametrize(
    ("slot", "chosen", "words"),
    [
        (
            "update",
            "ermm",
            f"update: found 'ermm', expected one of {UPDATES}",
        ),
        (
            "weighting",
            "_shared",
            f"weighting: found '_shared', expected one of {WEIGHTINGS}",
        ),
        ("update", {"erm": {"batch": 2}}, "update erm: unknown option 'batch', expected one of batches"),
        ("weighting", {"uniform": {"x": 2}}, "weighting uniform: unknown option 'x', expected none"),
        ("update", {"erm": {"batches": 0}}, "update erm: batches: found 0, expected a whole number of at least 1"),
        ("update", {"erm": {"batches": True}}, "update erm: batches: found True"),
        ("update", {"erm": {"batches": "2"}}, "update erm: batches: found '2'"),
        ("update", {"erm": 2}, "update erm: found 2, expected options by name"),
        ("update", {"erm": {}, "dotprod": {}}, "update: found 2 entries, expected one"),
        ("update", 3, "update: found 3, expected a name"),
        ("update", Erm, "expected a name"),
        ("update", {"dotprod": {"form": "centre"}}, "form: found 'centre', expected one of null, central, one_sided"),
        ("update", {"dotprod": {"alpha": -1}}, "alpha: found -1, expected a number greater than 0"),
        ("update", {"dotprod": {"weight": "0.1"}}, "weight: found '0.1', expected a number"),
        ("update", {"dotprod": {"weight": float("nan")}}, "weight: found nan, expected a number"),
        ("update", {"dotprod": {"every": 0}}, "every: found 0"),
        (
            "weighting",
            {"reweight": {"backend": "magic"}},
            "backend: found 'magic', expected one of auto, ghost",
        ),
        ("objective", "_shared", f"objective: found '_shared', expected one of {OBJECTIVES}"),
        ("objective", {"rdrop": {"alpha": -1}}, "objective rdrop: alpha: found -1, expected a number of at least 0"),
        ("objective", {"r3f": {"distribution": "cauchy"}}, "found 'cauchy', expected one of uniform, normal"),
        ("objective", {"label_smoothing": {"share": 1}}, "share: found 1, expected a number of at least 0 and less"),
        ("objective", {"smart": {"momentum": 1}}, "momentum: found 1, expected a number of at least 0 and less than 1"),
        ("weighting", {"class_ratio": {"counts": [3, 0]}}, "counts: found 0, expected a number greater than 0"),
        ("weighting", {"hard_mining": {"keep": 2}}, "keep: found 2, expected a share of at most 1"),
        ("update", {"sam": {"rho": -1}}, "update sam: rho: found -1, expected a number of at least 0"),
        ("update", {"asam": {"rho": -1}}, "update asam: rho: found -1, expected a number of at least 0"),
        ("update", {"reptile": {"inner_lr": -1}}, "inner_lr: found -1, expected a number of at least 0"),
        ("update", {"fomaml": {"tasks": "each"}}, "tasks: found 'each', expected one of any, same, different"),
        ("update", {"maml": {"inner_optimizer": "adam"}}, "inner_optimizer: found 'adam', expected one of sgd"),
        ("update", {"grad_norm_penalty": {"form": "fd"}}, "form: found 'fd', expected one of central, one_sided"),
        ("weighting", {"reweight": {"tau": 0}}, "tau: found 0, expected a number greater than 0"),
    ],
)
def test_refusals(slot, chosen, words):
    with pytest.raises(ValueError) as caught:
        Method(**{slot: chosen}, tasks=TASKS)
    assert str(caught.value).startswith(slot)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_task_that_lacks_what_an_entry_needs_is_refused_before_training():
    class Bare:
        outputs, loss = Kind.outputs, Kind.loss

    class Half(Bare):
        embed = Kind.embed

    with pytest.raises(ValueError, match=r"objective smart: needs embed\(...\) of a task, and task 'x' does not"):
        Method(Smart(), tasks={"x": Bare()})
    with pytest.raises(ValueError, match=r"needs divergence\(...\) of a task, and Half does not"):
        Method(Smart(), task=Half())
    with pytest.raises(ValueError, match=r"needs embed"):
        Method(Smart(), outputs=lambda m, b: m(b), loss=lambda o, b: o)
