"""Sequences for masked-language-model training: encoded texts, and the tokens of a batch that are to be predicted.

Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are predicted; of those 80 % are replaced by
[MASK], 10 % by a random token, 10 % are left. For next-sentence prediction half of the second texts are exchanged.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gradworks.base.progress import Progress
from gradworks.data.batching import key

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

_CHUNK = 1000  # texts that are encoded together
IGNORED = -100  # target of a token that is not predicted


@dataclass(frozen=True)
class Special:
    """Ids of a tokenizer: [MASK], [PAD], all special ones, and all others."""

    mask: int
    pad: int
    all: Tensor
    ordinary: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Special:
        """Raises ValueError when the tokenizer has no mask token."""
        special = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
        ids = {name.strip("[]<>").lower(): i for i, name in special.items()}
        if "mask" not in ids:
            raise ValueError(f"no mask token among {', '.join(special.values())}")
        others = torch.tensor([i for i in range(tokenizer.get_vocab_size()) if i not in special])
        return cls(ids["mask"], ids.get("pad", 0), torch.tensor(sorted(special)), others)


class Sequences:
    """Many encoded sequences in flat arrays: a million of them take 8 bytes a sequence and 4 a token.

    Attributes:
        lengths: (s,) tokens of each.
        exchanged: (s,) 1 where the second text belongs to another first one.
    """

    def __init__(self) -> None:
        self._ids, self._starts, self._first = array("i"), array("q", [0]), array("i")
        self.lengths, self.exchanged = array("i"), array("b")

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, ids: Sequence[int], types: Sequence[int], exchanged: bool) -> None:
        """One sequence with token types 0 … 0 1 … 1."""
        self._ids.extend(ids)
        self._starts.append(len(self._ids))
        self._first.append(len(types) - sum(types))
        self.lengths.append(len(ids))
        self.exchanged.append(exchanged)

    def batch(self, rows: Sequence[int], pad: int) -> dict[str, Tensor]:
        """input_ids, token_type_ids, attention_mask, each (n, L), and next_sentence_label (n,): 1 = exchanged."""
        lengths = torch.tensor([self.lengths[r] for r in rows])
        position = torch.arange(int(lengths.max()))
        ids = torch.full((len(rows), len(position)), pad)
        for row, r in enumerate(rows):
            ids[row, : self.lengths[r]] = torch.tensor(self._ids[self._starts[r] : self._starts[r + 1]])
        inside = position < lengths[:, None]
        second = position >= torch.tensor([self._first[r] for r in rows])[:, None]
        return {
            "input_ids": ids,
            "token_type_ids": (second & inside).long(),
            "attention_mask": inside.long(),
            "next_sentence_label": torch.tensor([self.exchanged[r] for r in rows], dtype=torch.int64),
        }


def encode(
    texts: Sequence[tuple[str, ...]],
    tokenizer: Tokenizer,
    max_length: int,
    exchange: bool,
    seed: int,
    documents: Sequence[int] | None = None,
) -> Sequences:
    """One sequence per example: its text, or its first text and the others joined by a blank.

    Args:
        texts: of each example.
        tokenizer: adds its special tokens.
        max_length: tokens of a sequence; the longer text is cut first.
        exchange: give half of the examples, keyed by seed, the second text of another one.
        seed: of the exchange.
        documents: of each example, in order; an exchanged text is of another document, as BERT's are. None: of another
            example.

    Raises:
        ValueError: there is nothing to exchange.
    """
    pairs = [(one[0], " ".join(one[1:])) if len(one) > 1 else one[0] for one in texts]
    swapped = torch.zeros(len(pairs), dtype=torch.bool)
    if exchange:
        if len(pairs) < 2 or not all(isinstance(pair, tuple) for pair in pairs):
            raise ValueError("next-sentence prediction needs at least two examples of two texts")
        generator = torch.Generator().manual_seed(key(seed, "exchange"))
        swapped = torch.rand(len(pairs), generator=generator) < 0.5
        other = _partners(documents, len(pairs), generator)
        seconds = [pair[1] for pair in pairs]
        pairs = [(pair[0], seconds[other[i]] if swapped[i] else pair[1]) for i, pair in enumerate(pairs)]
    made = Sequences()
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    with Progress("encode", len(pairs), "text") as bar:
        for start in range(0, len(pairs), _CHUNK):
            for i, one in enumerate(tokenizer.encode_batch(pairs[start : start + _CHUNK]), start):
                made.add(one.ids, one.type_ids, bool(swapped[i]))
            bar.advance(len(pairs[start : start + _CHUNK]))
    return made


def mask(ids: Tensor, special: Special, share: float, *keys: int | str) -> tuple[Tensor, Tensor]:
    """Choose the tokens to predict, and replace 80 % of them by [MASK] and 10 % by any other token.

    Args:
        ids: (n, L) token ids; special tokens are never chosen.
        special: of the tokenizer.
        share: of the other tokens of each sequence, at least one where there is one.
        keys: all that the choice depends on besides: the same keys give the same masks.

    Returns:
        (n, L) ids with replacements, and (n, L) targets: the true id where one is to be predicted, else -100.
    """
    generator = torch.Generator().manual_seed(key(*keys))
    ordinary = ~torch.isin(ids, special.all)
    count = (ordinary.sum(1) * share).round().clamp_min(1)
    rank = torch.rand(ids.shape, generator=generator).masked_fill(~ordinary, 2.0).argsort(1).argsort(1)
    chosen = (rank < count[:, None]) & ordinary
    dice = torch.rand(ids.shape, generator=generator)
    random = special.ordinary[torch.randint(len(special.ordinary), ids.shape, generator=generator)]
    replaced = torch.where(dice < 0.8, special.mask, torch.where(dice < 0.9, random, ids))
    return torch.where(chosen, replaced, ids), torch.where(chosen, ids, IGNORED)


def held_out(count: int, share: float, seed: int, most: int = 512) -> tuple[list[int], list[int]]:
    """Rows to train on and rows on which the loss is only measured: at least one of each, keyed by seed."""
    generator = torch.Generator().manual_seed(key(seed, "held out"))
    rows = torch.randperm(count, generator=generator).tolist()
    cut = min(most, max(1, round(count * share)))
    return sorted(rows[cut:]), sorted(rows[:cut])


def pairs_of_lines(numbered: Iterator[tuple[int, str]]) -> tuple[list[tuple[str, str]], list[int]]:
    """Every line of a document with the one after it, no line twice; an odd last line of a document is left out.

    Args:
        numbered: number and text of the lines that are not blank; a blank line ends a document.

    Returns:
        The pairs, and the document of each, counted from 0.
    """
    pairs: list[tuple[str, str]] = []
    documents: list[int] = []
    document, before, first = 0, None, None
    for number, line in numbered:
        if before is not None and number != before + 1:
            document, first = document + 1, None
        if first is None:
            first = line
        else:
            pairs.append((first, line))
            documents.append(document)
            first = None
        before = number
    return pairs, documents


def _partners(documents: Sequence[int] | None, count: int, generator: torch.Generator) -> list[int]:
    """For each of `count` pairs another one, of another document where there are several; each of these alike."""
    if documents is None or documents[0] == documents[-1]:
        ahead = torch.randint(1, count, (count,), generator=generator)
        return ((torch.arange(count) + ahead) % count).tolist()
    place = torch.tensor(documents)
    _, inverse, size = place.unique_consecutive(return_inverse=True, return_counts=True)
    others, end = count - size[inverse], size.cumsum(0)[inverse]
    ahead = (torch.rand(count, dtype=torch.float64, generator=generator) * others).long()
    return ((end + ahead) % count).tolist()
