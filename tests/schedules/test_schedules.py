"""Schedules: one file each, pure, as many tasks as the update takes, what it needs kept or refused before training."""

import collections
import hashlib
import itertools
import math
from pathlib import Path

import pytest

from gradworks import schedules
from gradworks.base.errors import InputError
from gradworks.spec import Needs

SIZES = {"nli": 5, "mood": 2, "near": 3}
EVERY = [
    Needs(k, tasks, groups)
    for k in (1, 2, 3, 5, "one_per_task") for tasks in ("any", "same", "different") for groups in (1, 2)
]  # fmt: skip


OPTIONS = {"temperature": {"temperature": 3.0}, "annealed": {"epochs": 3}}  # of those that are not at their defaults


def chosen(name):
    return {name: OPTIONS[name]} if name in OPTIONS else name


def refused(name, needs, tasks):
    try:
        schedules.check(chosen(name), needs, list(tasks))
    except InputError:
        return True
    return False


def uniform(*key):
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def single(sizes, needs, seed, steps):
    (name,) = sizes
    while True:
        yield name


def round_robin(sizes, needs, seed, steps):
    """Counted by a wheel that turns at every batch or, where a group is of one task, at every group."""
    wheel = itertools.cycle(sizes)
    k = len(sizes) if needs.batches == "one_per_task" else needs.batches
    while True:
        if needs.tasks == "same":
            yield from [next(wheel)] * k
        else:
            yield next(wheel)


def proportional(sizes, needs, seed, steps):
    """A pack of cards, one for each batch of an epoch, sorted by a number on each; races for different tasks."""
    k = len(sizes) if needs.batches == "one_per_task" else needs.batches
    if needs.tasks == "different" or needs.batches == "one_per_task":
        for number in itertools.count():
            race = [(-math.log(1 - uniform(seed, "group", number, n)) / s, n) for n, s in sizes.items()]
            yield from [n for _, n in sorted(race)][:k]
    for epoch in itertools.count():
        pack = [(uniform(seed, "epoch", epoch, n, i), n) for n, s in sizes.items() for i in range(s)]
        for _, name in sorted(pack):
            yield from [name] * (k if needs.tasks == "same" else 1)


def races(sizes, needs, seed, weight):
    """The first of a race between the tasks, or its first k; `weight(size, batch)` are the runners' rates."""
    k = len(sizes) if needs.batches == "one_per_task" else needs.batches
    different = needs.tasks == "different" or needs.batches == "one_per_task"
    for number in itertools.count():
        batch = number * k if different or needs.tasks == "same" else number
        race = sorted(
            (-math.log(1 - uniform(seed, "group", number, n)) / weight(s, batch), n) for n, s in sizes.items()
        )
        yield from [n for _, n in race[: k if different else 1]] * (k if needs.tasks == "same" and not different else 1)


def temperature(sizes, needs, seed, steps):
    return races(sizes, needs, seed, lambda size, batch: size ** (1 / 3))


def annealed(sizes, needs, seed, steps):
    """Exponents 1, 0.6 and 0.2 in the three epochs of 10 batches, the last from then on."""
    return races(sizes, needs, seed, lambda size, batch: size ** (1.0, 0.6, 0.2)[min(batch // 10, 2)])


ORACLES = {
    "single": single, "round_robin": round_robin, "proportional": proportional, "temperature": temperature,
    "annealed": annealed,
}  # fmt: skip
# The first batches one by one, seed 1: whoever changes these changes every run that uses them.
PINS = {
    ("single", "any"): "nli nli nli nli nli nli nli nli nli nli nli nli",
    ("single", "same"): "nli nli nli nli nli nli nli nli nli nli nli nli",
    ("round_robin", "any"): "nli mood near nli mood near nli mood near nli mood near",
    ("round_robin", "same"): "nli nli mood mood near near nli nli mood mood near near",
    ("round_robin", "different"): "nli mood near nli mood near nli mood near nli mood near",
    ("proportional", "any"): "nli mood near nli near near mood nli nli nli mood nli",
    ("proportional", "same"): "nli nli mood mood near near nli nli near near near near",
    ("proportional", "different"): "mood nli near mood near mood mood nli nli mood near nli",
    ("temperature", "any"): "mood near mood mood nli near nli near near near mood mood",
    ("temperature", "same"): "mood mood near near mood mood mood mood nli nli near near",
    ("temperature", "different"): "mood near near mood mood near mood nli nli mood near nli",
    ("annealed", "any"): "mood near near mood nli near nli near near near mood mood",
    ("annealed", "same"): "mood mood near near near near mood mood nli nli near near",
    ("annealed", "different"): "mood nli near mood near mood mood nli nli mood near nli",
}  # fmt: skip


def test_every_schedule_of_the_folder_has_its_oracle_and_its_pins():
    there = {p.stem for p in Path(schedules.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(schedules.names()) == there
    for name in there:
        assert name in ORACLES, f"gradworks/schedules/{name}.py: give it an oracle in ORACLES of {Path(__file__).name}"
        pinned = {tasks for schedule, tasks in PINS if schedule == name}
        needed = {n.tasks for n in EVERY if n.batches == 2 and not refused(name, n, sizes_of(name))}
        assert pinned == needed, f"gradworks/schedules/{name}.py: PINS of {Path(__file__).name} lack its first batches"
        assert callable(getattr(schedules.load(name), "tasks", None)), (
            f"{name}: expected tasks(step, needs, sizes, seed)"
        )


def sizes_of(name):
    return {"nli": 5} if name == "single" else SIZES


@pytest.mark.parametrize(("name", "tasks"), PINS)
def test_the_first_batches_are_pinned(name, tasks):
    made = [schedules.draw(chosen(name), step, Needs(2, tasks), sizes_of(name), 1) for step in range(6)]
    assert " ".join(itertools.chain(*made)) == PINS[name, tasks]


@pytest.mark.parametrize("needs", EVERY, ids=lambda n: f"{n.batches}-{n.tasks}-{n.groups}")
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_a_run_is_the_oracles_and_every_step_of_it_a_pure_function(name, needs):
    sizes, seed = sizes_of(name), 7
    k = len(sizes) if needs.batches == "one_per_task" else needs.batches
    if refused(name, needs, sizes):
        return
    source = ORACLES[name](sizes, needs, seed, 40)
    expected = [list(itertools.islice(source, k * needs.groups)) for _ in range(40)]
    for step in (*range(40), 17, 3, 39, 0):  # in no order
        given = dict(sizes)
        assert schedules.draw(chosen(name), step, needs, given, seed) == expected[step]
        assert given == sizes


@pytest.mark.parametrize("needs", EVERY, ids=lambda n: f"{n.batches}-{n.tasks}-{n.groups}")
@pytest.mark.parametrize("name", sorted(ORACLES.keys() - {"single"}))
def test_what_an_update_needs_is_kept_or_refused(name, needs):
    k = 3 if needs.batches == "one_per_task" else needs.batches
    impossible = (needs.tasks == "different" and k > 3) or (needs.tasks == "same" and needs.batches == "one_per_task")
    assert refused(name, needs, SIZES) == impossible
    if impossible:
        return
    for step in range(30):
        made = schedules.draw(chosen(name), step, needs, SIZES, 0)
        assert len(made) == k * needs.groups
        for group in (made[i : i + k] for i in range(0, len(made), k)):
            if needs.tasks == "same":
                assert len(set(group)) == 1
            if needs.tasks == "different" or needs.batches == "one_per_task":
                assert len(set(group)) == k


@pytest.mark.parametrize(("tasks", "k"), [("any", 1), ("any", 4), ("same", 4)])
def test_an_epoch_of_proportional_holds_every_batch_of_every_part_once(tasks, k):
    drawn = [schedules.draw("proportional", step, Needs(k, tasks), SIZES, 3) for step in range(10 * 12)]
    units = [group[0] for group in drawn] if tasks == "same" else list(itertools.chain(*drawn))
    for start in range(0, len(units), 10):
        assert collections.Counter(units[start : start + 10]) == SIZES
    assert len({tuple(units[start : start + 10]) for start in range(0, len(units), 10)}) > 6  # epochs differ


def test_different_tasks_in_proportion_as_far_as_that_can_be():
    """The chance of each ordered pair is that of drawing without replacement."""
    total, n = sum(SIZES.values()), 6000
    drawn = collections.Counter(
        tuple(schedules.draw("proportional", step, Needs(2, "different"), SIZES, 0)) for step in range(n)
    )
    for a, b in itertools.permutations(SIZES, 2):
        chance = SIZES[a] / total * SIZES[b] / (total - SIZES[a])
        assert drawn[a, b] / n == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / n))


def test_proportional_depends_on_seed_and_names_not_on_the_order_of_the_parts():
    turned = dict(reversed(SIZES.items()))
    for needs in (Needs(2), Needs(2, "same"), Needs(2, "different"), Needs("one_per_task")):
        runs = [[schedules.draw("proportional", s, needs, sizes, seed) for s in range(20)]
                for sizes, seed in ((SIZES, 0), (turned, 0), (SIZES, 1))]  # fmt: skip
        assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("name", "needs", "tasks", "words"),
    [
        ("single", Needs(1), ["a", "b"], "found single: 2 tasks\nexpected one, or another schedule"),
        ("single", Needs(2, "different"), ["a"], "2 batches of different tasks, and there are 1: a"),
        ("round_robin", Needs(3, "different"), ["a", "b"], "3 batches of different tasks, and there are 2: a, b"),
        ("proportional", Needs("one_per_task", "same"), ["a", "b"], "one batch of each task and all of the same task"),
        ("round_robbin", Needs(1), ["a"], "did you mean round_robin"),
        ({"round_robin": {"speed": 2}}, Needs(1), ["a"], "round_robin: found {'speed': 2}\nexpected no options"),
        ({"temperature": {"temperature": 0.5}}, Needs(1), ["a"], "temperature.temperature: found 0.5"),
        ({"temperature": {"degrees": 2}}, Needs(1), ["a"], "temperature.degrees: unknown key"),
        ("annealed", Needs(1), ["a"], "annealed.epochs: missing"),
        ({"single": {}, "annealed": {}}, Needs(1), ["a"], "found 2 schedules\nexpected one"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(name, needs, tasks, words):
    with pytest.raises(InputError, match=r"^params\.yaml: mixtures\.both\.schedule[.:]") as error:
        schedules.check(name, needs, tasks, "params.yaml: mixtures.both.schedule")
    assert words in str(error.value) and len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("needs", "made"),
    [
        (Needs(2), ["a"]), (Needs(1), ["c"]), (Needs(2, "same"), ["a", "b"]), (Needs(2, "different"), ["a", "a"]),
        (Needs("one_per_task"), ["a", "a"]), (Needs(2, "same", 2), ["a", "a", "b", "a"]),
    ],
)  # fmt: skip
def test_a_schedule_that_breaks_its_promise_is_stopped(monkeypatch, needs, made):
    monkeypatch.setattr(schedules.load("round_robin"), "tasks", lambda *_: made)
    with pytest.raises(ValueError, match=r"^schedule round_robin, step 4: found"):
        schedules.draw("round_robin", 4, needs, {"a": 1, "b": 1}, 0)


@pytest.mark.parametrize(("temperature", "shares"), [(1, (0.5, 0.2, 0.3)), (1e9, (1 / 3, 1 / 3, 1 / 3))])
def test_temperature_is_between_proportional_and_even(temperature, shares):
    given, n = {"temperature": {"temperature": temperature}}, 6000
    drawn = collections.Counter(schedules.draw(given, step, Needs(1), SIZES, 0)[0] for step in range(n))
    for name, share in zip(SIZES, shares, strict=True):
        assert drawn[name] / n == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))


@pytest.mark.parametrize(
    ("given", "task", "batches"),
    [
        ("round_robin", None, 10), ("round_robin", "near", 9), ("proportional", "near", 10), ("single", None, 10),
        ({"temperature": {"temperature": 1}}, "mood", 10),
        ({"temperature": {"temperature": 2}}, "nli", round(5 * (5**0.5 + 2**0.5 + 3**0.5) / 5**0.5)),
    ],
)  # fmt: skip
def test_an_epoch_is_that_of_all_parts_or_of_one(given, task, batches):
    assert schedules.epoch(given, SIZES, task) == batches


def test_an_epoch_of_a_part_whose_share_changes_is_refused():
    with pytest.raises(InputError, match=r"^s: found annealed, whose shares of the tasks change, and epoch: nli\n"):
        schedules.epoch(chosen("annealed"), SIZES, "nli", "s")
