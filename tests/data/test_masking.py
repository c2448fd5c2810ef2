"""Masking for language-model training: what is chosen, what replaces it, and that keys decide it."""

from collections import Counter

import pytest
import torch

from gradworks.data import tokenizer
from gradworks.data.masking import IGNORED, Special, encode, held_out, mask, pairs_of_lines

TEXTS = [(f"the pilot met lawyer number {i}", f"the doctor saw {i}") for i in range(40)]


@pytest.fixture(scope="module")
def made():
    return tokenizer.train([text for pair in TEXTS for text in pair], 90, True)


def test_sequences_are_what_the_tokenizer_makes(made):
    sequences = encode(TEXTS, made, 12, exchange=False, seed=0)
    assert len(sequences) == 40 and max(sequences.lengths) <= 12
    batch = sequences.batch([3, 7], pad=0)
    made.enable_truncation(12)
    for row, text in zip((0, 1), (TEXTS[3], TEXTS[7]), strict=True):
        one = made.encode(*text)
        n = len(one.ids)
        assert batch["input_ids"][row].tolist() == one.ids + [0] * (batch["input_ids"].shape[1] - n)
        assert batch["token_type_ids"][row, :n].tolist() == one.type_ids
        assert batch["token_type_ids"][row, n:].sum() == 0
        assert batch["attention_mask"][row].sum() == n == sequences.lengths[(3, 7)[row]]


def test_texts_after_the_second_are_joined_and_single_ones_have_one_type(made):
    three = encode([("the pilot", "met", "the doctor")], made, 32, False, 0).batch([0], 0)
    two = encode([("the pilot", "met the doctor")], made, 32, False, 0).batch([0], 0)
    assert all(torch.equal(three[name], two[name]) for name in two)
    assert encode([("the pilot",)], made, 32, False, 0).batch([0], 0)["token_type_ids"].sum() == 0


def test_half_of_the_second_texts_are_exchanged(made):
    sequences = encode(TEXTS, made, 32, exchange=True, seed=0)
    exchanged = sum(sequences.exchanged)
    assert 10 <= exchanged <= 30  # 3.2 standard deviations of a fair coin
    plain = encode(TEXTS, made, 32, exchange=False, seed=0)
    for i in range(40):
        same = sequences.batch([i], 0)["input_ids"].tolist() == plain.batch([i], 0)["input_ids"].tolist()
        assert same != bool(sequences.exchanged[i])  # an exchanged text is never its own
    assert list(encode(TEXTS, made, 32, True, 1).exchanged) != list(sequences.exchanged)
    with pytest.raises(ValueError, match="two examples of two texts"):
        encode([("one",)] * 3, made, 32, exchange=True, seed=0)


def test_masks(made):
    special = Special.of(made)
    ids = encode(TEXTS * 30, made, 32, False, 0).batch(range(1200), special.pad)["input_ids"]
    seen, targets = mask(ids, special, 0.15, 0, "mask", 1)
    chosen = targets != IGNORED
    ordinary = (ids[..., None] != special.all).all(-1)
    assert not chosen[~ordinary].any()
    assert torch.equal(targets[chosen], ids[chosen]) and torch.equal(seen[~chosen], ids[~chosen])
    per_row = chosen.sum(1)
    assert torch.equal(per_row, (ordinary.sum(1) * 0.15).round().clamp_min(1).long())
    n = int(chosen.sum())
    masked = (seen[chosen] == special.mask).sum() / n
    same = (seen[chosen] == ids[chosen]).sum() / n
    tolerance = 4 * (0.16 / n) ** 0.5
    assert abs(masked - 0.8) < tolerance and abs(same - 0.1) < tolerance + 0.1 / len(special.ordinary)
    assert not torch.isin(seen[chosen & (seen != special.mask)], special.all).any()
    position = chosen.sum(0)[1:7] / ordinary.sum(0)[1:7]
    assert position.min() > 0.5 * position.max()  # no place is favoured


def test_masks_are_keyed(made):
    special = Special.of(made)
    ids = encode(TEXTS, made, 32, False, 0).batch(range(40), special.pad)["input_ids"]
    base = mask(ids, special, 0.15, 0, "mask", 1)
    torch.manual_seed(5)
    again = mask(ids, special, 0.15, 0, "mask", 1)
    other = mask(ids, special, 0.15, 0, "mask", 2)
    assert torch.equal(base[0], again[0]) and torch.equal(base[1], again[1])
    assert not torch.equal(base[1], other[1])


def test_a_sequence_of_special_tokens_has_nothing_to_predict(made):
    special = Special.of(made)
    ids = torch.tensor([[2, 3, 0]])
    seen, targets = mask(ids, special, 0.15, 0)
    assert torch.equal(seen, ids) and (targets == IGNORED).all()


def test_held_out():
    rows, held = held_out(100, 0.02, seed=0)
    assert sorted(rows + held) == list(range(100)) and len(held) == 2
    assert held_out(100, 0.02, seed=0) == (rows, held) != held_out(100, 0.02, seed=1)
    assert len(held_out(2, 0.02, 0)[1]) == 1
    assert len(held_out(100_000, 0.02, 0)[1]) == 512


def test_lines_become_pairs():
    numbered = [(1, "a"), (2, "b"), (3, "c"), (5, "d"), (6, "e"), (8, "f"), (10, "g"), (11, "h"), (12, "i"), (13, "j")]
    pairs = [("a", "b"), ("d", "e"), ("g", "h"), ("i", "j")]  # a blank line ends a document
    assert pairs_of_lines(iter(numbered)) == (pairs, [0, 1, 3, 3])


def test_an_exchanged_text_is_of_another_document_and_each_of_these_alike(made):
    words = ("pilot", "doctor", "lawyer", "saw", "number", "met")
    documents = [0, 0, 0, 1, 2, 2]
    texts = [("the", word) for word in words]
    found = {i: Counter() for i in range(6)}
    for seed in range(300):
        sequences = encode(texts, made, 16, True, seed, documents)
        for i in range(6):
            ids = sequences.batch([i], 0)["input_ids"][0].tolist()
            if sequences.exchanged[i]:
                found[i][next(word for word in words if made.token_to_id(word) in ids)] += 1
    for i, counts in found.items():
        others = [word for word, document in zip(words, documents, strict=True) if document != documents[i]]
        assert set(counts) == set(others)
        expected = 150 / len(others)
        assert all(abs(n - expected) < 4.5 * expected**0.5 for n in counts.values())
    one = encode(texts, made, 16, True, 0, [0] * 6)  # of a single document it is another example
    assert list(one.exchanged) == list(encode(texts, made, 16, True, 0).exchanged)
    for i in range(6):
        assert (one.batch([i], 0)["input_ids"] == encode(texts, made, 16, True, 0).batch([i], 0)["input_ids"]).all()


def test_a_tokenizer_without_mask_is_refused():
    with pytest.raises(ValueError, match="no mask token"):
        Special.of(tokenizer.words(["[PAD]", "[UNK]", "a"], True))
