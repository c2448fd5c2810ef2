"""Mixtures: one part is the plain stream; of several each goes its own way, and goes on anywhere."""

import hashlib
import itertools

import pytest
import torch

from gradworks.base.errors import InputError
from gradworks.base.size import Budget
from gradworks.data.batching import Examples, balanced, stream
from gradworks.data.mixture import Mixture, Part
from gradworks.spec import Needs

SIZES = {"nli": 37, "mood": 12, "near": 21}


def collate(some):
    return {"ids": torch.tensor([one["ids"][0] for one in some])}


def examples(task, n, values=False, name=""):
    encodings = [{"ids": [i] * ((7 * i) % 9 + 1)} for i in range(n)]
    labels = torch.arange(n) / 10 if values else torch.arange(n) % 3
    ids, strata = [f"{name}{i}" for i in range(n)], None if values else labels
    return Examples(task, ids, encodings, labels, collate, strata=strata)


def part(task, n, clean=9):
    values = task == "near"
    return Part(*(examples(task, size, values, f"{split}-") for split, size in (("t", n), ("s", 5), ("c", clean))))


def mixture(tasks, schedule="round_robin"):
    return Mixture({task: part(task, SIZES[task]) for task in tasks}, schedule)


def run(mixed, needs, steps, clean=4, seed=3, state=None, first=0):
    draws = mixed.draws(needs, 4, clean, seed)
    if state:
        draws.load_state_dict(state)
    return [draws.step(number) for number in range(first, steps)], draws


def written(batch):
    return batch.task, batch.ids, {k: v.tolist() for k, v in batch.inputs.items()}, batch.labels.tolist()


def flat(steps):
    return [[written(b) for b in batches] + [written(b) for b in clean] for batches, clean in steps]


@pytest.mark.parametrize("needs", [Needs(1), Needs(2), Needs(3, "same"), Needs(2, "any", 2), Needs("one_per_task")])
@pytest.mark.parametrize("schedule", ["single", "round_robin", "proportional"])
def test_one_part_is_the_plain_stream(schedule, needs):
    mixed = mixture(["nli"], schedule)
    steps, _ = run(mixed, needs, 25)
    count = (1 if needs.batches == "one_per_task" else needs.batches) * needs.groups
    assert all(len(batches) == len(clean) == count for batches, clean in steps)
    plain = stream(mixed.parts["nli"].train, 4, 3)
    clean = balanced(mixed.parts["nli"].clean, 4, 3 + 1_000_003)
    for batches, beside in steps:
        for b, c in zip(batches, beside, strict=True):
            assert written(b) == written(next(plain)) and written(c) == written(next(clean))


@pytest.mark.parametrize("needs", [Needs(1), Needs(2), Needs(2, "same"), Needs(2, "different"), Needs("one_per_task")])
@pytest.mark.parametrize("schedule", ["round_robin", "proportional"])
def test_each_part_is_read_in_an_order_of_its_own(schedule, needs):
    steps, draws = run(mixture(SIZES, schedule), needs, 40)
    for task, n in SIZES.items():
        digest = hashlib.blake2b(repr((3, "part", task)).encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "big") >> 1
        mine = part(task, n)
        plain, clean = stream(mine.train, 4, seed), balanced(mine.clean, 4, seed + 1_000_003)
        pairs = [pair for step in steps for pair in zip(*step, strict=True) if pair[0].task == task]
        assert len(pairs) == draws.read[task] > 0
        for b, c in pairs:
            assert written(b) == written(next(plain)) and written(c) == written(next(clean))


def test_neither_the_other_parts_nor_their_order_matter_to_a_part():
    def of(tasks, task):
        return [written(b) for batches, _ in run(mixture(tasks), Needs(2), 30)[0] for b in batches if b.task == task]

    a, b, c = (of(tasks, "mood") for tasks in (["nli", "mood"], ["mood", "near", "nli"], ["near", "mood"]))
    shortest = min(map(len, (a, b, c)))
    assert shortest > 15 and a[:shortest] == b[:shortest] == c[:shortest]


def test_parts_that_share_their_rows_are_not_read_in_step():
    rows = {task: Part(examples(task, 37), examples(task, 5)) for task in ("whole", "slice")}
    steps, _ = run(Mixture(rows, "round_robin"), Needs(2), 9, None)
    assert not any(a.ids == b.ids for (a, b), _ in steps)


@pytest.mark.parametrize("clean", [None, 4])
@pytest.mark.parametrize("needs", [Needs(1), Needs(2, "different"), Needs(2, "same")])
@pytest.mark.parametrize("schedule", ["round_robin", "proportional", "temperature", {"annealed": {"epochs": 2}}])
@pytest.mark.parametrize("stop", [1, 13, 29])
def test_it_goes_on_anywhere_as_if_it_had_been_read(schedule, needs, stop, clean):
    whole, after = run(mixture(SIZES, schedule), needs, 40, clean)
    state = run(mixture(SIZES, schedule), needs, stop, clean)[1].state_dict()
    rest, again = run(mixture(SIZES, schedule), needs, 40, clean, state=state, first=stop)
    assert flat(rest) == flat(whole[stop:])
    assert again.state_dict() == after.state_dict()
    assert sum(again.read.values()) == sum(len(batches) for batches, _ in whole)


@pytest.mark.parametrize("stop", [1, 2, 7])
def test_clean_batches_are_drawn_where_they_are_asked_for_and_one_after_the_other(stop):
    """One batch of each step has one, of the tasks in turn; none of step 3 has."""

    asked = [[number != 3 and place == number % 2 for place in (0, 1)] for number in range(9)]

    def steps(draws, first, last):
        return [draws.step(number, lambda _, number=number: asked[number]) for number in range(first, last)]

    mixed, needs = mixture(["nli", "mood"]), Needs(2, "different")
    draws = mixed.draws(needs, 4, 4, 3)
    made = steps(draws, 0, 9)
    assert [[b is not None for b in clean] for _, clean in made] == asked
    every, _ = run(mixed, needs, 9)
    assert [[written(b) for b in batches] for batches, _ in made] == [[written(b) for b in one] for one, _ in every]
    for task in ("nli", "mood"):
        some = [b for _, clean in made for b in clean if b is not None and b.task == task]
        each = [b for _, clean in every for b in clean if b.task == task]
        assert some and list(map(written, some)) == list(map(written, each[: len(some)]))
    assert sum(draws.read_clean.values()) == 8 and sum(draws.read.values()) == 18
    half, again = mixed.draws(needs, 4, 4, 3), mixed.draws(needs, 4, 4, 3)
    steps(half, 0, stop)
    again.load_state_dict(half.state_dict())
    rest = steps(again, stop, 9)
    assert [[b and written(b) for b in clean] for _, clean in rest] == [
        [b and written(b) for b in clean] for _, clean in made[stop:]
    ]


def test_a_clean_batch_that_is_not_asked_for_is_not_put_together():
    made = []

    def counting(some):
        made.append(len(some))
        return collate(some)

    alone = part("nli", 37)
    clean = Examples("nli", alone.clean.ids, alone.clean.encodings, alone.clean.labels, counting,
                     strata=alone.clean.strata)  # fmt: skip
    draws = Mixture({"nli": Part(alone.train, alone.selection, clean)}).draws(Needs(1), 4, 4, 0)
    for number in range(8):
        draws.step(number, lambda tasks, number=number: [number % 4 == 0])
    assert made == [4, 4]


def test_an_epoch_in_proportion_reads_every_example_of_every_part_once():
    mixed = mixture(SIZES, "proportional")
    assert mixed.sizes(4) == {"nli": 10, "mood": 3, "near": 6}
    steps, _ = run(mixed, Needs(1), 19, None)
    read = [(b.task, i) for batches, clean in steps for b in batches for i in b.ids]
    assert sorted(read) == sorted((task, f"t-{i}") for task, n in SIZES.items() for i in range(n))
    assert all(clean == [] for _, clean in steps)


def test_the_window_is_that_of_every_part():
    parts = {task: part(task, 60, 60) for task in ("nli", "mood")}
    for window in (1, 3, 100):
        draws = Mixture(parts, "round_robin", window).draws(Needs(2), 4, 3, 3)
        for task, batch, beside in zip(parts, *draws.step(0), strict=True):
            seed = int.from_bytes(hashlib.blake2b(repr((3, "part", task)).encode(), digest_size=8).digest(), "big") >> 1
            assert written(batch) == written(next(stream(parts[task].train, 4, seed, window=window)))
            assert written(beside) == written(next(balanced(parts[task].clean, 3, seed + 1_000_003, window=window)))


def test_an_epoch_of_a_budget_is_as_many_batches_as_it_takes():
    mixed = mixture(SIZES, "proportional")
    sizes = mixed.sizes(Budget(tokens=24))
    draws = mixed.draws(Needs(1), Budget(tokens=24), None, 3)
    steps = [draws.step(number)[0] for number in range(sum(sizes.values()))]
    read = [(b.task, i) for (b,) in steps for i in b.ids]
    assert sorted(read) == sorted((task, f"t-{i}") for task, n in SIZES.items() for i in range(n))


def test_what_cannot_be_drawn_is_refused_before_training():
    with pytest.raises(InputError, match="3 batches of different tasks, and there are 2: nli, mood"):
        mixture(["nli", "mood"]).draws(Needs(3, "different"), 4, None, 0)
    with pytest.raises(ValueError, match="no part"):
        Mixture({})
    with pytest.raises(ValueError, match="part 'mood': found examples of task 'nli'"):
        Mixture({"mood": part("nli", 4)})
    without = Mixture({"nli": part("nli", 9), "mood": Part(examples("mood", 9), examples("mood", 2))}, "round_robin")
    assert list(itertools.chain(*without.draws(Needs(1), 4, None, 0).step(0)))
    with pytest.raises(ValueError, match="part 'mood' has no clean examples"):
        without.draws(Needs(1), 4, 4, 0)
    with pytest.raises(ValueError, match="part 'mood' has no examples to train on"):
        Mixture({"mood": part("mood", 0)}).draws(Needs(1), 4, None, 0)
    with pytest.raises(ValueError, match="state of a mixture: found parts nli; expected nli, mood"):
        mixture(["nli", "mood"]).draws(Needs(1), 4, None, 0).load_state_dict({"read": {"nli": 1}, "clean": {"nli": 0}})


def test_parts_with_batches_of_their_own_are_read_one_after_the_other():
    """64 of one, 3 of the next, 2 of the third, as minBERT's interleaved training has them; and goes on anywhere."""
    made = Mixture(
        {task: part(task, SIZES[task]) for task in SIZES}, batches={"nli": 9, "near": 2}, schedule="round_robin"
    )
    whole, _ = run(made, Needs(1), 30)
    assert [(b.task, len(b.ids)) for (b,), _ in whole[:6]] == [("nli", 9), ("mood", 4), ("near", 2)] * 2
    assert made.sizes(4) == {"nli": 5, "mood": 3, "near": 11}
    for task, batches in made.sizes(4).items():  # an epoch of each part is all of it, once
        read = [key for (b,), _ in whole if b.task == task for key in b.ids][: SIZES[task]]
        assert batches > 10 or (len(set(read)) == SIZES[task])
    state = run(made, Needs(1), 13)[1].state_dict()
    assert flat(run(made, Needs(1), 30, state=state, first=13)[0]) == flat(whole[13:])
    with pytest.raises(ValueError, match=r"^mixture: batches: found 'nil', expected one of nli"):
        Mixture({"nli": part("nli", 5)}, batches={"nil": 2})
