"""Batches: every example once an epoch, an order that only the seed decides, a stream that goes on anywhere."""

import dataclasses
import itertools

import pytest
import torch

from gradworks.base.size import Budget
from gradworks.data.batching import Examples, balanced, cuts, key, order, steps_per_epoch, stream


def examples(n, collate=None):
    lengths = [(7 * i) % 40 + 1 for i in range(n)]
    encodings = [{"ids": [i] * length, "short": [0]} for i, length in enumerate(lengths)]
    pad = collate or (lambda some: {"ids": torch.tensor([one["ids"][0] for one in some])})
    ids, labels = [f"e{i}" for i in range(n)], torch.arange(n) % 3
    return Examples("nli", ids, encodings, labels, pad, torch.arange(n) % 2, strata=labels)


@pytest.mark.parametrize("window", [1, 3, 8, 1000])
@pytest.mark.parametrize(("n", "size"), [(1, 4), (8, 4), (103, 4), (103, 7), (5, 100)])
def test_an_epoch_holds_every_example_once(n, size, window):
    count = steps_per_epoch(examples(n).tokens, size, window)
    assert count == -(-n // size)
    source = stream(examples(n), size, seed=0, window=window)
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


@pytest.mark.parametrize("window", [1, 5, 1000])
@pytest.mark.parametrize("tokens", [80, 81, 200, 666, 9999])
def test_a_budget_holds_every_batch_of_every_epoch(tokens, window):
    some = examples(200)
    counts = set()
    for epoch in range(5):
        made = order(some.tokens, Budget(tokens=tokens), 0, epoch, window)
        assert sorted(itertools.chain(*made)) == list(range(200))
        assert max(len(rows) * max(some.tokens[i] for i in rows) for rows in made) <= tokens
        counts.add(len(made))
    assert counts == {steps_per_epoch(some.tokens, Budget(tokens=tokens), window)}
    if window == 1000 and tokens >= 200:  # and fills them
        assert sum(counts) < 1.35 * -(-sum(some.tokens) // tokens) + 1


def test_a_budget_counts_every_text_of_an_example():
    """Both texts of a pair are padded; the token types of one text are no second text."""
    pairs = [{"text0": [1] * 3, "text1": [1] * 7}] * 2
    one = [{"input_ids": [1] * 7, "token_type_ids": [0] * 7}] * 2
    for encodings, tokens in ((pairs, [14, 14]), (one, [7, 7])):
        made = Examples("nli", ["a", "b"], encodings, torch.arange(2), None)
        assert (made.lengths, made.tokens) == ([7, 7], tokens)


def test_what_no_batch_holds_is_refused():
    with pytest.raises(ValueError, match="batches of 79 tokens: found an example of 80"):
        next(stream(examples(40), Budget(tokens=79), 0))
    for size, window in ((0, 1), (4, 0)):
        with pytest.raises(ValueError, match="expected at least 1"):
            next(stream(examples(40), size, 0, window=window))


@pytest.mark.parametrize("size", [4, Budget(tokens=160)], ids=str)
@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("start", [1, 25, 26, 27, 60])
def test_it_goes_on_anywhere_as_if_it_had_been_read(start, window, size):
    whole = list(itertools.islice(stream(examples(103), size, seed=3, window=window), 90))
    rest = list(itertools.islice(stream(examples(103), size, seed=3, start=start, window=window), 90 - start))
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


@pytest.mark.parametrize(("window", "padding"), [(1, 1.95), (8, 1.12), (50, 1.02)])
def test_the_wider_the_window_the_less_padding(window, padding):
    lengths = torch.randint(1, 100, (6400,), generator=torch.Generator().manual_seed(0)).tolist()
    made = order(lengths, 32, seed=0, epoch=0, window=window)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in made)
    assert abs(padded / sum(lengths) / padding - 1) < 0.04
    # a batch is a draw from its stretch, not the next rows in order of length
    spans = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in made]
    assert sum(spans) / len(spans) > 0.7 * 99 / window
    means = [sum(lengths[i] for i in b) / len(b) for b in made]
    assert window == 1 or abs(torch.corrcoef(torch.stack([torch.tensor(means), torch.arange(200.0)]))[0, 1]) < 0.25


def test_a_window_is_how_many_stretches_there_are():
    lengths = list(range(96))
    assert cuts(lengths, 4, 1) == [[4] * 24]
    assert cuts(lengths, 4, 3) == [[4] * 8] * 3
    assert cuts(lengths, 4, 6) == cuts(lengths, 4, 100) == [[4] * 4] * 6
    assert cuts(lengths[:94], 4, 2) == [[4] * 12, [4] * 11]  # 23 whole batches; `order` draws the other two rows
    assert cuts([10] * 8 + [5] * 9, Budget(tokens=20), 100) == [[2] * 4, [3] * 3]
    assert cuts([10] * 8 + [5] * 9, Budget(tokens=20), 1) == [[2] * 8 + [1]]
    for made in order(lengths, 4, 0, 0, 3):
        assert len({i // 32 for i in made}) == 1


@pytest.mark.parametrize("count", [64, 67, 5])
def test_of_eight_batches_in_a_row_each_is_of_another_eighth_by_length(count):
    lengths = list(range(4 * count))
    made = [order(lengths, 4, 0, epoch, 1000) for epoch in range(3)]
    for batches in made:
        places = [8 * rows[0] / (4 * count) for rows in batches]  # in eighths
        rows = [places[i : i + 8] for i in range(0, count // 8 * 8, 8)]
        # a batch is a draw from a stretch of four
        assert all(abs(at - k - 0.5) <= 0.5 + 32 / count for row in rows for k, at in enumerate(sorted(row)))
        assert count < 8 or len({tuple(row) for row in rows}) > len(rows) // 2
    assert made[0] != made[1] != made[2]


def test_rows_of_equal_length_meet_others_in_every_epoch():
    met = [{frozenset(rows) for rows in order([7] * 64, 4, 0, epoch, 1000)} for epoch in range(3)]
    assert not met[0] & met[1] and not met[1] & met[2]


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


def long_and_short(n, seed=0):
    """Two classes whose lengths differ, in no order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    lengths = (torch.randint(1, 60, (n,), generator=generator) + 20 * labels).tolist()
    encodings = [{"ids": [i] * length} for i, length in enumerate(lengths)]
    pad = lambda some: {"ids": torch.tensor([one["ids"][0] for one in some])}  # noqa: E731
    return Examples("nli", [str(i) for i in range(n)], encodings, labels, pad, strata=labels)


def test_clean_batches_are_of_like_length_and_every_example_comes_as_often():
    clean, size, draws = long_and_short(103), 6, 6000
    drawn = list(itertools.islice(balanced(clean, size, seed=1), draws))
    count = torch.zeros(len(clean))
    spans = {True: [], False: []}
    for some in (itertools.islice(balanced(clean, size, seed=1, window=1), draws), drawn):
        for batch in some:
            for label in (0, 1):
                own = [clean.lengths[int(i)] for i, y in zip(batch.ids, batch.labels, strict=True) if y == label]
                spans[some is drawn].append(max(own) - min(own))
    means = {alike: sum(values) / len(values) for alike, values in spans.items()}
    assert means[True] < 0.45 * means[False]
    for batch in drawn:
        assert torch.bincount(batch.labels, minlength=2).tolist() == [3, 3]
        count[[int(i) for i in batch.ids]] += 1
    for label in (0, 1):
        own = count[clean.labels == label]
        expected = draws * 3 / len(own)
        assert own.sum() == draws * 3
        # 103 counts, each binomial: none further than 4.5 standard deviations, and together as chi squared has it
        assert (own - expected).abs().max() < 4.5 * expected**0.5
        assert ((own - expected).square() / expected).sum() < len(own) + 4 * (2 * len(own)) ** 0.5


def test_lengths_of_the_classes_of_a_clean_batch_go_together():
    clean = long_and_short(400)
    means = [
        [sum(clean.lengths[int(i)] for i, y in zip(b.ids, b.labels, strict=True) if y == c) / 4 for c in (0, 1)]
        for b in itertools.islice(balanced(clean, 8, seed=2), 500)
    ]
    assert torch.corrcoef(torch.tensor(means).T)[0, 1] > 0.85


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
