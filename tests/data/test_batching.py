"""Batches: every example once an epoch, an order that only the seed decides, a stream that goes on anywhere."""

import dataclasses
import itertools

import pytest
import torch

from gradworks.data.batching import WINDOW, Examples, balanced, key, order, steps_per_epoch, stream


def examples(n, collate=None):
    lengths = [(7 * i) % 40 + 1 for i in range(n)]
    encodings = [{"ids": [i] * length, "short": [0]} for i, length in enumerate(lengths)]
    pad = collate or (lambda some: {"ids": torch.tensor([one["ids"][0] for one in some])})
    ids, labels = [f"e{i}" for i in range(n)], torch.arange(n) % 3
    return Examples("nli", ids, encodings, labels, pad, torch.arange(n) % 2, strata=labels)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (8, 4), (103, 4), (103, 7), (5, 100)])
def test_an_epoch_holds_every_example_once(n, size):
    count = steps_per_epoch(n, size)
    source = stream(examples(n), size, seed=0)
    for _ in range(3):
        drawn = [next(source).ids for _ in range(count)]
        assert sorted(itertools.chain(*drawn)) == sorted(f"e{i}" for i in range(n))
        assert all(len(ids) == size for ids in drawn[:-1])


def test_a_batch_is_what_its_rows_say():
    all_ = examples(50)
    batch = all_.batch([4, 30, 2])
    assert batch.ids == ["e4", "e30", "e2"]
    assert batch.inputs["ids"].tolist() == [4, 30, 2]
    assert batch.labels.tolist() == [1, 0, 2]
    assert batch.group.tolist() == [0, 0, 0]
    assert batch.mass.tolist() == [1, 1, 1] and batch.task == "nli"
    assert all_.lengths[4] == len(all_.encodings[4]["ids"])


@pytest.mark.parametrize("start", [1, 25, 26, 27, 60])
def test_it_goes_on_anywhere_as_if_it_had_been_read(start):
    whole = list(itertools.islice(stream(examples(103), 4, seed=3), 90))
    rest = list(itertools.islice(stream(examples(103), 4, seed=3, start=start), 90 - start))
    assert [b.ids for b in rest] == [b.ids for b in whole[start:]]


def test_epochs_and_seeds_differ_and_repeat():
    lengths = examples(200).lengths
    base = order(lengths, 8, seed=1, epoch=0)
    assert base == order(lengths, 8, seed=1, epoch=0)
    assert base != order(lengths, 8, seed=1, epoch=1) != order(lengths, 8, seed=2, epoch=0)
    drawn = [b.ids for b in itertools.islice(stream(examples(200), 8, seed=1), 3 * 25)]
    epochs = [drawn[:25], drawn[25:50], drawn[50:]]
    assert all(sorted(map(tuple, a)) != sorted(map(tuple, b)) for a, b in itertools.combinations(epochs, 2))


def test_the_order_leaves_the_global_random_state_alone_and_does_not_read_it():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [b.ids for b in itertools.islice(stream(examples(60), 8, seed=0), 20)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert first == [b.ids for b in itertools.islice(stream(examples(60), 8, seed=0), 20)]


def test_a_batch_holds_like_lengths_and_the_batches_are_mixed():
    lengths = torch.randint(1, 100, (64 * WINDOW,), generator=torch.Generator().manual_seed(0)).tolist()

    def padded(batches):
        return sum(len(b) * max(lengths[i] for i in b) for b in batches)

    made = order(lengths, 32, seed=0, epoch=0)
    plain = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(1)).split(32)
    assert padded(made) < 0.65 * padded([b.tolist() for b in plain])
    means = [sum(lengths[i] for i in b) / len(b) for b in made]
    assert means != sorted(means)
    # a window is a draw from the whole: the batches of an epoch are not one sorted list cut in pieces
    assert max(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in made) > 100 / len(made)


def test_a_short_last_batch_is_as_long_as_the_others():
    lengths = list(range(1, 36))
    last = [lengths[i] for epoch in range(300) for i in order(lengths, 8, 0, epoch)[-1]]
    assert len(last) == 900
    assert abs(sum(last) / len(last) - 18) < 1.2  # 3.5 standard errors; the longest three of 35 would give 34


def test_balanced_batches_hold_classes_in_equal_numbers_and_go_on_anywhere():
    labels = torch.tensor([0] * 50 + [1] * 8 + [2] * 2)
    skewed = dataclasses.replace(examples(60), labels=labels, strata=labels)
    drawn = list(itertools.islice(balanced(skewed, 8, seed=1), 200))
    counts = torch.stack([torch.bincount(b.labels, minlength=3) for b in drawn])
    assert counts.sum(1).eq(8).all() and counts.min() == 2 and counts.max() == 3
    assert (counts.double().mean(0) - 8 / 3).abs().max() < 0.15  # what is left over goes to no class in particular
    assert all(len(set(b.ids)) >= 7 for b in drawn)  # the class of two examples stands in for a third
    of_first = {i for b in drawn for i in b.ids if i in skewed.ids[:50]}
    assert len(of_first) == 50
    rest = list(itertools.islice(balanced(skewed, 8, seed=1, start=150), 50))
    assert [b.ids for b in rest] == [b.ids for b in drawn[150:]]
    assert [b.ids for b in itertools.islice(balanced(skewed, 8, seed=2), 200)] != [b.ids for b in drawn]


@pytest.mark.parametrize("labels", [torch.rand(20), torch.arange(20)], ids=["values", "whole"])
def test_without_strata_they_are_those_of_the_stream(labels):
    values = dataclasses.replace(examples(20), labels=labels, strata=None)
    pairs = zip(balanced(values, 8, 1, 2), stream(values, 8, 1, 2), strict=False)
    assert all(a.ids == b.ids for a, b in itertools.islice(pairs, 5))
    none = torch.zeros(0).long()
    with pytest.raises(ValueError, match="0 examples"):
        next(balanced(dataclasses.replace(examples(4), ids=[], encodings=[], labels=none, strata=none), 4, 0))


def test_labels_move_with_the_examples():
    moved = examples(10).to("cpu")
    assert moved.batch([1]).ids == ["e1"] and len(moved) == 10


def test_no_examples_and_unequal_columns():
    with pytest.raises(ValueError, match="0 examples"):
        next(stream(examples(0), 4, 0))
    with pytest.raises(ValueError, match="2 ids, 1 encodings, 1 labels"):
        Examples("nli", ["a", "b"], [{"ids": [1]}], torch.tensor([0]), None)


def test_keys_differ_in_every_part():
    keys = [(0, 1), (1, 0), (0, "1"), ("0", 1), (0,), (0, 1, 0), (0, 11), (-1, 1)]
    made = {key(*parts) for parts in keys}
    assert len(made) == len(keys) and all(0 <= k < 2**63 for k in made)
    assert key(0, "order", 1) == key(0, "order", 1)
